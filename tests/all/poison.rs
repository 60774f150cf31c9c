//! Devices that send anything at all: every driver, fed arbitrary replies, ends within its bounds, panics never, and
//! makes no reading out of poison.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pmgate::device::adopt::over;
use pmgate::link::{Line, Link, LinkError, Patience};
use pmgate::model::ask::{Ask, Reply, Value, Whole};
use pmgate::model::limits::ADOPT_REQUESTS;
use pmgate::model::oid::Oid;
use pmgate::profile::catalog::Catalog;
use pmgate::profile::sweep::Memory;
use proptest::prelude::*;

/// A device that answers as a seed has it; it counts what it is asked.
struct Liar {
    state: u64,
    asked: Arc<AtomicUsize>,
}

impl Liar {
    /// SplitMix64: small, and the same everywhere.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn value(&mut self) -> Value {
        match self.below(18) {
            0 => Value::Nothing,
            1 => Value::Integer(-1),
            2 => Value::Integer(0x7fff_ffff),
            3 => Value::Unsigned(0xffff_ffff, Whole::Gauge),
            4 => Value::Unsigned(u64::MAX, Whole::Counter64),
            5 => Value::Integer(i64::from(self.next() as i32)),
            6 => Value::Bytes(Vec::new().into()),
            7 => Value::Bytes(b"-273.1".as_slice().into()),
            8 => {
                let length = self.below(300) as usize;
                let bytes: Vec<u8> = (0..length).map(|_| self.next() as u8).collect();
                Value::Bytes(bytes.as_slice().into())
            }
            9 => Value::Oid(self.oid()),
            _ => Value::Integer(self.below(300) as i64),
        }
    }

    fn oid(&mut self) -> Oid {
        let length = 2 + self.below(12) as usize;
        let parts: Vec<u32> =
            [1, 3].into_iter().chain((0..length).map(|_| self.next() as u32)).collect();
        Oid::from_parts(&parts).unwrap_or_default()
    }

    /// What a walk may be told: the next row, the same again, one before, something else.
    fn after(&mut self, name: &Oid) -> Oid {
        let mut parts = name.parts();
        match self.below(30) {
            0 => return name.clone(),
            1 | 4..8 => return self.oid(),
            2 => parts.push(self.below(5) as u32),
            3 => parts.truncate(parts.len().saturating_sub(1).max(2)),
            _ => match parts.last_mut() {
                Some(last) => *last = last.wrapping_add(1),
                None => parts.push(1),
            },
        }
        Oid::from_parts(&parts).unwrap_or_else(|_| name.clone())
    }
}

impl Liar {
    fn reply(&mut self, ask: &Ask) -> Reply {
        match (self.below(80), ask) {
            (0, _) => {
                Reply::Refused { status: self.below(20) as u32, index: self.below(60) as u32 }
            }
            (1, _) => Reply::Binds(Vec::new()),
            (2, _) => Reply::Exception(self.below(12) as u8),
            (_, Ask::Get(names)) => {
                let cut = if self.below(20) == 0 { self.below(4) as usize } else { names.len() };
                let stray = self.below(40) == 0;
                let named = names.iter().take(cut);
                Reply::Binds(
                    named
                        .map(|name| (if stray { self.oid() } else { name.clone() }, self.value()))
                        .collect(),
                )
            }
            (_, Ask::GetNext(names)) => {
                Reply::Binds(names.iter().map(|name| (self.after(name), self.value())).collect())
            }
            (_, Ask::GetBulk { names, single, repeat }) => {
                let mut at: Vec<Oid> = names.clone();
                let mut binds = Vec::new();
                for row in 0..(*repeat).clamp(1, 60) {
                    let first = if row == 0 { 0 } else { *single as usize };
                    for name in at.iter_mut().skip(first) {
                        *name = self.after(name);
                        binds.push((name.clone(), self.value()));
                    }
                }
                Reply::Binds(binds)
            }
            (_, Ask::Read { count, .. }) => {
                let count = if self.below(6) == 0 { self.below(200) as u16 } else { *count };
                if self.below(4) == 0 {
                    Reply::Bits((0..count).map(|_| self.below(2) == 0).collect())
                } else {
                    Reply::Words((0..count).map(|_| self.next() as u16).collect())
                }
            }
            _ => Reply::Written,
        }
    }
}

impl Link for Liar {
    fn once<'a>(
        &'a mut self,
        ask: &'a Ask,
        _timeout: std::time::Duration,
    ) -> pmgate::link::Exchange<'a> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let reply = self.reply(ask);
        Box::pin(std::future::ready(Ok::<_, LinkError>(reply)))
    }
}

#[test]
fn every_driver_stands_whatever_a_device_sends() {
    let config =
        ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() };
    let believed = AtomicUsize::new(0);
    let mut runner = proptest::test_runner::TestRunner::new(config);
    // A failing seed is printed.
    let result = runner.run(&any::<u64>(), |seed| {
        believed.fetch_add(believers(seed)?, Ordering::Relaxed);
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
    // A liar that no driver believes would test nothing.
    let believed = believed.into_inner();
    assert!(believed > 40, "only {believed} adoptions");
}

/// How many drivers adopt the liar of a seed; each of those is polled.
fn believers(seed: u64) -> Result<usize, TestCaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let catalog = Catalog::embedded().unwrap();
    let mut adopted_at_all = 0;
    for profile in catalog.iter() {
        let asked = Arc::new(AtomicUsize::new(0));
        let liar = Liar { state: seed, asked: asked.clone() };
        let line = Line::new(Box::new(liar), Patience::new((0, 1_000, 1)));
        let Ok(mut adopted) = runtime.block_on(over(line, profile.clone(), None)) else { continue };
        adopted_at_all += 1;
        let adopting = asked.swap(0, Ordering::Relaxed);
        // A device may claim as many rows as a table can have; each is asked for a bounded number of times.
        prop_assert!(adopting < 20 * ADOPT_REQUESTS, "{}: {adopting} requests", profile.id);
        let mut trust = adopted.instance.trust_after(&adopted.data);
        for slow in [false, true] {
            let tier = adopted.instance.tier(slow).clone();
            let slots = adopted.instance.layout.slots().len();
            let mut sweep = tier.set.sweep(Memory::of(&profile.speech));
            runtime.block_on(async {
                while let Some(ask) = sweep.next_ask() {
                    let reply = adopted.line.exchange(&ask).await.unwrap();
                    sweep.answer(reply);
                }
            });
            let polling = asked.swap(0, Ordering::Relaxed);
            prop_assert!(
                polling <= 40 + 6 * slots,
                "{}: {polling} requests for {slots} readings",
                profile.id
            );
            let data = adopted.instance.decode(&tier, &sweep.finish().0, &mut trust);
            for (slot, datum) in data {
                let metric = adopted.instance.layout.slots()[slot].metric;
                if let (Some(value), Some(unit)) = (datum.value(), metric.unit()) {
                    let shown = unit.to_f64(value);
                    let poison = [2_147_483_647.0, 4_294_967_295.0, -273.1, 1.8e19];
                    prop_assert!(
                        shown.is_finite() && !poison.contains(&shown) && shown < 1.0e13,
                        "{}: {metric:?} reads {shown}",
                        profile.id
                    );
                }
            }
        }
    }
    Ok(adopted_at_all)
}
