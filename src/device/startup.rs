//! What a PDU does with its outlets by itself when its power comes back: read, and set, by the task that owns it. Setting
//! switches nothing; it is refused wherever switching would be, and read back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::link::Line;
use crate::model::ask::{Ask, Reply, Value};
use crate::model::metric::Scope;
use crate::model::oid::Oid;
use crate::model::switching::PowerOn;
use crate::model::time::Span;
use crate::model::topology::Part;
use crate::model::view::PduView;
use crate::profile::format::{Profile, Source, Speech};
use crate::profile::instance::Instance;
use crate::profile::startup::{Course, Startup, Time, place_of};

use super::adopt::Adopted;
use super::orders::OrderError;
use super::read::{Taken, taken};
use super::task::Device;

/// What the outlets of a PDU do when its power comes back.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Startups {
    /// The delays are multiples of so many ms.
    pub unit_ms: u64,
    /// The longest, ms; of a chain the longest from one outlet to the next.
    pub most_ms: u64,
    /// By outlet number, from when the power is back. Outlets that the PDU has no delay of are not among them.
    pub outlets: BTreeMap<u16, PowerOn>,
    /// What passes before all of them; nothing is set of that.
    pub before: Span,
    /// Outlets that do what they did when the power went: they come on if they were on.
    pub last: BTreeSet<u16>,
    /// Why nothing is known, though the driver says where it is kept.
    pub unknown: Option<String>,
    /// Where they come on one after the other: in which order, and what passes between.
    pub course: Option<Course>,
    /// Of which device that is.
    pub serial: Option<String>,
}

/// A delay that is to be set, and what that rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetStartup {
    /// The outlet.
    pub number: u16,
    /// What it told.
    pub now: PowerOn,
    /// The device that told it.
    pub serial: Option<String>,
    /// What it is to be.
    pub delay: Span,
    /// What passes before all outlets, and is a part of both.
    pub before: Span,
}

/// An order of outlets that is to be set, with what passes between them, and what that rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetCourse {
    /// What the PDU told.
    pub now: Startups,
    /// What it is to be.
    pub course: Course,
}

impl Device {
    /// Reads them, and shows them.
    pub(super) async fn startups(&mut self, adopted: &mut Adopted) -> Result<Startups, OrderError> {
        let startups = read(adopted).await?;
        let mut view = PduView::clone(&self.place.view());
        view.startups = Arc::new(startups.outlets.clone());
        self.place.show(view);
        Ok(startups)
    }

    /// Makes sure that something of the PDU may be set, and that it is still the one with this serial number.
    fn may_set(&mut self, adopted: &Adopted, serial: Option<&String>) -> Result<(), OrderError> {
        if self.updates.has_changed().unwrap_or(false) {
            self.update();
        }
        if let Some(reason) = self.read_only() {
            return Err(refused(&reason));
        }
        let own = adopted.instance.identity.serial.as_ref();
        if own.is_none() {
            return Err(OrderError::Doubtful("the PDU tells no serial number".into()));
        }
        if own != serial {
            return Err(OrderError::Doubtful("the PDU is another one than a moment ago".into()));
        }
        Ok(())
    }

    /// Writes one object, after the pause that the PDU needs, and reads it back.
    async fn sets(
        &mut self,
        adopted: &mut Adopted,
        oid: &Oid,
        value: Value,
    ) -> Result<(), OrderError> {
        let gap = self.settings.manners.write_gap_ms;
        let gap = gap.unwrap_or(adopted.profile.pacing.write_gap_ms);
        self.wait_for_write_gap(Span(gap)).await;
        let ask = Ask::Set(vec![(oid.clone(), value.clone())]);
        let reply = adopted.line.exchange(&ask).await;
        self.last_write = Some(self.services.clock.tick());
        if let Taken::No(why) = taken(&ask, reply?) {
            return Err(OrderError::Refused(why));
        }
        let seen = value_at(&mut adopted.line, oid).await?;
        let told = |value: &Value| (value.number(), value.text());
        if seen.as_ref().map(told) != Some(told(&value)) {
            let seen = seen.map_or_else(|| "nothing".to_owned(), |seen| seen.raw());
            return Err(OrderError::Refused(format!("{} was set and {seen} is read", value.raw())));
        }
        Ok(())
    }

    /// Sets one delay, if it still is what it was, and reads it back.
    pub(super) async fn set_startup(
        &mut self,
        adopted: &mut Adopted,
        wish: &SetStartup,
    ) -> Result<(), OrderError> {
        self.may_set(adopted, wish.serial.as_ref())?;
        let (number, delay) = (wish.number, wish.delay);
        let outlet = switchable(adopted, number)?;
        let startup = adopted.profile.startup.clone();
        let none = || refused("its driver knows no delay of it");
        let startup = startup.ok_or_else(none)?;
        let oid = place_of(&startup.source, &adopted.instance, outlet).ok_or_else(none)?;
        let own = delay.0.checked_sub(wish.before.0).and_then(|own| startup.raw(Span(own)));
        let value = own.ok_or_else(|| refused("it takes no such delay"))?;
        let kept = value_at(&mut adopted.line, &oid).await?;
        let before = match &startup.before {
            None => Some(Span(0)),
            Some(time) => {
                let oid = place_of(&time.source, &adopted.instance, outlet).ok_or_else(none)?;
                let value = value_at(&mut adopted.line, &oid).await?;
                value.and_then(|value| time.told(value.number()?))
            }
        };
        if before != Some(wish.before) {
            let why = "what it waits before all of its outlets is not what it was a moment ago";
            return Err(OrderError::Doubtful(why.into()));
        }
        let told = kept.as_ref().and_then(Value::number).and_then(|raw| startup.told(raw));
        let told = told.map(|told| told.later(wish.before));
        let (Some(kept), true) = (kept, told == Some(wish.now)) else {
            let why = "its power-on delay is not what it was a moment ago";
            return Err(OrderError::Doubtful(why.into()));
        };
        self.sets(adopted, &oid, typed(value, &kept)).await?;
        let mut view = PduView::clone(&self.place.view());
        let mut startups = BTreeMap::clone(&view.startups);
        startups.extend(startup.told(value).map(|told| (number, told.later(wish.before))));
        view.startups = Arc::new(startups);
        self.place.show(view);
        Ok(())
    }

    /// Sets one thing of the order in which outlets come on and of what passes between them, if all of it still is what it
    /// was, and reads it back. What it is then: one thing at a time, so that switching waits for no more than that. What is
    /// to pass more comes before the order, and what is to pass less after it: should it end in between, no outlet comes
    /// on sooner than by the one or by the other.
    pub(super) async fn set_course(
        &mut self,
        adopted: &mut Adopted,
        wish: &SetCourse,
    ) -> Result<Startups, OrderError> {
        self.may_set(adopted, wish.now.serial.as_ref())?;
        let none = || refused("its driver knows no order of its outlets");
        let startup = adopted.profile.startup.clone().ok_or_else(none)?;
        let chain = startup.chain.clone().ok_or_else(none)?;
        let now = self.startups(adopted).await?;
        let told = now.course.clone().filter(|_| now == wish.now).ok_or_else(|| {
            OrderError::Doubtful("its power-on order is not what it was a moment ago".into())
        })?;
        let longer = |number: &&u16| told.gaps.get(number) < wish.course.gaps.get(number);
        let changed = |number: &&u16| told.gaps.get(number) != wish.course.gaps.get(number);
        let next = wish.course.order.iter().find(longer);
        let next = next.or_else(|| {
            let is_ordered = told.order == wish.course.order;
            is_ordered.then(|| wish.course.order.iter().find(changed)).flatten()
        });
        if let Some(number) = next {
            let outlet = switchable(adopted, *number)?;
            let oid = place_of(&startup.source, &adopted.instance, outlet).ok_or_else(none)?;
            let gap = wish.course.gaps.get(number).copied().ok_or_else(none)?;
            let value = startup.raw(gap).ok_or_else(|| refused("it takes no such delay"))?;
            let before = value_at(&mut adopted.line, &oid).await?;
            let before = before.filter(|before| before.number().is_some()).ok_or_else(none)?;
            self.sets(adopted, &oid, typed(value, &before)).await?;
        } else if told.order != wish.course.order {
            let oid = place_of(&chain.order, &adopted.instance, 0).ok_or_else(none)?;
            let text = wish.course.text().into_bytes();
            self.sets(adopted, &oid, Value::Bytes(text.into())).await?;
        }
        self.startups(adopted).await
    }
}

fn refused(why: &str) -> OrderError {
    OrderError::NotSwitchable(why.to_owned())
}

/// A number, of the type of what it is to stand in the place of: an agent takes no other.
fn typed(number: i64, before: &Value) -> Value {
    match before {
        Value::Unsigned(_, kind) => Value::Unsigned(number.unsigned_abs(), *kind),
        _ => Value::Integer(number),
    }
}

/// The place of an outlet that may be switched, by its number.
fn switchable(adopted: &Adopted, number: u16) -> Result<u16, OrderError> {
    let layout = &adopted.instance.layout;
    let outlet = layout.outlet(number).ok_or_else(|| refused("the PDU has no such outlet"))?;
    let part = layout.parts(Scope::Outlet).get(usize::from(outlet));
    if part.is_some_and(|part| part.switchable) {
        Ok(outlet)
    } else {
        Err(refused("the PDU or its driver does not let the outlet be switched"))
    }
}

/// Reads what all outlets do when the power comes back.
async fn read(adopted: &mut Adopted) -> Result<Startups, OrderError> {
    let Some(startup) = adopted.profile.startup.clone() else {
        return Ok(Startups::default());
    };
    let instance = &adopted.instance;
    let outlets = instance.layout.parts(Scope::Outlet).to_vec();
    let numbers: BTreeSet<u16> = outlets.iter().map(|part| part.number).collect();
    // By number: where the delay is, and where it says what the outlet does.
    let own: Vec<(u16, Oid, Option<Oid>)> = (0..)
        .zip(&outlets)
        .filter_map(|(at, part)| {
            let off = startup.off.as_ref().and_then(|off| place_of(&off.source, instance, at));
            Some((part.number, place_of(&startup.source, instance, at)?, off))
        })
        .collect();
    // Of a unit, not of one outlet; several units behind one address keep several, and those are not known here.
    let of_unit = |source: &Source| -> Option<Oid> {
        let all = (0..outlets.len() as u16).map(|at| place_of(source, instance, at));
        let all: Option<BTreeSet<Oid>> = all.collect();
        let mut all = all?.into_iter();
        all.next().filter(|_| all.next().is_none())
    };
    let before = startup.before.as_ref().map(|time| of_unit(&time.source));
    let chain = startup.chain.as_ref();
    let order = chain.map(|chain| of_unit(&chain.order));
    let least = chain.and_then(|chain| chain.least.as_ref()).map(|time| of_unit(&time.source));
    let unless = startup.unless.as_ref().map(|(source, _)| of_unit(source));
    let follows = startup.off.as_ref().and_then(|off| off.follows.as_ref());
    let followed = follows.map(|(_, source)| of_unit(source));
    let named = own.iter().flat_map(|(_, oid, off)| Some(oid).into_iter().chain(off));
    let units = [&before, &order, &least, &unless, &followed].into_iter().flatten().flatten();
    let names: Vec<Oid> = named.chain(units).cloned().collect();
    let values = values(&mut adopted.line, &names, varbinds(&adopted.profile)).await?;
    let number = |oid: &Oid| values.get(oid).and_then(Value::number);
    let unknown = |why: &str| Startups { unknown: Some(why.to_owned()), ..Startups::default() };
    // Where it does not say so, as it is older than that, its delays are heeded.
    let said = unless.flatten().and_then(|oid| number(&oid));
    if startup.unless.as_ref().zip(said).is_some_and(|((_, is), said)| is.contains(&said)) {
        return Ok(unknown("it is set such that its outlets heed no delay"));
    }
    // What should be there and is not: nothing is known of any outlet then.
    let time = |time: Option<&Time>, oid: &Option<Option<Oid>>| -> Option<Span> {
        let Some(oid) = oid else { return Some(Span(0)) };
        time?.told(number(oid.as_ref()?)?)
    };
    let (Some(before), Some(least)) = (
        time(startup.before.as_ref(), &before),
        time(chain.and_then(|chain| chain.least.as_ref()), &least),
    ) else {
        return Ok(unknown(
            "it does not tell how long it waits, or what passes between two outlets",
        ));
    };
    let mut told: BTreeMap<u16, PowerOn> = BTreeMap::new();
    let mut last: BTreeSet<u16> = BTreeSet::new();
    for (outlet, delay, off) in own {
        let mut stays = false;
        if let (Some(off), Some(oid)) = (&startup.off, off) {
            // Where it should be told and is not, nothing is known of the outlet.
            let Some(mut said) = number(&oid) else { continue };
            if off.follows.as_ref().is_some_and(|(when, _)| when.contains(&said)) {
                let elsewhere = followed.as_ref().and_then(|oid| number(oid.as_ref()?));
                let Some(elsewhere) = elsewhere else { continue };
                said = elsewhere;
            }
            stays = off.is.contains(&said);
            if off.last.contains(&said) {
                last.insert(outlet);
            }
        }
        let delay = number(&delay).and_then(|value| startup.told(value));
        let delay = if stays { Some(PowerOn::Never) } else { delay };
        told.extend(delay.map(|delay| (outlet, delay)));
    }
    let mut course = None;
    if let Some(order) = order {
        let text = order.and_then(|oid| values.get(&oid)?.text());
        let order = text.and_then(|text| Course::order_of(&text, &numbers));
        let gaps = gaps(&startup, &adopted.instance, &outlets, &values);
        let (Some(order), Some(gaps)) = (order, gaps) else {
            return Ok(unknown(
                "it does not tell the order of its outlets, or not what passes after each",
            ));
        };
        let told_course = Course { order, gaps, least };
        for (outlet, at) in told_course.times() {
            if let Some(PowerOn::After(delay)) = told.get_mut(&outlet) {
                *delay = at;
            }
        }
        course = Some(told_course);
    }
    if told.is_empty() && !numbers.is_empty() {
        return Ok(unknown("it tells no power-on delay of any outlet"));
    }
    let outlets = told.into_iter().map(|(outlet, told)| (outlet, told.later(before))).collect();
    Ok(Startups {
        unit_ms: startup.step_ms(),
        most_ms: startup.most_ms(),
        outlets,
        before,
        last,
        unknown: None,
        course,
        serial: adopted.instance.identity.serial.clone(),
    })
}

/// What passes after each outlet of a chain, if that is known of all.
fn gaps(
    startup: &Startup,
    instance: &Instance,
    outlets: &[Part],
    values: &BTreeMap<Oid, Value>,
) -> Option<BTreeMap<u16, Span>> {
    let of = |(at, part): (u16, &Part)| {
        let value = values.get(&place_of(&startup.source, instance, at)?)?.number()?;
        match startup.told(value)? {
            PowerOn::After(gap) => Some((part.number, gap)),
            PowerOn::Never => None,
        }
    };
    (0..).zip(outlets).map(of).collect()
}

/// What objects hold, so many in a request; what is not there is not among them.
async fn values(
    line: &mut Line,
    names: &[Oid],
    varbinds: usize,
) -> Result<BTreeMap<Oid, Value>, OrderError> {
    let mut values = BTreeMap::new();
    for some in names.chunks(varbinds) {
        let reply = line.exchange(&Ask::Get(some.to_vec())).await?;
        // SNMPv1 refuses all for one that is not there: then the PDU is taken to have none.
        let Reply::Binds(binds) = reply else { continue };
        values.extend(binds.into_iter().filter(|(oid, _)| some.contains(oid)));
    }
    Ok(values)
}

/// What an object holds now, if it is there.
async fn value_at(line: &mut Line, oid: &Oid) -> Result<Option<Value>, OrderError> {
    Ok(match line.exchange(&Ask::Get(vec![oid.clone()])).await? {
        Reply::Binds(binds) => binds.into_iter().next().map(|(_, value)| value),
        _ => None,
    })
}

/// How many delays are asked for at once.
fn varbinds(profile: &Profile) -> usize {
    match &profile.speech {
        Speech::Snmp(manners) => manners.max_varbinds.max(1),
        Speech::Modbus(_) => 1,
    }
}
