//! What a PDU does with its outlets by itself when its power comes back: read, and set, by the task that owns it. Setting
//! switches nothing; it is refused wherever switching would be, and read back.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::link::Line;
use crate::model::ask::{Ask, Reply, Value};
use crate::model::metric::Scope;
use crate::model::oid::Oid;
use crate::model::switching::PowerOn;
use crate::model::time::Span;
use crate::model::view::PduView;
use crate::profile::control::startup_at;
use crate::profile::format::{Profile, Speech};

use super::adopt::Adopted;
use super::orders::OrderError;
use super::read::{Taken, taken};
use super::task::Device;

/// What the outlets of a PDU do when its power comes back.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Startups {
    /// The delays are multiples of so many ms.
    pub unit_ms: u64,
    /// The longest, ms.
    pub most_ms: u64,
    /// By outlet number. Outlets that the PDU has no delay of are not among them.
    pub outlets: BTreeMap<u16, PowerOn>,
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
}

impl Device {
    pub(super) async fn startups(&mut self, adopted: &mut Adopted) -> Result<Startups, OrderError> {
        let Some(startup) = adopted.profile.startup.clone() else {
            return Ok(Startups::default());
        };
        let parts = adopted.instance.layout.parts(Scope::Outlet).to_vec();
        let places = (0..).zip(&parts).filter_map(|(at, part)| {
            Some((part.number, startup_at(&startup, &adopted.instance, at)?))
        });
        let places: Vec<(u16, Oid)> = places.collect();
        let mut outlets = BTreeMap::new();
        for some in places.chunks(varbinds(&adopted.profile)) {
            let names: Vec<Oid> = some.iter().map(|(_, oid)| oid.clone()).collect();
            let reply = adopted.line.exchange(&Ask::Get(names)).await?;
            // SNMPv1 refuses all for one that is not there: then the PDU is taken to have none.
            let Reply::Binds(binds) = reply else { continue };
            for (number, oid) in some {
                let value = binds.iter().find(|(at, _)| at == oid).and_then(|(_, v)| v.number());
                let told = value.and_then(|value| startup.told(value));
                outlets.extend(told.map(|told| (*number, told)));
            }
        }
        let mut view = PduView::clone(&self.place.view());
        view.startups = Arc::new(outlets.clone());
        self.place.show(view);
        let most_ms = startup.most_ms();
        let serial = adopted.instance.identity.serial.clone();
        Ok(Startups { unit_ms: startup.step_ms(), most_ms, outlets, serial })
    }

    /// Sets one delay, if it still is what it was, and reads it back.
    pub(super) async fn set_startup(
        &mut self,
        adopted: &mut Adopted,
        wish: &SetStartup,
    ) -> Result<(), OrderError> {
        let (number, delay) = (wish.number, wish.delay);
        let refuse = |why: &str| OrderError::NotSwitchable(why.to_owned());
        if self.updates.has_changed().unwrap_or(false) {
            self.update();
        }
        if let Some(reason) = self.read_only() {
            return Err(refuse(&reason));
        }
        let serial = &adopted.instance.identity.serial;
        if serial.is_none() {
            return Err(OrderError::Doubtful("the PDU tells no serial number".into()));
        }
        if *serial != wish.serial {
            return Err(OrderError::Doubtful("the PDU is another one than a moment ago".into()));
        }
        let outlet = adopted.instance.layout.outlet(number);
        let outlet = outlet.ok_or_else(|| refuse("the PDU has no such outlet"))?;
        let part = adopted.instance.layout.parts(Scope::Outlet).get(usize::from(outlet));
        if !part.is_some_and(|part| part.switchable) {
            return Err(refuse("the PDU or its driver does not let the outlet be switched"));
        }
        let startup = adopted.profile.startup.clone();
        let startup = startup.ok_or_else(|| refuse("its driver knows no delay of it"))?;
        let oid = startup_at(&startup, &adopted.instance, outlet);
        let oid = oid.ok_or_else(|| refuse("its driver knows no delay of it"))?;
        let value = startup.raw(delay).ok_or_else(|| refuse("it takes no such delay"))?;
        let gap = self.settings.manners.write_gap_ms;
        let gap = gap.unwrap_or(adopted.profile.pacing.write_gap_ms);
        self.wait_for_write_gap(Span(gap)).await;
        let before = number_at(&mut adopted.line, &oid).await?;
        if before.and_then(|before| startup.told(before)) != Some(wish.now) {
            let why = "its power-on delay is not what it was a moment ago";
            return Err(OrderError::Doubtful(why.into()));
        }
        let ask = Ask::Set(vec![(oid.clone(), Value::Integer(value))]);
        let reply = adopted.line.exchange(&ask).await;
        self.last_write = Some(self.services.clock.tick());
        if let Taken::No(why) = taken(&ask, reply?) {
            return Err(OrderError::Refused(why));
        }
        let seen = number_at(&mut adopted.line, &oid).await?;
        if seen != Some(value) {
            let seen = seen.map_or_else(|| "nothing".to_owned(), |seen| seen.to_string());
            return Err(OrderError::Refused(format!("{value} was set and {seen} is read")));
        }
        let mut view = PduView::clone(&self.place.view());
        let mut startups = BTreeMap::clone(&view.startups);
        startups.extend(startup.told(value).map(|told| (number, told)));
        view.startups = Arc::new(startups);
        self.place.show(view);
        Ok(())
    }
}

/// The number that an object holds now, if it does.
async fn number_at(line: &mut Line, oid: &Oid) -> Result<Option<i64>, OrderError> {
    Ok(match line.exchange(&Ask::Get(vec![oid.clone()])).await? {
        Reply::Binds(binds) => binds.first().and_then(|(_, value)| value.number()),
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
