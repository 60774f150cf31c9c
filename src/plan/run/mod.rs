//! Carrying plans out, without any I/O: what was heard and what is seen goes in, what is to be done comes out. One
//! step at a time on each device, several devices at once. Each step: guard, room, durable intent, write, verify,
//! durable outcome.
//!
//! Never: a write before its intent is durable; a second write for one intent; a step on stale or unknown state.

mod back;
mod end;
mod room;
mod settle;
mod step;
#[cfg(test)]
mod tests;
mod turn;
mod verify;
mod wait;
mod worst;

pub use end::{recorded, reserve};
pub use room::{Unfit, by_hand};
pub use wait::in_turn;

use std::collections::{BTreeMap, BTreeSet};

use crate::model::event::About;
use crate::model::id::{HostId, OutletId, PduId, PlanId};
use crate::model::limits::QUIESCE_MS;
use crate::model::switching::{Known, Outcome, Relay, Seen, Terms};
use crate::model::time::{Span, Tick};

use super::memory::{Memory, Written};
use super::picture::{Picture, Sight};
use super::record::{OnFailure, PlanState, Record, StepRecord, StepState};
use step::{Doing, Phase};
use verify::Lingering;
use wait::Waiting;

/// How long a later step of a plan waits for a PDU that does not answer, and an on for room.
const PATIENCE: Span = Span::seconds(60);
/// How long a plan waits that goes on after a restart, or brings hosts to a safe state, from when it began: PDU cards are up
/// later than the gateway after a power cut. What has not come by then, each step waits for as long as any other.
const LONG_PATIENCE: Span = Span::seconds(15 * 60);
/// Between two tries.
const PAUSE: Span = Span(500);

/// A step of a plan, for whom something is done.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Who {
    /// The plan.
    pub plan: PlanId,
    /// Its step, by place.
    pub step: usize,
}

/// When a host's webhook is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Before the first of its feeds goes off, when it is to go dark.
    BeforeOff,
    /// When it has been switched on and has started up.
    AfterOn,
}

/// What is to become durable.
#[derive(Debug, Clone)]
pub struct Save {
    /// The plan.
    pub plan: PlanId,
    /// Which of its states.
    pub generation: u64,
    /// All of it, where more than its steps has changed.
    pub record: Option<Record>,
    /// Another plan that begins in the same moment.
    pub more: Option<Record>,
    /// The steps that have changed.
    pub steps: Vec<(usize, StepRecord)>,
    /// Whether it goes on.
    pub open: bool,
    /// Whether an outcome is among it.
    pub outcome: bool,
    /// What is written down of it for ever.
    pub notes: Vec<Note>,
}

/// A line for the audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// What kind, as `step.intended`.
    pub kind: &'static str,
    /// About what.
    pub about: About,
    /// What happened.
    pub text: String,
}

/// What is to be done.
#[derive(Debug, Clone)]
pub enum Deed {
    /// Make something durable, then tell [`Heard::Saved`].
    Save(Box<Save>),
    /// Look at an outlet, or at everything of it that changes, then tell [`Heard::Looked`].
    Look {
        /// For whom.
        who: Who,
        /// The outlet.
        outlet: OutletId,
        /// Its load as well.
        everything: bool,
    },
    /// Write an outlet, once, then tell [`Heard::Written`].
    Write {
        /// For whom.
        who: Who,
        /// The outlet.
        outlet: OutletId,
        /// What its relay is to do.
        relay: Relay,
        /// What the write rests on.
        known: Known,
    },
    /// Read everything of a PDU anew, then tell [`Heard::Read`].
    Read {
        /// For whom.
        who: Who,
        /// The PDU.
        pdu: PduId,
    },
    /// Call a host's webhook, then tell [`Heard::Called`].
    Call {
        /// For whom.
        who: Who,
        /// The host.
        host: HostId,
        /// Which.
        moment: Moment,
    },
    /// Have an outlet's load read soon; nobody waits.
    Refresh(OutletId),
    /// Have a PDU read soon; nobody waits.
    Want(PduId),
    /// Lock an outlet.
    Lock(OutletId, String),
    /// Tell everybody.
    Tell {
        /// What kind.
        kind: &'static str,
        /// About what.
        about: About,
        /// A sentence.
        text: String,
    },
    /// How a plan stands, durably.
    Show(Box<Record>),
    /// A plan is over.
    Ended(Box<Record>),
}

/// How a write ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteEnd {
    /// It was sent; so it is to be verified.
    Sent(Terms),
    /// Whether it was sent, only looking tells.
    Lost,
    /// It may have been sent, and looking is of no use.
    Unclear(String),
    /// Nothing was sent, or the device refused it.
    Not(String),
}

/// What was heard.
#[derive(Debug, Clone)]
pub enum Heard {
    /// Time has passed, or something may have changed.
    Time,
    /// Something is durable, or could not be made so.
    Saved {
        /// The plan.
        plan: PlanId,
        /// Which of its states.
        generation: u64,
        /// Whether it is durable.
        ok: bool,
    },
    /// An outlet was looked at; the views show it.
    Looked {
        /// For whom.
        who: Who,
        /// What was seen, or why not.
        seen: Result<Seen, String>,
    },
    /// A write ended.
    Written {
        /// For whom.
        who: Who,
        /// How.
        end: WriteEnd,
    },
    /// A PDU was read anew, or could not be; the views show it.
    Read {
        /// For whom.
        who: Who,
    },
    /// A webhook answered, or why not.
    Called {
        /// For whom.
        who: Who,
        /// What.
        answer: Result<(), Unanswered>,
    },
}

/// Why a webhook did not do what it was called for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unanswered {
    /// Why.
    pub why: String,
    /// Whether it refused. Else it may be at it.
    pub refused: bool,
}

/// What the carrying out takes care of. All of it, but for the tests that show what each is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // each is a care of its own
pub struct Care {
    /// Of room as measured before each on.
    pub room: bool,
    /// Of late datagrams before another feed of a host is cut.
    pub quiesce: bool,
    /// Of the other feeds of a host that stays up.
    pub feeds: bool,
    /// Of what the relay reads after a command that the device took.
    pub looking: bool,
    /// Of loads that do not follow their relays.
    pub witness: bool,
}

impl Default for Care {
    fn default() -> Self {
        Self { room: true, quiesce: true, feeds: true, looking: true, witness: true }
    }
}

/// A plan under way.
#[allow(clippy::struct_excessive_bools)] // each is true or false by itself
pub(super) struct Run {
    record: Record,
    doing: Vec<Doing>,
    /// When its steps' times count from, and the planned time that this stands for, ms.
    began: Tick,
    base_ms: u64,
    /// When it is looked again whether it fits, where that could not be told.
    looks: Tick,
    /// Somebody cancelled it.
    stopping: bool,
    /// A step failed, and the rest is not begun.
    halted: bool,
    /// The webhook of a host that is on again was not answered, and the plan was to stop then.
    unheard: bool,
    /// It was found in the journal: intents are looked at before it goes on.
    settling: bool,
    /// Whether its steps wait long.
    patient: bool,
    /// How many of its steps were over when it was planned anew last, and since when no other is.
    replanned: Option<(usize, Tick)>,
    /// Its end is being made durable.
    closing: bool,
    /// Whether it is interrupted rather than stopped.
    interrupted: bool,
    /// Outlets of steps that failed, with the other feeds of their hosts.
    failed: BTreeSet<OutletId>,
    called: BTreeSet<HostId>,
    /// Steps before which a webhook is out, with the outlets of its host: none of these is switched meanwhile.
    calling: BTreeMap<usize, Vec<OutletId>>,
    /// When it began, or a webhook before an off of it answered last: that may be long after.
    fresh: Tick,
    generation: u64,
    durable: u64,
    saving: bool,
    changed: BTreeSet<usize>,
    whole: bool,
    more: Option<Record>,
    outcome: bool,
    notes: Vec<Note>,
}

impl Run {
    /// Until when a step waits that begins to wait now.
    fn waits_until(&self, now: Tick) -> Tick {
        let until = now + PATIENCE;
        if self.patient { until.max(self.began + LONG_PATIENCE) } else { until }
    }
}

/// All plans under way.
#[derive(Default)]
pub struct Runs {
    care: Care,
    /// What this gateway remembers of its commands.
    pub memory: Memory,
    plans: BTreeMap<PlanId, Run>,
    claims: BTreeMap<OutletId, PlanId>,
    /// Open plans that have not begun.
    waiting: Vec<Waiting>,
    /// Devices that carry a step out.
    busy: BTreeMap<PduId, Who>,
    /// Hosts that have to stay up while a feed of theirs is cut.
    turns: BTreeMap<HostId, Who>,
    lingering: BTreeMap<Who, Lingering>,
    /// What an outlet was told before, while it is not certain that the next command was sent.
    unsent: BTreeMap<Who, Written>,
    ending: bool,
    deeds: Vec<Deed>,
}

impl Runs {
    /// None, with less care than there should be: for tests that must fail.
    pub fn careless(care: Care) -> Self {
        Self { care, ..Self::default() }
    }

    /// Takes the outlets of a plan; no other plan may touch them until it has ended. Tells which plan has one of them.
    pub fn claim(&mut self, record: &Record) -> Result<(), (OutletId, PlanId)> {
        if let Some(taken) = self.taken(record) {
            return Err(taken);
        }
        for step in &record.steps {
            self.claims.insert(step.outlet.clone(), record.id.clone());
        }
        Ok(())
    }

    /// Gives back the outlets of a plan that was not begun.
    pub fn release(&mut self, plan: &PlanId) {
        self.claims.retain(|_, of| of != plan);
    }

    /// The plan that is at an outlet.
    pub fn claimed_by(&self, outlet: &OutletId) -> Option<&PlanId> {
        self.claims.get(outlet)
    }

    fn insert(&mut self, record: Record, sight: &Sight<'_>, settling: bool) {
        // What an earlier run sent has died by then.
        let dead = Span(if self.care.quiesce { QUIESCE_MS } else { 0 });
        let dead = settling.then_some(sight.now + dead);
        let doing = record.steps.iter().map(|step| Doing::of(step, sight.site, sight.now, dead));
        let open = record.steps.iter().filter(|step| step.state.outcome().is_none());
        let base_ms = open.map(|step| step.at_ms).min().unwrap_or(0);
        let run = Run {
            doing: doing.collect(),
            began: sight.now,
            base_ms: if settling { base_ms } else { 0 },
            looks: sight.now,
            stopping: record.cancelled.is_some(),
            halted: false,
            unheard: false,
            settling,
            patient: settling || record.patient,
            replanned: None,
            closing: false,
            interrupted: false,
            failed: BTreeSet::new(),
            called: BTreeSet::new(),
            calling: BTreeMap::new(),
            fresh: sight.now,
            generation: 0,
            durable: 0,
            saving: false,
            changed: BTreeSet::new(),
            whole: false,
            more: None,
            outcome: false,
            notes: Vec::new(),
            record,
        };
        self.plans.insert(run.record.id.clone(), run);
    }

    /// Has a plan begin no further step; false if it is not under way.
    pub fn cancel(&mut self, plan: &PlanId, by: &str, sight: &Sight<'_>) -> (bool, Vec<Deed>) {
        // One that waits for another ends without having begun.
        if let Some(at) = self.waiting.iter().position(|of| of.record.id == *plan) {
            let of = self.waiting.remove(at);
            self.insert(of.record, sight, of.settling);
        }
        let Some(run) = self.plans.get_mut(plan) else { return (false, Vec::new()) };
        run.stopping = true;
        // Durable before the next step could begin, also over a restart.
        run.record.cancelled = Some(by.to_owned());
        run.whole = true;
        run.generation += 1;
        self.note(plan, "plan.cancelled", format!("plan {plan} is to stop, by {by}"));
        (true, self.heard(Heard::Time, sight))
    }

    /// Begins no further step at all.
    pub fn end(&mut self, sight: &Sight<'_>) -> Vec<Deed> {
        self.ending = true;
        self.heard(Heard::Time, sight)
    }

    /// Whether nothing is being done.
    pub fn is_quiet(&self) -> bool {
        self.plans.values().all(|run| !run.saving && run.doing.iter().all(Doing::is_idle))
    }

    /// The plans under way.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.plans.values().map(|run| &run.record).chain(self.waiting.iter().map(|of| &of.record))
    }

    /// One of them.
    pub fn record(&self, plan: &PlanId) -> Option<&Record> {
        self.plans.get(plan).map(|run| &run.record)
    }

    /// The picture that plans are made for, with the room that the plans under way have taken; `except` is not counted.
    pub fn picture(
        &self,
        sight: &Sight<'_>,
        except: Option<&PlanId>,
        about: Option<&BTreeSet<PduId>>,
    ) -> Picture {
        let mut picture = Picture::of(sight, &self.memory, about);
        for (id, run) in self.plans.iter().filter(|(id, _)| Some(*id) != except) {
            let at = |who: &Who| who.plan == *id;
            let written = self.busy.values().filter(|who| at(who));
            // What was written is counted as such.
            let written: Vec<usize> = written
                .map(|who| who.step)
                .filter(|step| run.doing[*step].phase.is_written())
                .collect();
            picture.reserve(&run.record, &written);
        }
        picture
    }

    /// When something is to be done next if nothing is heard before.
    pub fn wake(&self) -> Option<Tick> {
        let steps = self.plans.values().flat_map(|run| {
            let wake = |at: usize| match &run.doing[at].phase {
                Phase::Waits => self.due(run, at),
                Phase::Feeds { left, .. } => left.last().map(|feed| self.memory.dead(feed)),
                phase => phase.wake(),
            };
            (0..run.doing.len()).filter_map(wake)
        });
        let lingering = self.lingering.values().filter_map(Lingering::wake);
        let waiting = self.waiting.iter().filter_map(Waiting::wake);
        steps.chain(lingering).chain(waiting).min()
    }

    /// Takes in what was heard, and tells what is to be done.
    pub fn heard(&mut self, heard: Heard, sight: &Sight<'_>) -> Vec<Deed> {
        match heard {
            Heard::Time => {}
            Heard::Saved { plan, generation, ok } => self.saved(&plan, generation, ok, sight),
            Heard::Looked { who, seen } => self.looked(&who, seen, sight),
            Heard::Written { who, end } => self.written(&who, end, sight),
            Heard::Read { who } => self.read(&who, sight),
            Heard::Called { who, answer } => self.called(&who, answer, sight),
        }
        let mut moved = true;
        while moved {
            let plans: Vec<PlanId> = self.plans.keys().cloned().collect();
            moved = plans.iter().fold(false, |moved, plan| self.advance(plan, sight) | moved);
            moved |= self.linger(sight);
            moved |= self.admit(sight);
        }
        std::mem::take(&mut self.deeds)
    }

    fn advance(&mut self, plan: &PlanId, sight: &Sight<'_>) -> bool {
        let mut moved = false;
        let mut step = 0;
        // A plan that is planned anew has another number of steps.
        while self.plans.get(plan).is_some_and(|run| step < run.doing.len()) {
            let who = Who { plan: plan.clone(), step };
            if self.move_step(&who, sight) {
                moved = true;
            } else {
                step += 1;
            }
        }
        moved |= self.settled(plan, sight);
        moved |= self.close_what_is_over(plan, sight);
        self.ask_to_save(plan);
        moved
    }

    /// Notes that something of a step is to become durable.
    fn touch(&mut self, who: &Who) -> u64 {
        let Some(run) = self.plans.get_mut(&who.plan) else { return 0 };
        run.changed.insert(who.step);
        run.generation += 1;
        run.generation
    }

    fn ask_to_save(&mut self, plan: &PlanId) {
        let Some(run) = self.plans.get_mut(plan) else { return };
        if run.saving || run.generation == run.durable {
            return;
        }
        run.saving = true;
        let changed = std::mem::take(&mut run.changed);
        let steps = changed.into_iter().map(|at| (at, run.record.steps[at].clone())).collect();
        let whole = std::mem::take(&mut run.whole);
        let save = Save {
            plan: plan.clone(),
            generation: run.generation,
            record: whole.then(|| run.record.clone()),
            more: run.more.clone(),
            steps,
            open: run.record.state == PlanState::Running,
            outcome: std::mem::take(&mut run.outcome),
            notes: std::mem::take(&mut run.notes),
        };
        self.deeds.push(Deed::Save(Box::new(save)));
    }

    fn saved(&mut self, plan: &PlanId, generation: u64, ok: bool, sight: &Sight<'_>) {
        let Some(run) = self.plans.get_mut(plan) else { return };
        run.saving = false;
        if ok {
            run.durable = generation;
            if !run.closing {
                self.deeds.push(Deed::Show(Box::new(run.record.clone())));
            }
            return;
        }
        // What cannot be made durable is not begun; what is over is over all the same.
        let text = format!("plan {plan} stops: the journal failed");
        self.deeds.push(Deed::Tell { kind: "plan.not_durable", about: About::plan(plan), text });
        run.durable = run.generation;
        run.halted = true;
        // Also those whose intent was to come with a later commit.
        let intended =
            (0..run.doing.len()).filter(|at| matches!(run.doing[*at].phase, Phase::Intends { .. }));
        for step in intended.collect::<Vec<_>>() {
            let who = Who { plan: plan.clone(), step };
            let detail = "its intent could not be made durable".to_owned();
            self.ends(&who, Outcome::Failed, Some(detail), sight);
        }
    }

    /// Writes down the outcome of a step, to become durable.
    fn ends(&mut self, who: &Who, outcome: Outcome, detail: Option<String>, sight: &Sight<'_>) {
        let generation = self.touch(who);
        let Some(run) = self.plans.get_mut(&who.plan) else { return };
        let step = &mut run.record.steps[who.step];
        step.state = StepState::Ended(outcome);
        step.detail = detail;
        step.at = Some(sight.stamp.0);
        run.outcome = true;
        let (outlet, relay) = (step.outlet.clone(), step.relay);
        let said = step.detail.as_ref().map_or(String::new(), |detail| format!(": {detail}"));
        let about = About { plan: Some(who.plan.clone()), ..About::outlet(&outlet) };
        let text = format!("{outlet} {}: {}{said}", relay.word(), outcome.word());
        run.notes.push(Note { kind: "step.ended", about: about.clone(), text: text.clone() });
        if !outcome.is_success() && outcome != Outcome::Skipped {
            run.failed.insert(outlet.clone());
            let host = sight.site.host_of(&outlet);
            run.failed.extend(host.into_iter().flat_map(|(_, host)| host.outlets.iter().cloned()));
            let stops = run.record.on_failure == OnFailure::Stop;
            run.halted |= stops || run.doing[who.step].mismatch;
        }
        let settles = self.memory_settles(sight, &outlet, relay);
        let doing = self.doing(who);
        (doing.done, doing.up) = if outcome.is_success() {
            (Some(sight.now), Some(sight.now + settles))
        } else {
            (None, None)
        };
        if outcome != Outcome::Skipped {
            let kind = match (outcome.is_success(), relay) {
                (true, Relay::On) => "outlet.on",
                (true, Relay::Off) => "outlet.off",
                (false, _) => "outlet.failed",
            };
            self.doing(who).told = Some((kind, about, text));
        }
        let phase = Phase::Records { generation };
        self.doing(who).phase = phase;
    }

    fn doing(&mut self, who: &Who) -> &mut Doing {
        let run = self.plans.get_mut(&who.plan);
        let doing = run.and_then(|run| run.doing.get_mut(who.step));
        doing.unwrap_or_else(|| unreachable!("{who:?} is a step of a plan under way"))
    }

    /// How long what an outlet feeds takes to start up.
    fn memory_settles(&self, sight: &Sight<'_>, outlet: &OutletId, relay: Relay) -> Span {
        if relay == Relay::Off {
            return Span(0);
        }
        let host = sight.site.host_of(outlet).map(|(_, host)| host);
        let learned = self.memory.learned.get(outlet).copied();
        let drew = self.memory.drew.get(outlet).copied();
        Span(sight.site.draw(outlet, host, learned, drew).settles_ms())
    }
}
