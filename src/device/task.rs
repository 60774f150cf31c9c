//! The task of one device: polls when its schedule says so, carries out orders in between, and shows
//! every change on the board.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::board::{Board, Place};
use crate::events::Events;
use crate::link::LinkError;
use crate::model::event::About;
use crate::model::id::{ChainUnit, DriverId, PduId};
use crate::model::limits::DEVICE_ORDERS;
use crate::model::metric::Scope;
use crate::model::reading::{Datum, Gap, Reading};
use crate::model::time::{Clock, Span, Stamp, Tick};
use crate::model::view::{Health, PduView};
use crate::pace::{Due, Paces, Pulse, Schedule, Vitals};
use crate::profile::catalog::Catalog;
use crate::profile::instance::{Tier, Trust};
use crate::profile::rows::Row as OutletRow;
use crate::store::writer::{Counts, Row};

use super::adopt::{Adopted, Failure, adopt, detect};
use super::orders::{Handle, Order};
use super::target::{Manners, Target};

/// What is read at adoption only (names, ratings, the rows there are) is read anew after this long.
const REFRESH: Span = Span::seconds(15 * 60);

/// What all devices share.
#[derive(Clone)]
pub struct Services {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where views are shown.
    pub board: Board,
    /// The drivers at hand; they change with the configuration.
    pub catalog: watch::Receiver<Arc<Catalog>>,
    /// Where events are told.
    pub events: Events,
    /// What was stored and dropped.
    pub counts: Arc<Counts>,
    /// Where rows go; full means that the store cannot keep up. Weak, so that the queue ends with the one
    /// who made it.
    pub rows: mpsc::WeakSender<Row>,
}

/// How one device is run, as configured.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Its id.
    pub id: PduId,
    /// Its name, if the site gives one.
    pub name: Option<Arc<str>>,
    /// Where it stands.
    pub location: Option<Arc<str>>,
    /// Where it is reached.
    pub target: Target,
    /// Its driver; nothing to detect it.
    pub driver: Option<DriverId>,
    /// The unit of a daisy chain; nothing for all.
    pub unit: Option<ChainUnit>,
    /// How long it is waited for and how often it is asked, where the site knows better than the driver.
    pub manners: Manners,
    /// How often it is polled.
    pub paces: Paces,
    /// How long stale readings are believed.
    pub stale_after: Span,
    /// Delay of the first poll, so that not all devices are asked at once.
    pub offset: Span,
    /// Why nothing on it may be switched, if so.
    pub read_only: Option<Arc<str>>,
    /// Whether what an outlet draws must follow its relay where it is metered.
    pub watts_follow: bool,
    /// Whether a model that its driver does not know may be switched.
    pub allow_unknown: bool,
}

impl Settings {
    /// Whether the device is reached in the same way: then it keeps what it knows.
    pub fn is_reached_like(&self, other: &Settings) -> bool {
        let way = |settings: &Settings| {
            (settings.driver.clone(), settings.unit.clone(), settings.manners)
        };
        self.target == other.target && way(self) == way(other)
    }
}

/// Starts the task of a device, once the one `before` it has ended.
pub fn spawn(
    updates: watch::Receiver<Settings>,
    services: Services,
    stop: CancellationToken,
    before: Option<JoinHandle<()>>,
) -> (Handle, JoinHandle<()>) {
    let settings = updates.borrow().clone();
    let (orders, inbox) = mpsc::channel(DEVICE_ORDERS);
    let (wanted, wants) = watch::channel(Tick(0));
    let name = settings.name.clone().unwrap_or_else(|| settings.id.as_str().into());
    let view = PduView::unknown(settings.id.clone(), name, settings.location.clone());
    let id = settings.id.clone();
    let place = services.board.place(view);
    let view = place.watch();
    let start = services.clock.tick() + settings.offset;
    let device = Device {
        schedule: Schedule::new(settings.paces, start),
        vitals: Vitals::new(settings.stale_after),
        settings,
        updates,
        services,
        place,
        inbox,
        wants,
        adopted: None,
        trust: Vec::new(),
        last_write: None,
        looked: BTreeSet::new(),
        numbered: BTreeMap::new(),
        renumbered: None,
        unknown: None,
    };
    let task = tokio::spawn(async move {
        if let Some(before) = before
            && let Err(error) = before.await
        {
            tracing::error!(%error, "a device task did not end well");
        }
        device.run(stop).await;
    });
    (Handle { id, orders, wanted, view }, task)
}

pub(super) struct Device {
    pub(super) settings: Settings,
    pub(super) updates: watch::Receiver<Settings>,
    pub(super) services: Services,
    pub(super) place: Place,
    inbox: mpsc::Receiver<Order>,
    wants: watch::Receiver<Tick>,
    schedule: Schedule,
    vitals: Vitals,
    pub(super) adopted: Option<(Adopted, Tick)>,
    pub(super) trust: Trust,
    pub(super) last_write: Option<Tick>,
    /// Slots that were looked at while a poll was under way.
    pub(super) looked: BTreeSet<u16>,
    /// Which row of the device each outlet number stands for, ever since the start.
    numbered: BTreeMap<u16, OutletRow>,
    renumbered: Option<Arc<str>>,
    /// Why it is not a device that its driver was made for.
    unknown: Option<Arc<str>>,
}

impl Device {
    async fn run(mut self, stop: CancellationToken) {
        loop {
            let wake = self.wake();
            let now = self.services.clock.tick();
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                changed = self.updates.changed() => match changed {
                    Ok(()) => self.update(),
                    Err(_) => return,
                },
                order = self.inbox.recv() => match order {
                    Some(order) => self.serve(order).await,
                    None => return,
                },
                () = tokio::time::sleep((wake - now).duration()) => self.tick().await,
                changed = self.wants.changed() => match changed {
                    Ok(()) => self.wanted().await,
                    Err(_) => return,
                },
            }
        }
    }

    /// Takes new settings up without learning the device anew.
    pub(super) fn update(&mut self) {
        self.settings = self.updates.borrow_and_update().clone();
        self.schedule.set_paces(self.settings.paces, self.services.clock.tick());
        self.vitals.set_stale_after(self.settings.stale_after);
        let mut view = PduView::clone(&self.place.view());
        view.location = self.settings.location.clone();
        view.read_only = self.read_only();
        view.name = match (&self.settings.name, &view.identity.name) {
            (Some(name), _) => name.clone(),
            (None, Some(name)) => name.as_str().into(),
            (None, None) => self.settings.id.as_str().into(),
        };
        self.place.show(view);
    }

    /// Why nothing may be switched here, if so.
    pub(super) fn read_only(&self) -> Option<Arc<str>> {
        let configured = self.settings.read_only.clone();
        let unknown = || self.unknown.clone().filter(|_| !self.settings.allow_unknown);
        configured.or_else(|| self.renumbered.clone()).or_else(unknown)
    }

    /// Whether an outlet number stands for another row of the device than it did: a unit of a chain is missing,
    /// perhaps, and those behind it have moved up. Then numbers mean what nobody meant, and nothing is switched
    /// until they mean the same again or the gateway is started anew.
    fn renumbering(&mut self, adopted: &Adopted) -> Option<Arc<str>> {
        let instance = &adopted.instance;
        let parts = instance.layout.parts(Scope::Outlet);
        let rows = (0..)
            .zip(parts)
            .filter_map(|(at, part)| instance.outlet_row(at).map(|row| (part.number, row.clone())));
        let rows: Vec<(u16, OutletRow)> = rows.collect();
        let moved = rows
            .iter()
            .find(|(number, row)| self.numbered.get(number).is_some_and(|before| before != row));
        let reason = moved.map(|(number, _)| {
            format!("outlet number {number} stands for another outlet of the device than it did; see that all of its units answer, or restart the gateway if this is meant").into()
        });
        if reason.is_none() {
            self.numbered.extend(rows);
        }
        reason
    }

    /// Whether the device has to be learned anew: long ago, or by a driver that has changed since.
    fn is_aged(&self, began: Tick) -> bool {
        let Some((adopted, since)) = &self.adopted else { return true };
        let catalog = self.services.catalog.borrow();
        began - *since >= REFRESH || catalog.get(&adopted.profile.id) != Some(&adopted.profile)
    }

    fn wake(&self) -> Tick {
        let wake = self.schedule.wake();
        // A stale device turns offline by the passing of time; once it has, nothing more is due.
        let turns =
            self.vitals.wake().filter(|_| matches!(self.place.view().health, Health::Stale(_)));
        turns.map_or(wake, |at| wake.min(at))
    }

    async fn tick(&mut self) {
        let now = self.services.clock.tick();
        match self.schedule.due(now) {
            Some(due) => self.poll(due).await,
            None => self.show_health(self.vitals.health(now)),
        }
    }

    /// Somebody wants younger readings.
    async fn wanted(&mut self) {
        let wanted = *self.wants.borrow_and_update();
        let now = self.services.clock.tick();
        let view = self.place.view();
        if view.complete.is_some_and(|at| at >= wanted) {
            return;
        }
        if self.schedule.admits(now) {
            self.poll(Due::Slow).await;
        } else {
            let mut view = PduView::clone(&view);
            view.breaker_open = true;
            self.place.show(view);
        }
    }

    async fn poll(&mut self, due: Due) {
        let began = self.services.clock.tick();
        let at = self.services.clock.stamp();
        let result = if self.is_aged(began) && (due == Due::Slow || self.adopted.is_none()) {
            self.adopt(began, at).await
        } else {
            self.read(due, began, at).await
        };
        let now = self.services.clock.tick();
        match result {
            Ok(due) => self.schedule.answered(began, due),
            Err(failure) => {
                self.schedule.failed(now);
                self.failed(now, &failure);
            }
        }
    }

    /// Learns the device anew, reads everything once.
    async fn adopt(&mut self, began: Tick, at: Stamp) -> Result<Due, Failure> {
        let target = &self.settings.target;
        let catalog = self.services.catalog.borrow().clone();
        let profile = match &self.settings.driver {
            Some(id) => catalog.get(id).cloned().ok_or_else(|| Failure::NoDriver(id.clone()))?,
            None => match &self.adopted {
                Some((adopted, _)) => match catalog.get(&adopted.profile.id) {
                    Some(profile) => profile.clone(),
                    None => detect(target, &catalog, self.settings.manners).await?,
                },
                None => detect(target, &catalog, self.settings.manners).await?,
            },
        };
        let adopted =
            adopt(target, profile, self.settings.unit.as_ref(), self.settings.manners).await?;
        let layout = &adopted.instance.layout;
        let first = self.adopted.is_none();
        self.trust = adopted.instance.trust_after(&adopted.data);
        let readings = adopted.data.iter().map(|datum| Reading { datum: *datum, at }).collect();
        let data = (0..).zip(adopted.data.iter().copied()).collect();
        let before = self.place.view();
        let mut view = PduView::clone(&before);
        view.driver = Some(adopted.profile.id.clone());
        if view.identity.serial != adopted.instance.identity.serial {
            view.startups = Arc::default();
        }
        view.identity = adopted.instance.identity.clone();
        view.layout = layout.clone();
        view.readings = readings;
        if let (None, Some(name)) = (&self.settings.name, &view.identity.name) {
            view.name = name.as_str().into();
        }
        // Numbers that are not certain are not remembered.
        self.renumbered = match adopted.mixed() {
            Some(mixed) => Some(mixed.into()),
            None => self.renumbering(&adopted),
        };
        self.unknown = adopted.unknown().map(Into::into);
        view.read_only = self.read_only();
        self.tell_adopted(first, &before, &view);
        self.adopted = Some((adopted, began));
        self.good(view, Due::Slow, began, at, data);
        Ok(Due::Slow)
    }

    fn tell_adopted(&self, first: bool, before: &PduView, now: &PduView) {
        let about = About::pdu(&self.settings.id);
        let id = &self.settings.id;
        let events = &self.services.events;
        let serial = now.identity.serial.as_deref().unwrap_or("unknown");
        if first {
            let model = now.identity.model.as_deref().unwrap_or("a PDU");
            let driver = now.driver.as_ref().map_or("?", |d| d.as_str());
            let outlets = now.layout.parts(Scope::Outlet).len();
            events.tell(
                "pdu.adopted",
                about,
                format!("{id} is {model}, serial {serial}, {outlets} outlets, driver {driver}"),
            );
        } else if before.identity.serial != now.identity.serial {
            events.tell(
                "pdu.replaced",
                about,
                format!("{id} has another serial number than before: {serial}"),
            );
        } else if before.layout.parts(Scope::Outlet) != now.layout.parts(Scope::Outlet) {
            events.tell(
                "pdu.changed",
                about,
                format!("the outlets of {id} are not those they were"),
            );
        }
    }

    async fn read(&mut self, due: Due, began: Tick, at: Stamp) -> Result<Due, Failure> {
        let Some((mut adopted, since)) = self.adopted.take() else { return Ok(due) };
        let tier = adopted.instance.tier(due == Due::Slow).clone();
        self.looked.clear();
        let result = self.sweep(&mut adopted, &tier).await;
        self.adopted = Some((adopted, since));
        let answers = result?;
        let mut data = self.decode(&tier, &answers);
        // A device that answers but has none of its rows any more is not the one that was adopted.
        if !data.is_empty() && data.iter().all(|(_, datum)| !datum.is_good()) {
            self.adopted = None;
            return Err(LinkError::Garbled("none of its readings is there any more".into()).into());
        }
        let mut view = PduView::clone(&self.place.view());
        let mut readings = view.readings.to_vec();
        for (slot, datum) in &mut data {
            let reading = &mut readings[usize::from(*slot)];
            // An outlet that was looked at while this poll was under way is known better than the poll knows it.
            if self.looked.contains(slot) {
                *datum = reading.datum;
            } else {
                *reading = Reading { datum: *datum, at };
            }
        }
        view.readings = readings.into();
        self.good(view, due, began, at, data);
        Ok(due)
    }

    /// Reads a tier. Orders that come meanwhile are served between two requests: switching does not
    /// wait for a poll to end.
    async fn sweep(
        &mut self,
        adopted: &mut Adopted,
        tier: &Tier,
    ) -> Result<Vec<crate::profile::sweep::Answer>, LinkError> {
        let mut sweep = tier.set.sweep(adopted.memory);
        while let Some(ask) = sweep.next_ask() {
            while let Ok(order) = self.inbox.try_recv() {
                self.serve_with(adopted, order).await;
            }
            let reply = adopted.line.exchange(&ask).await?;
            sweep.answer(reply);
        }
        let (answers, memory) = sweep.finish();
        adopted.memory = memory;
        Ok(answers)
    }

    fn decode(
        &mut self,
        tier: &Tier,
        answers: &[crate::profile::sweep::Answer],
    ) -> Vec<(u16, Datum)> {
        let Some((adopted, _)) = &self.adopted else { return Vec::new() };
        let data = adopted.instance.decode(tier, answers, &mut self.trust);
        data.into_iter().map(|(slot, datum)| (slot as u16, datum)).collect()
    }

    fn good(
        &mut self,
        mut view: PduView,
        due: Due,
        began: Tick,
        at: Stamp,
        data: Vec<(u16, Datum)>,
    ) {
        let pulse = self.vitals.answered(began);
        view.health = Health::Online;
        view.observed = Some(began);
        view.observed_at = Some(at);
        view.breaker_open = false;
        if due == Due::Slow {
            view.complete = Some(began);
        }
        let row = Row { pdu: self.settings.id.clone(), layout: view.layout.clone(), at, data };
        self.place.show(view);
        self.told(&pulse);
        self.store(row);
    }

    /// A row that does not fit is told and counted; the device goes on.
    fn store(&self, row: Row) {
        let sent = self.services.rows.upgrade().map(|rows| rows.try_send(row));
        if let Some(Err(_)) = sent {
            self.services.counts.dropped.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            self.services.events.tell(
                "store.behind",
                About::pdu(&self.settings.id),
                "the store cannot keep up or has ended: a row of readings was dropped",
            );
        }
    }

    fn failed(&mut self, now: Tick, failure: &Failure) {
        let reason = failure.to_string();
        tracing::debug!(pdu = %self.settings.id, %reason, "pdu {} was not read", self.settings.id);
        let was_offline = matches!(self.place.view().health, Health::Offline(_));
        let pulse = self.vitals.failed(now, reason);
        if matches!(pulse.health, Health::Offline(_)) && !was_offline {
            // What comes back may be another device: learn it anew.
            self.adopted = None;
        }
        let mut view = PduView::clone(&self.place.view());
        view.health = pulse.health.clone();
        view.failed_polls += 1;
        // History shows that there was nothing to read, not nothing at all.
        let layout = view.layout.clone();
        let unread = Datum::Gap(Gap::Timeout);
        let data: Vec<_> = (0..).zip(layout.slots()).map(|(slot, _)| (slot, unread)).collect();
        if !data.is_empty() {
            let at = self.services.clock.stamp();
            self.store(Row { pdu: self.settings.id.clone(), layout, at, data });
        }
        view.breaker_open = !self.schedule.admits(now);
        self.place.show(view);
        self.told(&pulse);
    }

    fn show_health(&mut self, health: Health) {
        let mut view = PduView::clone(&self.place.view());
        if view.health.word() != health.word() {
            self.told(&Pulse { health: health.clone(), changed: true });
        }
        if matches!(health, Health::Offline(_)) {
            self.adopted = None;
        }
        view.health = health;
        self.place.show(view);
    }

    fn told(&self, pulse: &Pulse) {
        if !pulse.changed {
            return;
        }
        let id = &self.settings.id;
        let about = About::pdu(id);
        let events = &self.services.events;
        match &pulse.health {
            Health::Online => {
                tracing::info!(pdu = %id, "pdu {id} is online");
                events.tell("pdu.online", about, format!("{id} is online"));
            }
            Health::Stale(reason) => {
                tracing::warn!(pdu = %id, %reason, "pdu {id} is stale");
                events.tell("pdu.stale", about, format!("{id} does not answer: {reason}"));
            }
            Health::Offline(reason) => {
                tracing::warn!(pdu = %id, %reason, "pdu {id} is offline");
                events.tell("pdu.offline", about, format!("{id} is offline: {reason}"));
            }
        }
    }
}
