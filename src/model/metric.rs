//! The dictionary: which readings exist, at which part of a PDU, in which unit, under which names.

use std::fmt;
use std::str::FromStr;

use super::quantity::Unit;

/// A part of a PDU that has readings (Redfish: Mains, Circuit, Branch, Outlet, Sensor).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// The feed of the PDU, with its totals.
    Inlet,
    /// A phase (line) of the inlet.
    Phase,
    /// A branch circuit with its breaker; vendors say bank, group, section.
    Branch,
    /// An outlet.
    Outlet,
    /// An external sensor.
    Sensor,
}

impl Scope {
    /// All of them, from the feed outwards.
    pub const ALL: [Scope; 5] =
        [Scope::Inlet, Scope::Phase, Scope::Branch, Scope::Outlet, Scope::Sensor];

    /// The word in driver files and point names.
    pub const fn word(self) -> &'static str {
        match self {
            Scope::Inlet => "inlet",
            Scope::Phase => "phase",
            Scope::Branch => "branch",
            Scope::Outlet => "outlet",
            Scope::Sensor => "sensor",
        }
    }
}

/// What a reading is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Metric {
    /// Whether the relay is closed.
    State,
    /// Whether a delayed command waits in the device.
    Pending,
    /// Active power, W.
    Power,
    /// Apparent power, VA.
    ApparentPower,
    /// Current, A.
    Current,
    /// Voltage, V (phase to neutral where both exist).
    Voltage,
    /// Power factor.
    PowerFactor,
    /// Frequency, Hz.
    Frequency,
    /// Energy counted so far, Wh.
    Energy,
    /// Temperature, °C.
    Temperature,
    /// Relative humidity, %.
    Humidity,
    /// Load against the rating, %.
    Load,
    /// Load against the device's own thresholds.
    LoadState,
    /// Rated current, A.
    Rating,
    /// Device threshold: current too low, A.
    ThresholdLow,
    /// Device threshold: near overload, A.
    ThresholdHigh,
    /// Device threshold: overload, A.
    ThresholdCritical,
    /// The breaker of a branch.
    Breaker,
    /// Whether the device lets this outlet be switched.
    Switchable,
    /// A name that people gave.
    Name,
    /// The label printed on the device.
    Label,
    /// The branch that feeds an outlet.
    Branch,
    /// The phase that feeds an outlet or a branch.
    Phase,
    /// The voltage that somebody told the device to reckon with, V: nothing that it measures.
    NominalVoltage,
}

/// What kind of value a metric has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A number in a unit.
    Quantity(Unit),
    /// One of these words.
    Words(&'static [Word]),
    /// A text.
    Text,
    /// The number of a part of this scope.
    Link(Scope),
}

/// A state that a device tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Word {
    /// Relay open.
    Off,
    /// Relay closed.
    On,
    /// On its way between the two.
    Pending,
    /// Yes.
    Yes,
    /// No.
    No,
    /// Breaker closed.
    Closed,
    /// Breaker tripped or open.
    Tripped,
    /// Load within its thresholds.
    Normal,
    /// Load below its lower threshold.
    Low,
    /// Load near overload.
    High,
    /// Overload.
    Critical,
}

impl Word {
    /// All words with their spelling.
    pub const ALL: [(&'static str, Word); 11] = [
        ("off", Word::Off),
        ("on", Word::On),
        ("pending", Word::Pending),
        ("yes", Word::Yes),
        ("no", Word::No),
        ("closed", Word::Closed),
        ("tripped", Word::Tripped),
        ("normal", Word::Normal),
        ("low", Word::Low),
        ("high", Word::High),
        ("critical", Word::Critical),
    ];

    /// The spelling.
    pub fn word(self) -> &'static str {
        Self::ALL[self as usize].0
    }

    /// As kept in the store.
    pub fn number(self) -> i64 {
        self as i64
    }

    /// From the store.
    pub fn from_number(number: i64) -> Option<Self> {
        Self::ALL.get(usize::try_from(number).ok()?).map(|(_, word)| *word)
    }
}

const YES_NO: &[Word] = &[Word::Yes, Word::No];
const POWER_STATES: &[Word] = &[Word::On, Word::Off, Word::Pending];
const BREAKER: &[Word] = &[Word::Closed, Word::Tripped];
const LOADS: &[Word] = &[Word::Normal, Word::Low, Word::High, Word::Critical];

/// name in driver files, key in JSON and in series, metric, kind
const TABLE: [(&str, &str, Metric, Kind); 24] = [
    ("state", "state", Metric::State, Kind::Words(POWER_STATES)),
    ("pending", "pending", Metric::Pending, Kind::Words(YES_NO)),
    ("power", "power_w", Metric::Power, Kind::Quantity(Unit::Watt)),
    (
        "apparent_power",
        "apparent_power_va",
        Metric::ApparentPower,
        Kind::Quantity(Unit::VoltAmpere),
    ),
    ("current", "current_a", Metric::Current, Kind::Quantity(Unit::Ampere)),
    ("voltage", "voltage_v", Metric::Voltage, Kind::Quantity(Unit::Volt)),
    ("power_factor", "power_factor", Metric::PowerFactor, Kind::Quantity(Unit::Ratio)),
    ("frequency", "frequency_hz", Metric::Frequency, Kind::Quantity(Unit::Hertz)),
    ("energy", "energy_wh", Metric::Energy, Kind::Quantity(Unit::WattHour)),
    ("temperature", "temperature_c", Metric::Temperature, Kind::Quantity(Unit::Celsius)),
    ("humidity", "humidity_percent", Metric::Humidity, Kind::Quantity(Unit::Percent)),
    ("load", "load_percent", Metric::Load, Kind::Quantity(Unit::Percent)),
    ("load_state", "load_state", Metric::LoadState, Kind::Words(LOADS)),
    ("rating", "rating_a", Metric::Rating, Kind::Quantity(Unit::Ampere)),
    ("threshold_low", "threshold_low_a", Metric::ThresholdLow, Kind::Quantity(Unit::Ampere)),
    ("threshold_high", "threshold_high_a", Metric::ThresholdHigh, Kind::Quantity(Unit::Ampere)),
    (
        "threshold_critical",
        "threshold_critical_a",
        Metric::ThresholdCritical,
        Kind::Quantity(Unit::Ampere),
    ),
    ("breaker", "breaker", Metric::Breaker, Kind::Words(BREAKER)),
    ("switchable", "switchable", Metric::Switchable, Kind::Words(YES_NO)),
    ("name", "name", Metric::Name, Kind::Text),
    ("label", "label", Metric::Label, Kind::Text),
    ("branch", "branch", Metric::Branch, Kind::Link(Scope::Branch)),
    ("phase", "phase", Metric::Phase, Kind::Link(Scope::Phase)),
    ("nominal_voltage", "nominal_voltage_v", Metric::NominalVoltage, Kind::Quantity(Unit::Volt)),
];

impl Metric {
    /// All metrics.
    pub fn all() -> impl Iterator<Item = Metric> {
        TABLE.iter().map(|(_, _, metric, _)| *metric)
    }

    /// The name in driver files: `power`.
    pub fn word(self) -> &'static str {
        TABLE[self as usize].0
    }

    /// The key in JSON and of a series, with its unit: `power_w`.
    pub fn key(self) -> &'static str {
        TABLE[self as usize].1
    }

    /// What kind of value it has.
    pub fn kind(self) -> Kind {
        TABLE[self as usize].3
    }

    /// The unit, for quantities.
    pub fn unit(self) -> Option<Unit> {
        match self.kind() {
            Kind::Quantity(unit) => Some(unit),
            _ => None,
        }
    }

    /// Whether it changes from poll to poll and belongs into the time-series store.
    pub fn is_series(self) -> bool {
        let settings = [
            Metric::Rating,
            Metric::ThresholdLow,
            Metric::ThresholdHigh,
            Metric::ThresholdCritical,
            Metric::Switchable,
            Metric::NominalVoltage,
        ];
        matches!(self.kind(), Kind::Quantity(_) | Kind::Words(_)) && !settings.contains(&self)
    }

    /// By its key.
    pub fn by_key(key: &str) -> Option<Metric> {
        TABLE.iter().find(|row| row.1 == key).map(|row| row.2)
    }
}

/// A reading's place in the dictionary: `outlet.power`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Point {
    /// The part of the PDU.
    pub scope: Scope,
    /// What is read there.
    pub metric: Metric,
}

impl Point {
    /// Shorthand.
    pub const fn new(scope: Scope, metric: Metric) -> Self {
        Self { scope, metric }
    }

    fn exists(self) -> bool {
        use Metric as M;
        use Scope as S;
        match self.metric {
            M::Temperature | M::Humidity => self.scope == S::Sensor,
            M::Breaker => self.scope == S::Branch || self.scope == S::Inlet,
            M::Pending | M::Switchable | M::Branch => self.scope == S::Outlet,
            M::Phase => matches!(self.scope, S::Outlet | S::Branch),
            M::NominalVoltage => self.scope == S::Inlet,
            M::Name | M::Label => true,
            _ => self.scope != S::Sensor,
        }
    }
}

/// Why a text names no reading.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{typed}\" is no reading that PowerMan knows{hint}")]
pub struct PointError {
    typed: String,
    hint: String,
}

impl FromStr for Point {
    type Err = PointError;

    fn from_str(text: &str) -> Result<Self, PointError> {
        let known = || {
            Scope::ALL.into_iter().flat_map(|scope| {
                Metric::all().map(move |metric| Point { scope, metric }).filter(|p| p.exists())
            })
        };
        if let Some(point) = known().find(|point| point.to_string() == text) {
            return Ok(point);
        }
        let names: Vec<String> = known().map(|point| point.to_string()).collect();
        let near = super::document::nearest(text, names.iter().map(String::as_str));
        let hint = match near {
            Some(near) => format!("; did you mean \"{near}\"?"),
            None => format!("; known are: {}", names.join(", ")),
        };
        Err(PointError { typed: text.chars().take(80).collect(), hint })
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.scope.word(), self.metric.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_in_the_order_of_their_enums() {
        for (at, row) in TABLE.iter().enumerate() {
            assert_eq!(row.2 as usize, at, "{}", row.0);
        }
        for (at, (_, word)) in Word::ALL.iter().enumerate() {
            assert_eq!(*word as usize, at);
            assert_eq!(Word::from_number(word.number()), Some(*word));
        }
    }

    #[test]
    fn points_read_and_print() {
        let point: Point = "outlet.power".parse().unwrap();
        assert_eq!(point, Point::new(Scope::Outlet, Metric::Power));
        assert_eq!(point.metric.key(), "power_w");
    }

    #[test]
    fn a_mistyped_point_gets_the_nearest_one() {
        let error = "outlet.powr".parse::<Point>().unwrap_err().to_string();
        assert!(error.contains("did you mean \"outlet.power\""), "{error}");
        assert!("outlet.temperature".parse::<Point>().is_err());
    }
}
