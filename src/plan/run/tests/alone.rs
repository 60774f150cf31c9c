//! Hosts with several feeds of which the site does not say what they draw. Each outlet draws 500 W as its meter shows it.

use super::*;
use crate::plan::{Draw, Goal, Picture, Refusal, Want, plan as planned};

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
    for (keeps_host, taken) in [(false, 1_250_000), (true, 625_000)] {
        let mut rack = rack(9_000_000, true, true);
        let mut record = plan("one", &[(3, Relay::Off), (3, Relay::On)]);
        record.steps[0].keeps_host = keeps_host;
        rack.sees(|runs, sight| {
            let mut picture = Picture::of(sight, &runs.memory, None);
            let load = |picture: &Picture| {
                picture.world.limits.iter().find(|limit| limit.name == "feed").unwrap().load
            };
            let before = load(&picture);
            picture.reserve(&record, &[]);
            assert_eq!(load(&picture) - before, taken, "keeps its host: {keeps_host}");
            Vec::new()
        });
    }
}

#[test]
fn what_is_known_of_the_feeds_of_a_host_is_counted_once() {
    // Both are on: each its part.
    assert_eq!(steady(&mut rack(9_000_000, true, true)), (500_000, 500_000));
    // What the one that is off drew, the other draws by now.
    let mut one = rack(9_000_000, true, false);
    one.runs.memory.drew = [(other(), 400_000)].into();
    assert_eq!(steady(&mut one), (500_000, 400_000));
    // One that came on a moment ago shows nothing yet of what both drew.
    let sent = Tick(one.now - 1_000);
    let written =
        Written { relay: Relay::On, sent, seen: Some(sent), acknowledged: true, takes: Span(0) };
    one.runs.memory.written.insert(outlet(3), written);
    one.runs.memory.drew.insert(outlet(3), 600_000);
    assert_eq!(steady(&mut one), (1_000_000, 400_000));
    // Of one that nothing is known of: no less than the declared default, which is of a load.
    let mut half = rack(9_000_000, false, false);
    half.runs.memory.drew = [(other(), 300_000)].into();
    assert_eq!(steady(&mut half), (400_000, 400_000));
    half.runs.memory.drew = [(other(), 450_000)].into();
    assert_eq!(steady(&mut half), (450_000, 450_000));
    assert_eq!(steady(&mut rack(9_000_000, false, false)), (400_000, 400_000));
    // Earlier starts tell it as well.
    let mut learned = rack(9_000_000, false, false);
    let draw = Draw { inrush: 0, inrush_ms: 100, boot: 700_000, boot_ms: 9_000, steady: 300_000 };
    learned.runs.memory.learned = [(outlet(3), draw), (other(), draw)].into();
    assert_eq!(steady(&mut learned), (600_000, 600_000));
    // What the site says is of a host that hangs on one feed.
    let mut said = rack(9_000_000, false, false);
    let mut host = HostSpec::fed_by("some", vec![outlet(3), other()]);
    host.draw = Some(Draw { steady: 450_000, ..draw });
    said.site.hosts.insert("h1".parse().unwrap(), host);
    said.runs.memory.drew = [(outlet(3), 500_000), (other(), 500_000)].into();
    assert_eq!(steady(&mut said), (450_000, 450_000));
}

#[test]
fn what_a_host_drew_is_remembered_feed_by_feed_and_never_twice() {
    let mut rack = rack(9_000_000, true, true);
    let remembers = |rack: &mut Rack, of: OutletId| {
        rack.sees(|runs, sight| {
            runs.remember_load(&of, sight);
            Vec::new()
        });
        rack.runs.memory.drew.clone()
    };
    // What the other drew before is no more than it draws now.
    rack.runs.memory.drew = [(other(), 900_000)].into();
    let both = [(outlet(3), 500_000), (other(), 500_000)].into();
    assert_eq!(remembers(&mut rack, outlet(3)), both);
    // The other one, while its meter shows its own part yet, and no more than all that the host draws.
    rack.on[2] = false;
    assert_eq!(remembers(&mut rack, other()), both);
    rack.runs.memory.drew = [(outlet(3), 150_000)].into();
    let whole = [(outlet(3), 150_000), (other(), 350_000)].into();
    assert_eq!(remembers(&mut rack, other()), whole);
    rack.beside_on = false;
    assert_eq!(steady(&mut rack), (500_000, 500_000));
}
