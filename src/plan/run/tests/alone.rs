//! Hosts with several feeds of which the site does not say what they draw. Each outlet draws 500 W as its meter shows it.

use super::*;
use crate::plan::{After, Draw, Goal, Picture, Refusal, Until, Want, plan as planned};

/// The feed of the host on the other PDU.
fn other() -> OutletId {
    "pdu-b/1".parse().unwrap()
}

/// A rack with a host on the third outlet and one of another PDU, and a feed of the first PDU.
fn rack(rating: i64, on: bool, beside_on: bool) -> Rack {
    let mut site = heavy(Site::default(), &["pdu-a"], rating);
    let host = HostSpec::fed_by("some", vec![outlet(3), other()]);
    site.hosts = [("h1".parse().unwrap(), host)].into_iter().collect();
    let mut rack = Rack::new(site, [true, true, on]);
    (rack.beside, rack.beside_on) = (Some((Health::Online, 0)), beside_on);
    rack
}

/// What the two feeds are reckoned to draw for long.
fn steady(rack: &mut Rack) -> (i64, i64) {
    let mut both = (0, 0);
    rack.sees(|runs, sight| {
        let picture = Picture::of(sight, &runs.memory, None);
        let of = |outlet: &OutletId| picture.world.outlets[picture.outlets[outlet]].draw.steady;
        both = (of(&outlet(3)), of(&other()));
        Vec::new()
    });
    both
}

#[test]
fn the_first_feed_of_a_dark_host_is_reckoned_with_what_all_of_them_drew() {
    // It starts up with 1250 W, beside 1000 W; with the other feed on it takes 625 W.
    for (beside_on, rating, fits) in
        [(false, 2_240_000, false), (false, 2_260_000, true), (true, 1_640_000, true)]
    {
        let mut rack = rack(rating, false, beside_on);
        rack.runs.memory.drew = [(outlet(3), 500_000), (other(), 500_000)].into();
        rack.runs.memory.whole.insert(vec![outlet(3), other()], 1_000_000);
        let alone = if beside_on { 500_000 } else { 1_000_000 };
        assert_eq!(steady(&mut rack).0, alone);
        rack.begins(plan("one", &[(3, Relay::On)]));
        rack.passes(600);
        let written: &[&str] = if fits { &["pdu-a/3 on"] } else { &[] };
        assert_eq!(rack.written, written, "beside one that is on: {beside_on}, {rating}");
    }
}

#[test]
fn a_host_that_is_cycled_has_room_on_the_feed_that_comes_on_first() {
    let wishes = |rack: &mut Rack, drops_host| {
        let mut made = None;
        rack.sees(|runs, sight| {
            let mut picture = runs.picture(sight, None, None);
            let goal = |outlet: &OutletId| Goal {
                outlet: picture.outlets[outlet],
                want: Want::Cycle,
                drops_host,
                why: String::new(),
            };
            let goals = [goal(&outlet(3)), goal(&other())];
            picture.goes_dark(&goals);
            made = Some(planned(&picture.world, &goals));
            Vec::new()
        });
        made.unwrap()
    };
    let mut tight = rack(2_240_000, true, true);
    let refused = wishes(&mut tight, true);
    assert!(matches!(refused, Err(Refusal::Limit { needs_mva: 1_250_000, .. })), "{refused:?}");
    // One feed after the other the host never hangs on one that comes on.
    assert!(wishes(&mut tight, false).is_ok());
    assert!(wishes(&mut rack(2_260_000, true, true), true).is_ok());
}

#[test]
fn a_plan_that_has_a_host_dark_has_taken_the_room_that_its_first_feed_needs() {
    let off_on = |outlet: OutletId| {
        let step = |relay| StepRecord::pending(outlet.clone(), relay, 0, "asked for".into());
        [step(Relay::Off), step(Relay::On)]
    };
    let taken = |rack: &mut Rack, record: &Record| {
        let mut taken = 0;
        rack.sees(|runs, sight| {
            let mut picture = Picture::of(sight, &runs.memory, None);
            let load = |picture: &Picture| {
                let feed = |limit: &&crate::plan::Limit| limit.name == "feed";
                picture.world.limits.iter().find(feed).unwrap().load
            };
            let before = load(&picture);
            picture.reserve(record, &[]);
            taken = load(&picture) - before;
            Vec::new()
        });
        taken
    };
    let mut rack = rack(9_000_000, true, true);
    rack.site.feeds.get_mut("feed").unwrap().of.push(Member::Pdu("pdu-b".parse().unwrap()));
    let mut record = plan("one", &[]);
    record.steps = off_on(outlet(3)).into_iter().chain(off_on(other())).collect();
    assert_eq!(taken(&mut rack, &record), 1_250_000 + 625_000, "the first all, the other its part");
    // One that stays on beside it, or is cycled after it, keeps the host.
    record.steps.truncate(2);
    assert_eq!(taken(&mut rack, &record), 625_000);
    record.steps = off_on(outlet(3)).into_iter().chain(off_on(other())).collect();
    record.steps.iter_mut().for_each(|step| step.keeps_host = step.relay == Relay::Off);
    // What moves between its feeds as well.
    assert_eq!(taken(&mut rack, &record), 2 * (625_000 + 500_000));
}

/// What flows over the feed of the first PDU, as plans see it.
fn flows(rack: &mut Rack, reserves: Option<&Record>) -> i64 {
    let mut load = 0;
    rack.sees(|runs, sight| {
        let mut picture = Picture::of(sight, &runs.memory, None);
        if let Some(record) = reserves {
            picture.reserve(record, &[]);
        }
        let feed = |limit: &&crate::plan::Limit| limit.name == "feed";
        load = picture.world.limits.iter().find(feed).unwrap().load;
        Vec::new()
    });
    load
}

#[test]
fn what_a_feed_left_to_another_counts_there_until_a_meter_shows_it() {
    let mut rack = rack(9_000_000, true, false);
    let sent = Tick(rack.now);
    let off =
        Written { relay: Relay::Off, sent, seen: Some(sent), acknowledged: true, takes: Span(0) };
    rack.runs.memory.written.insert(other(), off);
    rack.runs.memory.drew.insert(other(), 300_000);
    assert_eq!(flows(&mut rack, None), 1_800_000);
    let seen = rack.beside.replace((Health::Stale("no answer".into()), 0));
    assert_eq!(flows(&mut rack, None), 1_800_000, "its PDU has stopped to answer since");
    rack.beside = seen;
    rack.now += 4_000;
    assert_eq!(flows(&mut rack, None), 1_800_000, "meters lag");
    rack.now += 2_000;
    assert_eq!(flows(&mut rack, None), 1_500_000);
    // One that came on after that is reckoned with all of it anyway: with that, and what it may be more at first.
    rack.now = sent.0 + 2_000;
    let on = Written { relay: Relay::On, sent: Tick(rack.now), seen: Some(Tick(rack.now)), ..off };
    rack.runs.memory.written.insert(outlet(3), on);
    rack.runs.memory.whole.insert(vec![outlet(3), other()], 800_000);
    assert_eq!(flows(&mut rack, None), 1_000_000 + 1_000_000);
    // Nobody carries what the last feed leaves.
    rack.now = sent.0;
    rack.runs.memory.written.remove(&outlet(3));
    rack.on[2] = false;
    assert_eq!(flows(&mut rack, None), 1_000_000);
}

#[test]
fn an_off_is_not_written_while_the_other_feed_of_its_host_has_no_room_for_what_moves() {
    for (rating, fits) in [(900_000, false), (1_100_000, true)] {
        let mut rack = rack(9_000_000, true, true);
        // The feed is above the other PDU, where 500 W flow.
        rack.site.feeds.get_mut("feed").unwrap().of = vec![Member::Pdu("pdu-b".parse().unwrap())];
        rack.site.feeds.get_mut("feed").unwrap().rating = rating;
        rack.begins(plan("one", &[(3, Relay::Off)]));
        rack.passes(600);
        let written: &[&str] = if fits { &["pdu-a/3 off"] } else { &[] };
        assert_eq!(rack.written, written, "{rating}");
        let detail = rack.ended[0].steps[0].detail.clone().unwrap_or_default();
        assert_eq!(detail.contains("feed"), !fits, "{detail}");
    }
}

/// A step may wait for long: what the other feeds of its host were before that says nothing of now.
#[test]
fn the_other_feeds_of_a_host_are_looked_at_after_all_that_a_step_waits_for() {
    for other_goes in [true, false] {
        let mut site = heavy(Site::default(), &["pdu-a", "pdu-b"], 5_000_000);
        let mut two = drawing(1, 200_000, 1_000, 200_000);
        two.outlets.push(outlet(2));
        site.hosts.insert("two".parse().unwrap(), two);
        let mut rack = Rack::new(site, [true; 3]);
        rack.beside = Some((Health::Stale("no answer".into()), 5_000));
        let mut cycle = plan("one", &[(1, Relay::Off), (1, Relay::On)]);
        cycle.steps[0].keeps_host = true;
        cycle.steps[1].after.push(After { step: 0, until: Until::Done, pause_ms: 0 });
        rack.begins(cycle);
        rack.passes(30);
        assert_eq!(rack.written, [""; 0]);
        rack.on[1] = !other_goes;
        rack.beside = Some((Health::Online, 1_000));
        rack.passes(60);
        if other_goes {
            assert_eq!(rack.written, [""; 0]);
            let detail = rack.ended[0].steps[0].detail.clone().unwrap();
            assert!(detail.contains("last feed of host two"), "{detail}");
        } else {
            assert_eq!(rack.written, ["pdu-a/1 off", "pdu-a/1 on"]);
        }
    }
}

/// A host whose other feed is below a limit that has no room for what moves to it.
fn full_beside() -> Rack {
    let mut rack = rack(9_000_000, true, true);
    rack.site.feeds.get_mut("feed").unwrap().of = vec![Member::Pdu("pdu-b".parse().unwrap())];
    rack.site.feeds.get_mut("feed").unwrap().rating = 900_000;
    rack
}

#[test]
fn an_on_overtakes_an_off_that_waits_for_room_unless_that_needs_it_to_come_back() {
    for (comes_back, written) in [(false, &["pdu-a/1 on"][..]), (true, &[])] {
        let mut rack = full_beside();
        rack.on[0] = false;
        let mut one = plan("one", &[(3, Relay::Off), (1, Relay::On), (3, Relay::On)]);
        one.steps.truncate(if comes_back { 3 } else { 2 });
        rack.begins(one);
        rack.passes(30);
        assert_eq!(rack.written, written);
    }
}

#[test]
fn what_is_off_comes_on_again_before_an_off_without_room_stops_its_plan() {
    let mut rack = full_beside();
    let steps = [(1, Relay::Off), (3, Relay::Off), (1, Relay::On), (3, Relay::On)];
    let mut one = plan("one", &steps);
    for (on, off, pause_ms) in [(2, 0, 200_000), (3, 1, 0)] {
        one.steps[on].after.push(After { step: off, until: Until::Done, pause_ms });
    }
    rack.begins(one);
    rack.passes(190);
    assert_eq!(rack.written, ["pdu-a/1 off"]);
    assert!(rack.ended.is_empty(), "{:?}", rack.ended);
    rack.passes(200);
    assert_eq!(rack.written, ["pdu-a/1 off", "pdu-a/1 on"]);
    let detail = rack.ended[0].steps[1].detail.clone().unwrap();
    assert!(detail.contains("feed"), "{detail}");
}

#[test]
fn what_goes_off_and_is_not_seen_off_counts_on_the_other_feed_already() {
    let pdu_b = || vec![Member::Pdu("pdu-b".parse().unwrap())];
    for (on, more) in [(true, 500_000), (false, 0)] {
        let mut rack = rack(9_000_000, on, true);
        rack.site.feeds.get_mut("feed").unwrap().of = pdu_b();
        rack.sees(|runs, sight| {
            let mut picture = Picture::of(sight, &runs.memory, None);
            let feed = |picture: &Picture| {
                let mut limits = picture.world.limits.iter();
                limits.find(|limit| limit.name == "feed").unwrap().load
            };
            let before = feed(&picture);
            picture.leaves(&outlet(3), sight.site);
            assert_eq!(feed(&picture) - before, more);
            Vec::new()
        });
    }
}

#[test]
fn what_a_cycle_has_switched_off_leaves_no_room_to_others() {
    let mut rack = Rack::new(heavy(Site::default(), &["pdu-a"], 9_000_000), [true; 3]);
    let mut record = plan("one", &[(3, Relay::Off), (3, Relay::On)]);
    // As it was planned: nothing beyond what flows, but for the time in which it starts up.
    record.reserve = [("feed".to_owned(), 100_000)].into();
    let before = flows(&mut rack, Some(&record));
    assert_eq!(before, 1_500_000 + 100_000);
    rack.on[2] = false;
    record.steps[0].state = StepState::Ended(Outcome::Done);
    assert_eq!(flows(&mut rack, Some(&record)), 1_000_000 + 800_000, "all that it needs");
    // On again, it flows.
    rack.on[2] = true;
    record.steps[1].state = StepState::Ended(Outcome::Done);
    assert_eq!(flows(&mut rack, Some(&record)), 1_500_000);
}

#[test]
fn what_a_host_draws_is_what_its_feeds_do_that_are_on_and_what_it_drew_where_none_is() {
    // Both are on: each its part.
    assert_eq!(steady(&mut rack(9_000_000, true, true)), (500_000, 500_000));
    // What one drew that has been off for long, the other draws by now.
    let mut one = rack(9_000_000, true, false);
    one.runs.memory.drew = [(other(), 400_000)].into();
    assert_eq!(steady(&mut one), (500_000, 400_000));
    // One that came on a moment ago shows nothing yet of what both drew.
    let sent = Tick(one.now - 1_000);
    let on =
        Written { relay: Relay::On, sent, seen: Some(sent), acknowledged: true, takes: Span(0) };
    one.runs.memory.written.insert(outlet(3), on);
    one.runs.memory.whole.insert(vec![outlet(3), other()], 1_000_000);
    assert_eq!(steady(&mut one), (1_000_000, 400_000));
    // Nor one beside which the other went off a moment ago.
    one.runs.memory.written = [(other(), Written { relay: Relay::Off, ..on })].into();
    assert_eq!(steady(&mut one), (1_000_000, 400_000));
    one.now += 60_000;
    assert_eq!(steady(&mut one), (500_000, 400_000));
    // Where nobody knows what both drew: their parts, and no less than the declared default, which is of a load.
    let mut half = rack(9_000_000, false, false);
    half.runs.memory.drew = [(outlet(3), 500_000), (other(), 400_000)].into();
    assert_eq!(steady(&mut half), (900_000, 900_000));
    half.runs.memory.drew = [(other(), 150_000)].into();
    assert_eq!(steady(&mut half), (400_000, 400_000));
    half.runs.memory.drew = [(other(), 300_000)].into();
    assert_eq!(steady(&mut half), (600_000, 600_000), "of the other nothing is known: as much");
    assert_eq!(steady(&mut rack(9_000_000, false, false)), (400_000, 400_000));
    // One of two that are on has no meter.
    let mut unmetered = rack(9_000_000, true, true);
    unmetered.unmetered = vec![3];
    unmetered.beside_on = true;
    unmetered.sees(|runs, sight| {
        let picture = Picture::of(sight, &runs.memory, None);
        let alone = picture.alone.get(&picture.outlets[&outlet(3)]);
        assert_eq!(alone.map(|draw| draw.steady), Some(1_000_000));
        Vec::new()
    });
    // Who needs both never has to live on one.
    let mut both = rack(9_000_000, false, false);
    let mut host = both.site.hosts.values().next().unwrap().clone();
    host.min_feeds = 2;
    both.site.hosts.insert("h1".parse().unwrap(), host);
    both.runs.memory.whole.insert(vec![outlet(3), other()], 1_000_000);
    both.runs.memory.drew = [(outlet(3), 450_000), (other(), 550_000)].into();
    assert_eq!(steady(&mut both), (500_000, 550_000));
    // What the site says is of a host that hangs on one feed.
    let mut said = rack(9_000_000, false, false);
    let mut host = HostSpec::fed_by("some", vec![outlet(3), other()]);
    let draw = Draw { inrush: 0, inrush_ms: 100, boot: 700_000, boot_ms: 9_000, steady: 450_000 };
    host.draw = Some(draw);
    said.site.hosts.insert("h1".parse().unwrap(), host);
    said.runs.memory.whole.insert(vec![outlet(3), other()], 1_000_000);
    assert_eq!(steady(&mut said), (450_000, 450_000));
}

#[test]
fn how_a_host_starts_up_is_learned_of_its_feeds_and_counted_once() {
    let boot = |learned: [Draw; 2], whole: i64| {
        let mut rack = rack(9_000_000, false, false);
        rack.runs.memory.whole.insert(vec![outlet(3), other()], whole);
        rack.runs.memory.learned = [(outlet(3), learned[0]), (other(), learned[1])].into();
        let mut boot = 0;
        rack.sees(|runs, sight| {
            let picture = Picture::of(sight, &runs.memory, None);
            boot = picture.world.outlets[picture.outlets[&outlet(3)]].draw.boot;
            Vec::new()
        });
        boot
    };
    let draw = |boot, steady| Draw { inrush: 0, inrush_ms: 100, boot, boot_ms: 9_000, steady };
    assert_eq!(boot([draw(480_000, 300_000), draw(320_000, 200_000)], 500_000), 800_000);
    // One was learned as it carried the host alone.
    assert_eq!(boot([draw(800_000, 500_000), draw(320_000, 200_000)], 600_000), 960_000);
    // Learned while there was little to do.
    assert_eq!(boot([draw(480_000, 60_000), draw(320_000, 50_000)], 500_000), 800_000);
}

#[test]
fn what_a_host_drew_is_remembered_with_each_off_and_never_twice() {
    let mut rack = rack(9_000_000, true, true);
    let feeds = vec![outlet(3), other()];
    let remembers = |rack: &mut Rack, of: OutletId| {
        rack.sees(|runs, sight| {
            runs.remember_load(&of, sight);
            Vec::new()
        });
        let memory = &rack.runs.memory;
        (memory.whole[&feeds], memory.drew.clone())
    };
    // What was remembered before is no more than what is drawn now.
    rack.runs.memory.drew = [(other(), 900_000)].into();
    rack.runs.memory.whole.insert(feeds.clone(), 1_900_000);
    let both = BTreeMap::from([(outlet(3), 500_000), (other(), 500_000)]);
    assert_eq!(remembers(&mut rack, outlet(3)), (1_000_000, both.clone()));
    // The other one goes off a moment later: its meter shows its own part yet.
    rack.on[2] = false;
    let sent = Tick(rack.now - 1_000);
    let off =
        Written { relay: Relay::Off, sent, seen: Some(sent), acknowledged: true, takes: Span(0) };
    rack.runs.memory.written.insert(outlet(3), off);
    assert_eq!(remembers(&mut rack, other()), (1_000_000, both.clone()));
    // Much later that is all that the host draws.
    rack.now += 60_000;
    assert_eq!(remembers(&mut rack, other()), (500_000, both));
    rack.beside_on = false;
    assert_eq!(steady(&mut rack), (500_000, 500_000));
}
