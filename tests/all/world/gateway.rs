//! The gateway in a world: its executor and its journal, which are the real ones, and how they start, are killed and are
//! answered.

use pmgate::model::metric::{Metric, Scope};
use pmgate::model::reading::Datum;

use super::{
    Answer, BTreeMap, Claim, Commit, Deed, EPOCH, Happens, Heard, HostId, Journal, Known, LIFE,
    LOADED, Lie, Moment, Outcome, OutletId, PlanId, PlanState, Record, Relay, Runs, Save, Sent,
    Sight, Stamp, StepRecord, StepState, Tick, Unanswered, Who, World, WriteEnd, neighbour_of,
    terms, views,
};

impl World {
    /// What the gateway sees, for the time of one call.
    pub(super) fn with_sight<T>(&mut self, act: impl FnOnce(&mut Runs, &Sight<'_>) -> T) -> T {
        let locks = BTreeMap::new();
        let sight = Sight {
            now: Tick(self.now - self.started),
            stamp: Stamp(EPOCH + self.now as i64),
            views: &self.views,
            site: &self.rack.site,
            locks: &locks,
        };
        act(&mut self.runs, &sight)
    }

    pub(super) fn hear(&mut self, heard: Heard) {
        if !self.up {
            return;
        }
        let deeds = self.with_sight(|runs, sight| runs.heard(heard, sight));
        self.carry_out(deeds);
    }

    pub(super) fn carry_out(&mut self, deeds: Vec<Deed>) {
        for deed in deeds {
            if !self.up {
                return;
            }
            self.deed(deed);
        }
        self.sleep();
    }

    pub(super) fn sleep(&mut self) {
        let Some(wake) = self.runs.wake() else { return };
        let at = (wake.0 + self.started).max(self.now + 1);
        if self.woken.is_none_or(|woken| at < woken || woken <= self.now) {
            self.woken = Some(at);
            self.later(at - self.now, Happens::Wakes);
        }
    }

    pub(super) fn starts(&mut self) {
        self.run += 1;
        self.started = self.now;
        self.up = true;
        self.woken = None;
        self.runs = Runs::careless(self.care);
        self.drains.clear();
        self.say(|| "the gateway starts".into());
        let journal = Journal::on(self.disk.clone(), self.log.clone()).unwrap();
        self.views = self.rack.cards.iter().map(views::unknown).collect();
        for card in 0..self.rack.cards.len() {
            let after = self.random.ms(100, 3_000);
            self.later(after, Happens::Polled(card));
        }
        let open = journal.open_plans().unwrap();
        self.journal = Some(journal);
        let parsed = open.iter().map(|kept| pmgate::switching::parse("a plan", kept).unwrap());
        let mut records: Vec<Record> = parsed.collect();
        pmgate::plan::run::in_turn(&mut records);
        for record in records {
            // What brings hosts to their safe state may wait for another plan, and what was put off holds nothing.
            let put_off = record.not_before.is_some()
                && record.steps.iter().all(|step| step.state == StepState::Pending);
            if !record.patient
                && !put_off
                && let Err((outlet, other)) = self.runs.claim(&record)
            {
                self.wrong(&format!("{outlet} is in plans {} and {other}", record.id));
                return;
            }
            self.known.insert(record.id.clone(), PlanState::Running);
            let deeds = self.with_sight(|runs, sight| runs.take_up(record, sight));
            self.carry_out(deeds);
            if !self.up {
                return;
            }
        }
    }

    pub(super) fn killed(&mut self, how: &str) {
        if !self.up {
            return;
        }
        self.say(|| format!("the gateway is killed {how}"));
        self.story.crashes += 1;
        self.up = false;
        self.journal = None;
        let after = self.random.ms(500, 60_000);
        self.later(after, Happens::Starts);
    }

    pub(super) fn crashes_here(&mut self) -> bool {
        let crashes = self.crashes_left > 0 && self.random.chance(self.crash_chance);
        self.crashes_left -= usize::from(crashes);
        crashes
    }

    pub(super) fn deed(&mut self, deed: Deed) {
        match deed {
            Deed::Save(save) => self.save(*save),
            Deed::Look { who, outlet, everything } => {
                let socket = self.socket(&outlet);
                let card = self.rack.sockets[socket].card;
                let away = self.is_away(card);
                let after = if away { 2_000 } else { self.rack.cards[card].look_ms };
                let what = Answer::Look { who, socket, everything };
                self.later(after, Happens::Answers { run: self.run, what });
            }
            Deed::Read { who, pdu } => {
                let card = self.rack.cards.iter().position(|card| card.id == pdu).unwrap();
                let after = if self.is_away(card) { 2_000 } else { self.rack.cards[card].look_ms };
                let what = Answer::Read { who, card };
                self.later(after, Happens::Answers { run: self.run, what });
            }
            Deed::Write { who, outlet, relay, known } => self.write(who, &outlet, relay, &known),
            Deed::Want(pdu) => {
                let card = self.rack.cards.iter().position(|card| card.id == pdu).unwrap();
                if !self.is_away(card) {
                    self.see(card);
                }
            }
            Deed::Refresh(_) => {}
            Deed::Call { who, host, moment } => self.call(who, host, moment),
            Deed::Lock(outlet, why) => self.say(|| format!("{outlet} is locked: {why}")),
            Deed::Tell { kind, text, .. } => self.say(|| format!("  {kind}: {text}")),
            Deed::Show(record) => drop(self.known.insert(record.id.clone(), record.state)),
            Deed::Ended(record) => {
                self.known.insert(record.id.clone(), record.state);
                self.nothing_is_made_up(&record);
                self.truthful(&record);
                if self.hand.as_ref() == Some(&record.id) {
                    let after = self.random.ms(0, 300);
                    self.later(after, Happens::ByHand);
                } else if self.hurries_left > 0 {
                    self.hurries_left -= 1;
                    let after = self.random.ms(0, 3_000);
                    self.later(after, Happens::Hurried);
                }
            }
        }
    }

    /// What is said to be done is so.
    pub(super) fn truthful(&mut self, record: &Record) {
        let mut last: BTreeMap<&OutletId, (Relay, Outcome)> = BTreeMap::new();
        for step in &record.steps {
            if let Some(outcome) = step.state.outcome().filter(|o| *o != Outcome::Skipped) {
                last.insert(&step.outlet, (step.relay, outcome));
            }
        }
        let lies: Vec<String> = last
            .iter()
            .filter(|(_, (_, outcome))| outcome.is_success())
            .filter_map(|(outlet, (relay, _))| {
                let socket = self.socket(outlet);
                let closed = self.physics.contacts[socket].closed;
                let honest = self.rack.sockets[socket].lie == Lie::None
                    && self.rack.sockets[neighbour_of(socket, &self.rack)].lie != Lie::Neighbour;
                let doubled = self.happens.values().any(|what| {
                    matches!(what, Happens::Arrives { socket: of, .. } | Happens::Moves { socket: of, .. } if *of == socket)
                });
                let wished = *relay == Relay::On;
                (honest && !doubled && closed != wished)
                    .then(|| format!("plan {} says that {outlet} is {}", record.id, relay.word()))
            })
            .collect();
        if let Some(lie) = lies.first() {
            // A doubled datagram of an earlier command may have undone it since; a plan of many does not wait for that.
            if record.scheduled.is_some() || record.steps.len() == 1 {
                self.say(|| format!("  (undone since: {lie})"));
            }
        }
    }

    fn claim(&mut self, plan: &PlanId, socket: usize, relay: Relay) {
        let card = self.rack.sockets[socket].card;
        let first = self.rack.sockets.iter().position(|of| of.card == card).unwrap();
        let drawn = self.views[card].shown(Scope::Outlet, (socket - first) as u16, Metric::Power);
        let claim = Claim {
            run: self.run,
            socket,
            came_true: self.physics.contacts[socket].closed == (relay == Relay::On),
            was_loaded: matches!(drawn, Some(Datum::Value(value)) if value >= LOADED),
        };
        let outlet = self.rack.sockets[socket].id.clone();
        self.claims.insert((plan.clone(), outlet, relay), claim);
    }

    /// Nothing is said to be done that never was: the relay of an honest or a stuck outlet was seen there, and what an
    /// outlet drew that was switched off has ceased.
    fn nothing_is_made_up(&mut self, record: &Record) {
        let done = record.steps.iter().filter(|s| s.state == StepState::Ended(Outcome::Done));
        let mut made_up = Vec::new();
        for step in done {
            let key = (record.id.clone(), step.outlet.clone(), step.relay);
            let claim = self.claims.get(&key).filter(|c| c.run == self.run && !c.came_true);
            let Some(claim) = claim else { continue };
            let told = match self.rack.sockets[claim.socket].lie {
                Lie::None | Lie::Stuck => true,
                Lie::Welded | Lie::Neighbour => {
                    let flows = self.physics.flows(&self.rack, claim.socket);
                    step.relay == Relay::Off && claim.was_loaded && flows >= LOADED
                }
            };
            if told {
                made_up.push(format!("{} {}", step.outlet, step.relay.word()));
            }
        }
        if !made_up.is_empty() {
            let what = made_up.join(", ");
            self.wrong(&format!("plan {} says that it switched {what}, and it did not", record.id));
        }
    }

    pub(super) fn socket(&self, outlet: &OutletId) -> usize {
        self.rack.sockets.iter().position(|socket| socket.id == *outlet).unwrap()
    }

    pub(super) fn is_away(&self, card: usize) -> bool {
        let from = self.rack.cards[card].reboots.map_or(u64::MAX, |(at, _)| at);
        self.away[card] == u64::MAX || (from..self.away[card]).contains(&self.now)
    }

    pub(super) fn save(&mut self, save: Save) {
        if self.crashes_here() {
            // Before it is durable.
            self.killed("before a commit");
            return;
        }
        let mut commit = Commit::default();
        for record in save.record.iter().chain(&save.more) {
            let open = record.state == PlanState::Running;
            commit.plans.push((record.id.clone(), serde_json::to_vec(record).unwrap(), open));
            self.known.insert(record.id.clone(), record.state);
        }
        if save.record.is_none() {
            for (place, step) in &save.steps {
                let bytes = serde_json::to_vec(step).unwrap();
                commit.steps.push((save.plan.clone(), *place as u32, bytes));
            }
        }
        if let Some(safe) = &save.more {
            // Nobody promised to keep a host whose safe state is off.
            self.drops(safe);
        }
        let stamp = self.stamp().0;
        for note in save.notes {
            commit.notes.push(pmgate::audit::Draft {
                at: stamp,
                kind: note.kind.to_owned(),
                by: "the gateway".into(),
                about: String::new(),
                text: note.text,
            });
        }
        let journal = self.journal.as_ref().unwrap();
        journal.commit(commit).unwrap();
        if self.random.chance(20) {
            journal.settle().unwrap();
        }
        if self.crashes_here() {
            self.killed("after a commit");
            return;
        }
        let after = self.random.ms(0, 8);
        let (plan, generation) = (save.plan, save.generation);
        self.later(after, Happens::Durable { run: self.run, plan, generation });
    }

    /// Some webhooks take longer than everything else.
    fn call(&mut self, who: Who, host: HostId, moment: Moment) {
        self.say(|| format!("  the webhook of {host} is called"));
        let plan = who.plan.clone();
        if moment == Moment::BeforeOff
            && self.drains.insert((plan.clone(), host.clone()), false).is_some()
        {
            self.wrong(&format!("{host} is drained twice for plan {plan}"));
            return;
        }
        let long = self.random.chance(40);
        let after = if long { self.random.ms(5_000, 180_000) } else { self.random.ms(1, 2_000) };
        let answer = match self.random.within(1, 100) {
            1..=85 => Ok(()),
            chance => Err(Unanswered { why: "no answer".into(), refused: chance % 2 == 0 }),
        };
        let what = Answer::Called { who, host, moment, answer };
        self.later(after, Happens::Answers { run: self.run, what });
    }

    /// Whether a step cuts a host that is not drained yet.
    fn is_undrained(&self, who: &Who, step: &StepRecord) -> Option<&HostId> {
        let goes_dark = step.relay == Relay::Off && !step.keeps_host;
        let (id, host) = self.rack.site.host_of(&step.outlet).filter(|_| goes_dark)?;
        let drained = self.drains.get(&(who.plan.clone(), id.clone())) == Some(&true);
        (host.before_off.is_some() && !drained).then_some(id)
    }

    pub(super) fn drops(&mut self, record: &Record) {
        for step in record.steps.iter().filter(|s| s.relay == Relay::Off && !s.keeps_host) {
            let socket = self.socket(&step.outlet);
            self.dropped.extend(self.rack.sockets[socket].host);
        }
    }

    pub(super) fn write(&mut self, who: Who, outlet: &OutletId, relay: Relay, _known: &Known) {
        let socket = self.socket(outlet);
        self.say(|| format!("  {outlet} is written {}", relay.word()));
        self.story.writes += 1;
        // The intent is in the journal.
        let kept = self.journal.as_ref().unwrap().get(&who.plan).unwrap();
        let record = kept.map(|kept| pmgate::switching::parse("a plan", &kept).unwrap());
        let intended = record.as_ref().is_some_and(|record| {
            let step = record.steps.get(who.step);
            step.is_some_and(|s| {
                s.state == StepState::Intended && s.outlet == *outlet && s.relay == relay
            })
        });
        if !intended {
            self.wrong(&format!("{outlet} is written {}, and no intent is durable", relay.word()));
            return;
        }
        let step = record.as_ref().and_then(|record| record.steps.get(who.step));
        if let Some(host) = step.and_then(|step| self.is_undrained(&who, step)).cloned() {
            self.wrong(&format!("{outlet} is written off, and {host} is not drained"));
            return;
        }
        let sent = self.sent.entry((who.plan.clone(), outlet.clone(), relay)).or_default();
        *sent += 1;
        if *sent > 1 {
            self.wrong(&format!("{outlet} is written twice for one step"));
            return;
        }
        self.claim(&who.plan, socket, relay);
        let at = self.rack.sockets[socket].card;
        let card = self.rack.cards[at].clone();
        let run = self.run;
        let gone = self.is_away(at);
        if gone || self.random.chance(card.refuses) {
            let end = WriteEnd::Not(if gone { "it does not answer" } else { "refused" }.into());
            self.later(card.look_ms, Happens::Answers { run, what: Answer::Written { who, end } });
            return;
        }
        let lost = self.random.chance(card.loses_commands);
        let late = self.random.chance(card.delays);
        let doubled = self.random.chance(card.delays);
        let way = if late { self.random.ms(200, LIFE) } else { card.look_ms / 2 };
        let answered = !self.random.chance(card.loses_answers);
        let first = Sent { run, who: who.clone(), asked: self.now };
        if !lost {
            let first = answered.then(|| Box::new(first));
            self.later(way, Happens::Arrives { socket, relay, first });
            if doubled {
                let way = self.random.ms(way, LIFE);
                self.later(way, Happens::Arrives { socket, relay, first: None });
            }
        }
        if lost || !answered {
            // Nothing is heard of it; only looking tells.
            let end = WriteEnd::Sent(terms(&card, false));
            self.later(2_000, Happens::Answers { run, what: Answer::Written { who, end } });
        }
    }
}
