//! `GET /v1/pdus/{pdu}` and its parts.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use crate::model::id::{OutletId, PduId};
use crate::model::metric::{Metric, Scope, Word};
use crate::model::reading::{Datum, Gap, Quality};
use crate::model::switching::PowerOn;
use crate::model::time::Tick;
use crate::model::topology::Part;
use crate::model::view::PduView;

/// A number that the device has (null if it could not be read), or nothing at all.
pub type Field = Option<Option<f64>>;

/// A PDU.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct PduBody {
    /// As configured.
    #[schema(value_type = String)]
    pub id: PduId,
    /// As configured, or as set in the device.
    pub name: String,
    /// Where it stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// Vendor.
    pub vendor: Option<String>,
    /// Model.
    pub model: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
    /// Firmware version.
    pub firmware: Option<String>,
    /// The driver in use.
    pub driver: Option<String>,
    /// `online`, `stale` or `offline`.
    pub state: &'static str,
    /// Why it is not online.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// `good`, `partial` or `bad`.
    pub quality: &'static str,
    /// When the last good poll began, RFC 3339 UTC.
    pub observed_at: Option<String>,
    /// How long ago that was.
    pub age_ms: Option<u64>,
    /// Why nothing on it may be switched, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_only: Option<String>,
    /// The feed with its totals.
    pub inlet: InletBody,
    /// The single inlets, where there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inlets: Vec<InletBody>,
    /// Phases.
    pub phases: Vec<PhaseBody>,
    /// Branch circuits.
    pub branches: Vec<BranchBody>,
    /// Outlets.
    pub outlets: Vec<OutletBody>,
    /// External sensors.
    pub sensors: Vec<SensorBody>,
}

/// Why values are null, by key.
type Gaps = BTreeMap<&'static str, &'static str>;

/// An inlet.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub struct InletBody {
    /// `I1`, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// W.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    pub power_w: Field,
    /// VA.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    pub apparent_power_va: Field,
    /// Power factor.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    pub power_factor: Field,
    /// Wh.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    pub energy_wh: Field,
    /// Hz.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    pub frequency_hz: Field,
    /// A.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    pub current_a: Field,
    /// V.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    pub voltage_v: Field,
    /// Load against the rating, %.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    pub load_percent: Field,
    /// Rated current, A.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    pub rating_a: Field,
    /// Why values are null.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, String>)]
    pub gaps: Gaps,
}

/// A phase.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct PhaseBody {
    /// `L1`.
    pub id: String,
    /// Name that the device gives it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// V.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    pub voltage_v: Field,
    /// A.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    pub current_a: Field,
    /// W.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    pub power_w: Field,
    /// VA.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    pub apparent_power_va: Field,
    /// Power factor.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    pub power_factor: Field,
    /// Wh.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    pub energy_wh: Field,
    /// Rated current, A.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    pub rating_a: Field,
    /// Why values are null.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, String>)]
    pub gaps: Gaps,
}

/// A branch circuit.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct BranchBody {
    /// `B1`.
    pub id: String,
    /// Name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The phase it hangs on, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// A.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    pub current_a: Field,
    /// V.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    pub voltage_v: Field,
    /// W.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    pub power_w: Field,
    /// Rated current of its breaker, A.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    pub rating_a: Field,
    /// `closed`, `tripped` or `unknown`.
    pub breaker: &'static str,
    /// Why values are null.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, String>)]
    pub gaps: Gaps,
}

/// An outlet.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct OutletBody {
    /// `pdu-a/7`.
    #[schema(value_type = String)]
    pub id: OutletId,
    /// The number printed beside it.
    pub number: u16,
    /// Name set in the device, or its label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `on`, `off`, `pending` or `unknown`.
    pub state: &'static str,
    /// Whether it can be switched.
    pub switchable: bool,
    /// Whether switching it is forbidden here.
    pub locked: bool,
    /// Why it is locked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock_reason: Option<String>,
    /// The host that it feeds, as configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The branch that feeds it, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// The phase that feeds it, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// W.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    pub power_w: Field,
    /// VA.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    pub apparent_power_va: Field,
    /// A.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    pub current_a: Field,
    /// V.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    pub voltage_v: Field,
    /// Power factor.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    pub power_factor: Field,
    /// Hz.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    pub frequency_hz: Field,
    /// Wh.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    pub energy_wh: Field,
    /// Rated current, A.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    pub rating_a: Field,
    /// How long after its own power came back the PDU switches it on by itself, s; absent where that was not read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub power_on_delay_s: Option<f64>,
    /// True where the PDU is set never to switch it on by itself.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stays_off: bool,
    /// `good`, `partial` or `bad`.
    pub quality: &'static str,
    /// Why values are null.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, String>)]
    pub gaps: Gaps,
}

/// A sensor.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SensorBody {
    /// `T1`, `H1`.
    pub id: String,
    /// `temperature` or `humidity`.
    pub kind: &'static str,
    /// Name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// °C.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    pub temperature_c: Field,
    /// Relative humidity, %.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    pub humidity_percent: Field,
    /// Why values are null.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, String>)]
    pub gaps: Gaps,
}

/// A page of PDUs.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct PduList {
    /// The PDUs, by id.
    pub pdus: Vec<PduBody>,
    /// What to give as `cursor` for the next page; null on the last.
    pub next_cursor: Option<String>,
}

/// A page of outlets.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct OutletList {
    /// The PDU.
    #[schema(value_type = String)]
    pub pdu: PduId,
    /// `online`, `stale` or `offline`.
    pub state: &'static str,
    /// When the last good poll began.
    pub observed_at: Option<String>,
    /// How long ago that was.
    pub age_ms: Option<u64>,
    /// The outlets, by number.
    pub outlets: Vec<OutletBody>,
    /// What to give as `cursor` for the next page; null on the last.
    pub next_cursor: Option<String>,
}

/// What the site's configuration says about an outlet.
pub trait Site {
    /// The host that an outlet feeds.
    fn host_of(&self, outlet: &OutletId) -> Option<String>;
    /// Why switching it is forbidden, if so.
    fn locked(&self, outlet: &OutletId) -> Option<String>;
}

/// A site without any configuration, for the command line.
#[derive(Debug, Clone, Copy)]
pub struct NoSite;

impl Site for NoSite {
    fn host_of(&self, _: &OutletId) -> Option<String> {
        None
    }

    fn locked(&self, _: &OutletId) -> Option<String> {
        None
    }
}

/// The readings of one part, taken out one by one; gaps are collected.
struct Taker<'v> {
    view: &'v PduView,
    scope: Scope,
    part: u16,
    gaps: Gaps,
    data: Vec<Datum>,
}

impl<'v> Taker<'v> {
    fn new(view: &'v PduView, scope: Scope, part: u16) -> Self {
        Self { view, scope, part, gaps: Gaps::new(), data: Vec::new() }
    }

    fn take(&mut self, metric: Metric) -> Field {
        let datum = self.view.shown(self.scope, self.part, metric)?;
        self.data.push(datum);
        match datum {
            Datum::Value(kept) => Some(metric.unit().map(|unit| unit.to_f64(kept))),
            Datum::Word(_) => Some(None),
            Datum::Gap(Gap::Unsupported) => None,
            Datum::Gap(gap) => {
                self.gaps.insert(metric.key(), gap.word());
                Some(None)
            }
        }
    }
}

/// The body of a PDU, at a moment.
pub fn body(view: &PduView, site: &dyn Site, now: Tick) -> PduBody {
    let identity = &view.identity;
    let parts = |scope: Scope| (0u16..).zip(view.layout.parts(scope));
    let mut inlets: Vec<InletBody> =
        parts(Scope::Inlet).map(|(at, part)| inlet(view, at, part)).collect();
    let total = total(&inlets);
    if inlets.len() < 2 {
        inlets.clear();
    }
    PduBody {
        id: view.id.clone(),
        name: view.name.to_string(),
        location: view.location.as_deref().map(str::to_owned),
        vendor: identity.vendor.clone(),
        model: identity.model.clone(),
        serial: identity.serial.clone(),
        firmware: identity.firmware.clone(),
        driver: view.driver.as_ref().map(ToString::to_string),
        state: view.health.word(),
        reason: view.health.reason().map(str::to_owned),
        quality: view.quality().word(),
        observed_at: view.observed_at.map(|at| at.to_string()),
        age_ms: view.observed.map(|at| (now - at).0),
        read_only: view.read_only.as_deref().map(str::to_owned),
        inlet: total,
        inlets,
        phases: parts(Scope::Phase).map(|(at, part)| phase(view, at, part)).collect(),
        branches: parts(Scope::Branch).map(|(at, part)| branch(view, at, part)).collect(),
        outlets: parts(Scope::Outlet).map(|(at, part)| outlet(view, at, part, site)).collect(),
        sensors: parts(Scope::Sensor).filter_map(|(at, part)| sensor(view, at, part)).collect(),
    }
}

fn inlet(view: &PduView, at: u16, part: &Part) -> InletBody {
    let mut take = Taker::new(view, Scope::Inlet, at);
    InletBody {
        id: Some(part.id.clone()),
        name: part.name.clone(),
        power_w: take.take(Metric::Power),
        apparent_power_va: take.take(Metric::ApparentPower),
        power_factor: take.take(Metric::PowerFactor),
        energy_wh: take.take(Metric::Energy),
        frequency_hz: take.take(Metric::Frequency),
        current_a: take.take(Metric::Current),
        voltage_v: take.take(Metric::Voltage),
        load_percent: take.take(Metric::Load),
        rating_a: take.take(Metric::Rating),
        gaps: take.gaps,
    }
}

/// The one inlet, or the sums of what adds up over several. What any of them does not tell makes the sum a gap: a part
/// is not the whole.
fn total(inlets: &[InletBody]) -> InletBody {
    if let [one] = inlets {
        return InletBody { id: None, name: None, ..one.clone() };
    }
    let mut gaps = Gaps::new();
    let mut sum = |metric: Metric, of: fn(&InletBody) -> Field| -> Field {
        if inlets.iter().all(|inlet| of(inlet).is_none()) {
            return None;
        }
        let whole: Option<f64> = inlets.iter().map(|inlet| of(inlet).flatten()).sum();
        if whole.is_none() {
            let why = inlets.iter().find_map(|inlet| inlet.gaps.get(metric.key()).copied());
            gaps.insert(metric.key(), why.unwrap_or(Gap::Unsupported.word()));
        }
        Some(whole)
    };
    InletBody {
        power_w: sum(Metric::Power, |i| i.power_w),
        apparent_power_va: sum(Metric::ApparentPower, |i| i.apparent_power_va),
        energy_wh: sum(Metric::Energy, |i| i.energy_wh),
        gaps,
        ..InletBody::default()
    }
}

fn phase(view: &PduView, at: u16, part: &Part) -> PhaseBody {
    let mut take = Taker::new(view, Scope::Phase, at);
    PhaseBody {
        id: part.id.clone(),
        name: part.name.clone(),
        voltage_v: take.take(Metric::Voltage),
        current_a: take.take(Metric::Current),
        power_w: take.take(Metric::Power),
        apparent_power_va: take.take(Metric::ApparentPower),
        power_factor: take.take(Metric::PowerFactor),
        energy_wh: take.take(Metric::Energy),
        rating_a: take.take(Metric::Rating),
        gaps: take.gaps,
    }
}

fn branch(view: &PduView, at: u16, part: &Part) -> BranchBody {
    let mut take = Taker::new(view, Scope::Branch, at);
    let breaker = view.shown(Scope::Branch, at, Metric::Breaker).and_then(Datum::word);
    BranchBody {
        id: part.id.clone(),
        name: part.name.clone(),
        phase: phases(view, part),
        current_a: take.take(Metric::Current),
        voltage_v: take.take(Metric::Voltage),
        power_w: take.take(Metric::Power),
        rating_a: take.take(Metric::Rating),
        breaker: breaker.map_or("unknown", Word::word),
        gaps: take.gaps,
    }
}

/// The body of one outlet.
pub fn outlet(view: &PduView, at: u16, part: &Part, site: &dyn Site) -> OutletBody {
    let id = OutletId { pdu: view.id.clone(), number: part.number };
    let mut take = Taker::new(view, Scope::Outlet, at);
    let locked = site.locked(&id);
    let on_branch = part.branch.and_then(|b| view.layout.parts(Scope::Branch).get(usize::from(b)));
    let wired = on_branch.filter(|_| part.phase.is_none()).unwrap_or(part);
    let mut body = OutletBody {
        number: part.number,
        name: part.name.clone().or_else(|| part.label.clone()),
        state: view.outlet_state(at).map_or("unknown", Word::word),
        switchable: part.switchable && view.read_only.is_none(),
        locked: locked.is_some(),
        lock_reason: locked,
        host: site.host_of(&id),
        branch: linked(view, Scope::Branch, part.branch),
        phase: phases(view, wired),
        power_w: take.take(Metric::Power),
        apparent_power_va: take.take(Metric::ApparentPower),
        current_a: take.take(Metric::Current),
        voltage_v: take.take(Metric::Voltage),
        power_factor: take.take(Metric::PowerFactor),
        frequency_hz: take.take(Metric::Frequency),
        energy_wh: take.take(Metric::Energy),
        rating_a: take.take(Metric::Rating),
        power_on_delay_s: match view.startups.get(&part.number) {
            Some(PowerOn::After(delay)) => Some(delay.0 as f64 / 1_000.0),
            Some(PowerOn::Never) | None => None,
        },
        stays_off: view.startups.get(&part.number) == Some(&PowerOn::Never),
        quality: "",
        gaps: Gaps::new(),
        id,
    };
    let state = match view.outlet_state(at) {
        Ok(word) => Datum::Word(word),
        Err(gap) => {
            if gap != Gap::Unsupported {
                take.gaps.insert("state", gap.word());
            }
            Datum::Gap(gap)
        }
    };
    body.quality = Quality::of(take.data.into_iter().chain([state])).word();
    body.gaps = take.gaps;
    body
}

fn sensor(view: &PduView, at: u16, part: &Part) -> Option<SensorBody> {
    let mut take = Taker::new(view, Scope::Sensor, at);
    let temperature_c = take.take(Metric::Temperature);
    let humidity_percent = take.take(Metric::Humidity);
    let kind = match (temperature_c, humidity_percent) {
        (Some(_), _) => "temperature",
        (None, Some(_)) => "humidity",
        // Nothing is plugged in.
        (None, None) => return None,
    };
    Some(SensorBody {
        id: part.id.clone(),
        kind,
        name: part.name.clone(),
        temperature_c,
        humidity_percent,
        gaps: take.gaps,
    })
}

/// The phase of a part, or the two that it is between: `L1`, `L1-L2`.
fn phases(view: &PduView, part: &Part) -> Option<String> {
    let one = linked(view, Scope::Phase, part.phase)?;
    let other = linked(view, Scope::Phase, part.other_phase);
    Some(other.map_or(one.clone(), |other| format!("{one}-{other}")))
}

fn linked(view: &PduView, scope: Scope, at: Option<u16>) -> Option<String> {
    Some(view.layout.parts(scope).get(usize::from(at?))?.id.clone())
}
