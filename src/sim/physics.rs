//! The physics of a simulated PDU: loads that draw steadily with some noise, boot higher than they run,
//! rush in when switched on; relays that take their time; energy that is the integral of power.
//! Pure: told the time, it says what the meters show.

use crate::model::metric::{Metric, Scope, Word};
use crate::model::quantity::Unit;
use crate::model::switching::Relay;
use crate::model::time::{Span, Tick};

/// What hangs on an outlet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Steady active power, mW.
    pub steady_mw: i64,
    /// Power while booting, in percent of steady.
    pub boot_percent: i64,
    /// How long it boots.
    pub boot: Span,
    /// Power at the instant of switching on, in percent of steady.
    pub inrush_percent: i64,
    /// How long the inrush lasts.
    pub inrush: Span,
    /// Power factor in ten-thousandths.
    pub power_factor: i64,
}

/// A simulated outlet.
#[derive(Debug, Clone)]
struct Outlet {
    load: Load,
    relay: Relay,
    /// A switching under way: to what, and when it happens.
    moving: Vec<(Relay, Tick)>,
    /// How long after the PDU has its power back it closes by itself; nothing for never.
    startup: Option<Span>,
    since: Tick,
    /// Energy in mW·ms, counted up to `counted`.
    energy: i128,
    counted: Tick,
}

/// A simulated PDU.
#[derive(Debug, Clone)]
pub struct Pdu {
    seed: u64,
    outlets: Vec<Outlet>,
    /// Phases of the inlet: 1 or 3.
    pub phases: u16,
    /// Branches, each with a breaker.
    pub branches: u16,
    /// How long a relay takes.
    pub relay_delay: Span,
    /// Rated current of the inlet and of each branch, mA.
    pub rating_ma: i64,
}

/// Meters show a new value this often, as most PDUs do.
const METER: u64 = 1_000;
/// Largest step by which energy is integrated.
const STEP: u64 = 5_000;

impl Pdu {
    /// With servers of different sizes on its outlets, all switched on long ago. The seed decides sizes
    /// and noise.
    pub fn new(seed: u64, outlets: u16, phases: u16, branches: u16) -> Self {
        let outlet = |at: u16| {
            let roll = mix(seed, u64::from(at), 1);
            let load = Load {
                // 220 to 360 W: a 1U server each.
                steady_mw: 220_000 + (roll % 140_000) as i64,
                boot_percent: 130,
                boot: Span(30_000),
                inrush_percent: 600,
                inrush: Span(120),
                power_factor: 9_400 + (roll >> 32) as i64 % 500,
            };
            let age = Tick(0);
            let energy = i128::from(roll % 9_000_000) * 1_000 * 3_600_000;
            Outlet {
                load,
                relay: Relay::On,
                moving: Vec::new(),
                startup: Some(Span(0)),
                since: age,
                energy,
                counted: age,
            }
        };
        Self {
            seed,
            outlets: (0..outlets).map(outlet).collect(),
            phases,
            branches,
            relay_delay: Span(250),
            rating_ma: 32_000,
        }
    }

    /// Hangs the same load on every outlet.
    pub fn load_all(&mut self, load: Load) {
        self.outlets.iter_mut().for_each(|outlet| outlet.load = load);
    }

    /// Has every outlet draw so many percent of what it does.
    pub fn scale_loads(&mut self, percent: u16) {
        for outlet in &mut self.outlets {
            outlet.load.steady_mw = outlet.load.steady_mw * i64::from(percent) / 100;
        }
    }

    /// How many outlets it has.
    pub fn outlets(&self) -> u16 {
        self.outlets.len() as u16
    }

    /// The branch of an outlet.
    pub fn branch_of(&self, outlet: u16) -> u16 {
        let per_branch = self.outlets().div_ceil(self.branches.max(1)).max(1);
        outlet / per_branch
    }

    /// The phase of a branch: branches follow the phases in turn.
    pub fn phase_of(&self, branch: u16) -> u16 {
        branch % self.phases.max(1)
    }

    /// A command arrives: the relay moves after its delay. Returns false for an outlet that is not there.
    pub fn switch(&mut self, outlet: u16, relay: Relay, now: Tick) -> bool {
        let at = now + self.relay_delay;
        let Some(outlet) = self.outlets.get_mut(usize::from(outlet)) else { return false };
        outlet.settle(now);
        outlet.moving = vec![(relay, at)];
        true
    }

    /// The device's own reboot: off, and on again after a hold.
    pub fn cycle(&mut self, outlet: u16, hold: Span, now: Tick) -> bool {
        let at = now + self.relay_delay;
        let Some(outlet) = self.outlets.get_mut(usize::from(outlet)) else { return false };
        outlet.settle(now);
        outlet.moving = vec![(Relay::Off, at), (Relay::On, at + hold)];
        true
    }

    /// Its power fails: nothing is carried out any more, and every relay opens.
    pub fn loses_power(&mut self, now: Tick) {
        for outlet in &mut self.outlets {
            outlet.settle(now);
            outlet.count_to(now);
            outlet.moving.clear();
            (outlet.relay, outlet.since) = (Relay::Off, now);
        }
    }

    /// It has its power back: each relay closes after its own delay, or stays open.
    pub fn gets_power(&mut self, now: Tick) {
        for outlet in &mut self.outlets {
            outlet.settle(now);
            outlet.moving =
                outlet.startup.map(|delay| (Relay::On, now + delay)).into_iter().collect();
        }
    }

    /// How long after the PDU has its power back an outlet comes on; nothing for never, or for one that is not there.
    pub fn startup(&self, outlet: u16) -> Option<Span> {
        self.outlets.get(usize::from(outlet))?.startup
    }

    /// Sets that.
    pub fn set_startup(&mut self, outlet: u16, delay: Option<Span>) {
        if let Some(outlet) = self.outlets.get_mut(usize::from(outlet)) {
            outlet.startup = delay;
        }
    }

    /// What a relay does now.
    pub fn relay(&mut self, outlet: u16, now: Tick) -> Option<Relay> {
        let outlet = self.outlets.get_mut(usize::from(outlet))?;
        outlet.settle(now);
        Some(outlet.relay)
    }

    /// What a meter shows, in kept steps; states as the number of their word.
    pub fn value(&mut self, scope: Scope, part: u16, metric: Metric, now: Tick) -> Option<i64> {
        for outlet in &mut self.outlets {
            outlet.count(now);
        }
        let shown = Tick(now.0 / METER * METER);
        match (scope, metric) {
            (Scope::Outlet, Metric::State) => {
                Some(self.outlets.get(usize::from(part))?.relay.state().number())
            }
            (Scope::Outlet, Metric::Pending) => {
                let moving = !self.outlets.get(usize::from(part))?.moving.is_empty();
                Some(if moving { Word::Yes } else { Word::No }.number())
            }
            (Scope::Branch, Metric::Breaker) => Some(Word::Closed.number()),
            (Scope::Branch, Metric::State) => Some(Word::On.number()),
            (_, Metric::LoadState) => Some(Word::Normal.number()),
            (_, Metric::Frequency) => Some(50_000 + wave(self.seed, 9, shown, 15)),
            (_, Metric::Rating) => Some(self.rating_ma),
            (Scope::Sensor, Metric::Temperature) => {
                Some(23_500 + wave(self.seed, u64::from(part) + 50, shown, 900))
            }
            (Scope::Sensor, Metric::Humidity) => {
                Some(41_000 + wave(self.seed, u64::from(part) + 60, shown, 3_000))
            }
            (_, Metric::Voltage) => Some(self.volts(self.phase_at(scope, part), shown)),
            (_, Metric::Energy) => {
                let energy: i128 = self.fed(scope, part).map(|at| self.outlets[at].energy).sum();
                i64::try_from(energy / 3_600_000).ok()
            }
            _ => self.electric(scope, part, metric, shown),
        }
    }

    fn electric(&self, scope: Scope, part: u16, metric: Metric, shown: Tick) -> Option<i64> {
        let (mut watts, mut volt_amperes, mut milliamperes) = (0, 0, 0);
        for at in self.fed(scope, part) {
            let outlet = &self.outlets[at];
            let mw = outlet.power(self.seed, at as u64, shown);
            let mva = mw * 10_000 / outlet.load.power_factor;
            let phase = self.phase_of(self.branch_of(at as u16));
            watts += mw;
            volt_amperes += mva;
            milliamperes += mva * 1_000 / self.volts(phase, shown);
        }
        Some(match metric {
            Metric::Power => watts,
            Metric::ApparentPower => volt_amperes,
            Metric::Current => milliamperes,
            Metric::PowerFactor if volt_amperes == 0 => Unit::Ratio.scale(),
            Metric::PowerFactor => watts * 10_000 / volt_amperes,
            Metric::Load => {
                milliamperes * 100_000 / self.rating_ma.max(1) / i64::from(self.phases.max(1))
            }
            _ => return None,
        })
    }

    /// The outlets behind a part.
    fn fed(&self, scope: Scope, part: u16) -> impl Iterator<Item = usize> + '_ {
        (0..self.outlets.len()).filter(move |at| {
            let branch = self.branch_of(*at as u16);
            match scope {
                Scope::Inlet => true,
                Scope::Phase => self.phase_of(branch) == part,
                Scope::Branch => branch == part,
                Scope::Outlet => *at == usize::from(part),
                Scope::Sensor => false,
            }
        })
    }

    fn phase_at(&self, scope: Scope, part: u16) -> u16 {
        match scope {
            Scope::Phase => part,
            Scope::Branch => self.phase_of(part),
            Scope::Outlet => self.phase_of(self.branch_of(part)),
            Scope::Inlet | Scope::Sensor => 0,
        }
    }

    /// Phase to neutral, mV.
    fn volts(&self, phase: u16, shown: Tick) -> i64 {
        230_500 + i64::from(phase) * 400 + wave(self.seed, u64::from(phase) + 20, shown, 700)
    }
}

impl Outlet {
    /// Carries out what has come due.
    fn settle(&mut self, now: Tick) {
        while let Some((relay, at)) = self.moving.first().copied().filter(|(_, at)| *at <= now) {
            self.count_to(at);
            self.moving.remove(0);
            if self.relay != relay {
                self.relay = relay;
                self.since = at;
            }
        }
    }

    /// Counts energy up to now, over every switching on the way.
    fn count(&mut self, now: Tick) {
        self.settle(now);
        self.count_to(now);
    }

    fn count_to(&mut self, to: Tick) {
        while self.counted < to {
            let step = (to - self.counted).0.min(STEP);
            let mid = Tick(self.counted.0 + step / 2);
            self.energy += i128::from(self.draw(mid)) * i128::from(step);
            self.counted = Tick(self.counted.0 + step);
        }
    }

    /// Power without noise, mW: what is integrated, since noise averages out.
    fn draw(&self, now: Tick) -> i64 {
        if self.relay == Relay::Off {
            return 0;
        }
        let on_for = now - self.since;
        let load = &self.load;
        let always_on = self.since == Tick(0);
        let percent = match on_for {
            _ if always_on => 100,
            on if on < load.inrush => load.inrush_percent,
            on if on < load.boot => load.boot_percent,
            _ => 100,
        };
        load.steady_mw * percent / 100
    }

    fn power(&self, seed: u64, at: u64, shown: Tick) -> i64 {
        let draw = self.draw(shown.max(self.since));
        draw + draw / 100 * wave(seed, at + 100, shown, 150) / 100
    }
}

/// A slow wave with some jitter, within ±`size`: different for every channel, the same for every run.
fn wave(seed: u64, channel: u64, shown: Tick, size: i64) -> i64 {
    let second = shown.0 / METER;
    let phase = (mix(seed, channel, 7) % 600) as f64;
    let slow = ((second as f64 + phase) / 95.0).sin();
    let jitter = (mix(seed, channel, second) % 2_001) as f64 / 1_000.0 - 1.0;
    ((slow * 0.7 + jitter * 0.3) * size as f64) as i64
}

/// A hash of three numbers (splitmix64).
fn mix(a: u64, b: u64, c: u64) -> u64 {
    let mut z = a.wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ b.wrapping_mul(0xbf58_476d_1ce4_e5b9)
        ^ c.wrapping_mul(0x94d0_49bb_1331_11eb);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Tick = Tick(100_000);

    fn watts(pdu: &mut Pdu, outlet: u16, now: Tick) -> i64 {
        pdu.value(Scope::Outlet, outlet, Metric::Power, now).unwrap()
    }

    #[test]
    fn scaled_loads_draw_their_share() {
        let (mut whole, mut part) = (Pdu::new(7, 8, 3, 3), Pdu::new(7, 8, 3, 3));
        part.scale_loads(60);
        for outlet in 0..8 {
            let (whole, part) = (watts(&mut whole, outlet, NOW), watts(&mut part, outlet, NOW));
            assert!((whole * 60 / 100 - part).abs() <= whole / 1_000, "{whole} mW and {part} mW");
        }
    }

    #[test]
    fn power_is_voltage_times_current_times_power_factor() {
        let mut pdu = Pdu::new(7, 24, 3, 3);
        for outlet in 0..24 {
            let mut get = |metric| pdu.value(Scope::Outlet, outlet, metric, NOW).unwrap() as f64;
            let product = get(Metric::Voltage) / 1e3 * get(Metric::Current) / 1e3
                * get(Metric::PowerFactor)
                / 1e4;
            let power = get(Metric::Power) / 1e3;
            assert!((product / power - 1.0).abs() < 0.005, "{product} {power}");
        }
    }

    #[test]
    fn the_inlet_is_the_sum_of_its_outlets_phases_and_branches() {
        let mut pdu = Pdu::new(7, 24, 3, 3);
        let mut sum = |scope, count| -> i64 {
            (0..count).map(|part| pdu.value(scope, part, Metric::Power, NOW).unwrap()).sum()
        };
        let inlet = sum(Scope::Inlet, 1);
        assert_eq!(
            (sum(Scope::Outlet, 24), sum(Scope::Phase, 3), sum(Scope::Branch, 3)),
            (inlet, inlet, inlet)
        );
    }

    #[test]
    fn a_relay_takes_its_time_and_a_server_rushes_in_boots_and_settles() {
        let mut pdu = Pdu::new(7, 8, 1, 1);
        let steady = watts(&mut pdu, 0, NOW);
        assert!(pdu.switch(0, Relay::Off, NOW));
        assert_eq!(pdu.relay(0, NOW + Span(249)), Some(Relay::On));
        assert_eq!(pdu.relay(0, NOW + Span(250)), Some(Relay::Off));
        assert_eq!(watts(&mut pdu, 0, NOW + Span(2_000)), 0);
        pdu.switch(0, Relay::On, NOW + Span(9_750));
        let on = NOW + Span(10_000);
        assert!(watts(&mut pdu, 0, on + Span(50)) > 5 * steady);
        let booting = watts(&mut pdu, 0, on + Span(5_000));
        assert!(booting > steady * 120 / 100 && booting < steady * 140 / 100);
        let after = watts(&mut pdu, 0, on + Span(60_000));
        assert!((after - steady).abs() < steady / 20);
        assert!(!pdu.switch(8, Relay::On, on));
    }

    #[test]
    fn after_an_outage_each_outlet_comes_on_by_its_own_delay_or_not_at_all() {
        let mut pdu = Pdu::new(7, 3, 1, 1);
        pdu.set_startup(1, Some(Span::seconds(40)));
        pdu.set_startup(2, None);
        pdu.loses_power(NOW);
        let relays = |pdu: &mut Pdu, at: Tick| [0, 1, 2].map(|n| pdu.relay(n, at).unwrap());
        let (on, off) = (Relay::On, Relay::Off);
        assert_eq!(relays(&mut pdu, NOW + Span::seconds(60)), [off, off, off]);
        let back = NOW + Span::seconds(60);
        pdu.gets_power(back);
        assert_eq!(relays(&mut pdu, back + Span(1)), [on, off, off]);
        assert_eq!(relays(&mut pdu, back + Span(39_999)), [on, off, off]);
        assert_eq!(relays(&mut pdu, back + Span::seconds(40)), [on, on, off]);
        assert_eq!(relays(&mut pdu, back + Span::seconds(9_000)), [on, on, off]);
    }

    #[test]
    fn energy_is_the_integral_of_power() {
        let mut pdu = Pdu::new(7, 1, 1, 1);
        let energy = |pdu: &mut Pdu, at| pdu.value(Scope::Outlet, 0, Metric::Energy, at).unwrap();
        let before = energy(&mut pdu, NOW);
        let after = energy(&mut pdu, NOW + Span::seconds(3_600));
        let steady = pdu.outlets[0].load.steady_mw;
        assert!((after - before - steady).abs() <= 1, "{} mWh against {steady} mW", after - before);
        pdu.switch(0, Relay::Off, NOW + Span::seconds(3_600));
        let off = energy(&mut pdu, NOW + Span::seconds(3_601));
        assert_eq!(energy(&mut pdu, NOW + Span::seconds(9_000)), off);
    }
}
