//! Object trees: which object shows what of a simulated PDU, and what a write to it does.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex};

use crate::model::ask::Value;
use crate::model::metric::{Metric, Scope, Word};
use crate::model::oid::Oid;
use crate::model::quantity::Count;
use crate::model::switching::Relay;
use crate::model::time::{Clock, Span};

use super::physics::Pdu;

/// How a meter's value stands on the wire.
#[derive(Debug, Clone)]
pub enum Form {
    /// So many counts.
    Count(Count),
    /// Decimal digits shift a plain number: 633 with three digits for 0.633.
    Digits(u32),
    /// A number for each state.
    States(Vec<(Word, i64)>),
}

/// What an object is.
#[derive(Debug, Clone)]
pub enum Object {
    /// A constant.
    Fixed(Value),
    /// What a meter shows.
    Meter {
        /// Kind of part.
        scope: Scope,
        /// Place of the part.
        part: u16,
        /// What is shown.
        metric: Metric,
        /// How.
        form: Form,
    },
    /// A command for an outlet.
    Command {
        /// Place of the outlet.
        outlet: u16,
        /// What switches it on.
        on: i64,
        /// What switches it off.
        off: i64,
        /// What makes the device cycle it.
        cycle: Option<i64>,
        /// What reading it gives: its state with these numbers, or this number.
        reads: Form,
    },
    /// How many seconds after the PDU has its power back an outlet comes on; -1 for never.
    Startup {
        /// Place of the outlet.
        outlet: u16,
    },
}

/// The longest delay of a simulated PDU, s.
const LONGEST_S: i64 = 7_200;

/// Why a write is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Not a writable object.
    NotWritable,
    /// Not an integer.
    WrongType,
    /// A number that means nothing here.
    WrongValue,
}

/// The tree of one PDU over its physics.
#[derive(Clone)]
pub struct Tree {
    objects: Arc<BTreeMap<Oid, Object>>,
    pdu: Arc<Mutex<Pdu>>,
    clock: Arc<dyn Clock>,
}

impl Tree {
    /// Over a PDU.
    pub fn new(
        objects: BTreeMap<Oid, Object>,
        pdu: Arc<Mutex<Pdu>>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { objects: Arc::new(objects), pdu, clock }
    }

    /// The value of an instance.
    pub fn get(&self, oid: &Oid) -> Option<Value> {
        self.objects.get(oid).map(|object| self.value(object))
    }

    /// The instance after a name.
    pub fn after(&self, oid: &Oid) -> Option<(Oid, Value)> {
        let range = (Bound::Excluded(oid), Bound::Unbounded);
        let (next, object) = self.objects.range((range.0, range.1)).next()?;
        Some((next.clone(), self.value(object)))
    }

    /// Whether a write would be taken.
    pub fn check(&self, oid: &Oid, value: &Value) -> Result<(), Refusal> {
        match (self.objects.get(oid), value) {
            (Some(Object::Command { on, off, cycle, .. }), Value::Integer(number)) => {
                let known = [Some(*on), Some(*off), *cycle].contains(&Some(*number));
                if known { Ok(()) } else { Err(Refusal::WrongValue) }
            }
            (Some(Object::Startup { .. }), Value::Integer(seconds)) => {
                if (-1..=LONGEST_S).contains(seconds) { Ok(()) } else { Err(Refusal::WrongValue) }
            }
            (Some(Object::Command { .. } | Object::Startup { .. }), _) => Err(Refusal::WrongType),
            _ => Err(Refusal::NotWritable),
        }
    }

    /// Carries a write out.
    pub fn write(&self, oid: &Oid, value: &Value) -> Result<(), Refusal> {
        self.check(oid, value)?;
        if let Some(Object::Startup { outlet }) = self.objects.get(oid) {
            let seconds = value.number().and_then(|seconds| u64::try_from(seconds).ok());
            self.lock().set_startup(*outlet, seconds.map(Span::seconds));
            return Ok(());
        }
        let Some(Object::Command { outlet, on, cycle, .. }) = self.objects.get(oid) else {
            return Err(Refusal::NotWritable);
        };
        let now = self.clock.tick();
        let number = value.number();
        let mut pdu = self.lock();
        if *cycle == number && cycle.is_some() {
            pdu.cycle(*outlet, Span::seconds(5), now);
        } else {
            let relay = if number == Some(*on) { Relay::On } else { Relay::Off };
            pdu.switch(*outlet, relay, now);
        }
        Ok(())
    }

    fn value(&self, object: &Object) -> Value {
        match object {
            Object::Fixed(value) => value.clone(),
            Object::Meter { scope, part, metric, form } => {
                let shown = self.lock().value(*scope, *part, *metric, self.clock.tick());
                Value::Integer(on_wire(form, *metric, shown.unwrap_or(0)))
            }
            Object::Startup { outlet } => {
                let delay = self.lock().startup(*outlet);
                Value::Integer(delay.map_or(-1, |delay| (delay.0 / 1_000) as i64))
            }
            Object::Command { outlet, reads, .. } => {
                let state =
                    self.lock().value(Scope::Outlet, *outlet, Metric::State, self.clock.tick());
                Value::Integer(on_wire(reads, Metric::State, state.unwrap_or(0)))
            }
        }
    }

    // Nothing in here leaves the physics half-way.
    fn lock(&self) -> std::sync::MutexGuard<'_, Pdu> {
        self.pdu.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A kept number as it stands on the wire.
pub fn on_wire(form: &Form, metric: Metric, kept: i64) -> i64 {
    match form {
        Form::Count(count) => count.counts(kept),
        Form::Digits(digits) => {
            let scale = metric.unit().map_or(1, crate::model::quantity::Unit::scale);
            let wanted = 10_i64.pow(*digits);
            (i128::from(kept) * i128::from(wanted) / i128::from(scale)) as i64
        }
        Form::States(states) => {
            let word = Word::from_number(kept);
            states.iter().find(|(state, _)| Some(*state) == word).map_or(0, |(_, number)| *number)
        }
    }
}
