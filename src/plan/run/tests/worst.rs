//! What may turn out worse than it is said: first moments that meet, and loads that are more than the site says.

use super::super::super::site::OutletSpec;
use super::*;

/// The meters of the inlet and of the outlet were read before it came on.
#[test]
fn what_came_on_a_moment_ago_counts_where_no_meter_shows_it_yet() {
    let part = |id: &str| Part { number: 1, id: id.into(), switchable: true, ..Part::default() };
    let (read, now) = (Stamp(90_000), 100_000);
    for (outlet_at, outlet_shows, hidden) in
        [(read, 0, 600_000), (Stamp(99_500), 3_000_000, 0), (Stamp(99_500), 200_000, 400_000)]
    {
        let slots = [
            (Scope::Inlet, Metric::Rating, Datum::Value(10_000), read),
            (Scope::Inlet, Metric::ApparentPower, Datum::Value(1_000_000), read),
            (Scope::Outlet, Metric::State, Datum::Word(Word::On), Stamp(99_500)),
            (Scope::Outlet, Metric::ApparentPower, Datum::Value(outlet_shows), outlet_at),
        ];
        let slot = |scope, metric| Slot { scope, part: 0, metric };
        let layout = Layout::new(
            [vec![part("I1")], vec![], vec![], vec![part("1")], vec![]],
            slots.iter().map(|(scope, metric, ..)| slot(*scope, *metric)).collect(),
        );
        let mut readings = vec![None; slots.len()];
        for (scope, metric, datum, at) in slots {
            readings[layout.place(slot(scope, metric)).unwrap()] = Some(Reading { datum, at });
        }
        let readings: Vec<Reading> = readings.into_iter().flatten().collect();
        let view = PduView {
            health: Health::Online,
            layout,
            readings: readings.into(),
            observed: Some(Tick(90_000)),
            observed_at: Some(read),
            complete: Some(Tick(90_000)),
            ..PduView::unknown("pdu-a".parse().unwrap(), "pdu-a".into(), None)
        };
        let mut site = Site::default();
        site.hosts.insert("host".parse().unwrap(), drawing(1, 600_000, 30_000, 300_000));
        let (views, locks) = ([Arc::new(view)], BTreeMap::new());
        let sight = Sight {
            now: Tick(now),
            stamp: Stamp(100_000),
            views: &views,
            site: &site,
            locks: &locks,
        };
        let mut memory = Memory::default();
        let written = Written {
            relay: Relay::On,
            sent: Tick(99_000),
            seen: Some(Tick(99_200)),
            acknowledged: true,
            takes: Span::seconds(1),
        };
        memory.written.insert(outlet(1), written);
        let picture = Picture::of(&sight, &memory, None);
        let inlet = picture.world.limits.iter().position(|limit| limit.name == "pdu-a/I1").unwrap();
        let loads = (picture.shown[inlet], picture.world.limits[inlet].load);
        assert_eq!(loads, (1_000_000, 1_000_000 + hidden), "{outlet_shows}");
        // Not what it drew in its first moment.
        assert!(picture.world.outlets[0].load <= 600_000, "{outlet_shows}");
    }
}

/// What is said of a host is what each of its feeds draws alone: together they draw it once.
#[test]
fn a_host_on_two_outlets_without_a_meter_is_cycled_where_there_is_room_for_it_once() {
    let mut site = heavy(Site::default(), &["pdu-a"], 1_400_000);
    let mut two = drawing(1, 500_000, 1_000, 500_000);
    two.outlets.push(outlet(2));
    site.hosts.insert("two".parse().unwrap(), two);
    let mut rack = Rack::new(site, [true; 3]);
    rack.unmetered = vec![1, 2];
    let steps = [(1, Relay::Off), (2, Relay::Off), (1, Relay::On), (2, Relay::On)];
    rack.begins(plan("one", &steps));
    rack.passes(200);
    assert_eq!(rack.written.len(), 4, "{:?}", rack.ended);
}

/// What is behind an outlet shows only once it is on.
#[test]
fn first_moments_do_not_meet_that_would_be_too_much_if_the_outlets_were_cabled_otherwise() {
    let heavy_inrush = 5_000_000;
    for (inrush, seen_before, at_once) in
        [(heavy_inrush, false, false), (heavy_inrush, true, true), (800_000, false, true)]
    {
        let mut site = heavy(Site::default(), &["pdu-a"], 2_000_000);
        let mut heavy = drawing(3, 800_000, 1_000, 800_000);
        heavy.draw = heavy.draw.map(|draw| Draw { inrush, ..draw });
        site.hosts.insert("heavy".parse().unwrap(), heavy);
        for number in 1..=2 {
            let id = format!("light-{number}").parse().unwrap();
            site.hosts.insert(id, drawing(number, 500_000, 1_000, 500_000));
        }
        let mut rack = Rack::new(site, [false; 3]);
        if seen_before {
            rack.runs.memory.starts = (1..=2).map(|number| (outlet(number), 1)).collect();
        }
        rack.begins(plan("one", &[(1, Relay::On), (2, Relay::On)]));
        assert_eq!(rack.written.len(), if at_once { 2 } else { 1 }, "{inrush} {seen_before}");
        rack.passes(10);
        assert_eq!(rack.written, ["pdu-a/1 on", "pdu-a/2 on"]);
    }
}

/// What is granted to one plan surges beside what is granted to another.
#[test]
fn first_moments_of_two_plans_do_not_meet_either() {
    for (inrush, at_once) in [(4_000_000, false), (2_000_000, true)] {
        let mut site = heavy(Site::default(), &["pdu-a", "pdu-b"], 2_000_000);
        let mut heavy = drawing(3, 800_000, 1_000, 800_000);
        heavy.draw = heavy.draw.map(|draw| Draw { inrush: 5_000_000, ..draw });
        site.hosts.insert("heavy".parse().unwrap(), heavy);
        site.hosts.insert("light".parse().unwrap(), drawing(1, 500_000, 1_000, 500_000));
        let other = OutletId { pdu: "pdu-b".parse().unwrap(), number: 1 };
        let mut beside = drawing(1, 500_000, 1_000, 500_000);
        beside.draw = beside.draw.map(|draw| Draw { inrush, ..draw });
        beside.outlets = vec![other.clone()];
        site.hosts.insert("beside".parse().unwrap(), beside);
        let mut rack = Rack::new(site, [false; 3]);
        (rack.beside, rack.beside_on) = (Some((Health::Online, 0)), false);
        rack.hangs = Some(Vec::new());
        rack.begins(plan("one", &[(1, Relay::On)]));
        let mut two = plan("two", &[(1, Relay::On)]);
        two.steps[0].outlet = other;
        rack.begins(two);
        let granted = rack.hangs.as_ref().unwrap().len();
        assert_eq!(granted, if at_once { 2 } else { 1 }, "{inrush}");
        rack.journal_goes_on(true);
        rack.passes(20);
        assert_eq!(rack.written, ["pdu-a/1 on", "pdu-b/1 on"]);
    }
}

/// No more than was seen, in proportion: a lamp of which too little is said says little of a server.
#[test]
fn where_what_is_on_draws_more_than_was_said_that_is_expected_of_what_comes_on_as_well() {
    for (said, rating, comes_on) in [
        (500_000, 1_500_000, true),
        // 500 of 200 VA: 300 more are seen, of what comes on no more than 300 are expected beside its 800.
        (200_000, 1_590_000, false),
        (200_000, 1_610_000, true),
        // 500 of 400 VA: 800 VA may be 1000, if all that is seen is 100 more, 900.
        (400_000, 1_390_000, false),
        (400_000, 1_410_000, true),
    ] {
        let mut site = heavy(Site::default(), &["pdu-a"], rating);
        site.hosts.insert("first".parse().unwrap(), drawing(1, said, 1_000, said));
        let mut rack = Rack::new(site, [true, false, false]);
        rack.begins(plan("one", &[(3, Relay::On)]));
        rack.passes(70);
        assert_eq!(rack.written.len(), usize::from(comes_on), "{said} {rating}");
        if !comes_on {
            let detail = rack.ended[0].steps[0].detail.clone().unwrap();
            let percent = format!("draws {} %", 50_000_000 / said);
            assert!(detail.contains(&percent), "{detail}");
        }
    }
    // What comes on is less than what is seen: twice of it, no more.
    for (rating, comes_on) in [(690_000, false), (710_000, true)] {
        let mut site = heavy(Site::default(), &["pdu-a"], rating);
        site.hosts.insert("first".parse().unwrap(), drawing(1, 250_000, 1_000, 250_000));
        site.hosts.insert("heavy".parse().unwrap(), drawing(3, 100_000, 1_000, 100_000));
        let mut rack = Rack::new(site, [true, false, false]);
        rack.begins(plan("one", &[(3, Relay::On)]));
        rack.passes(70);
        assert_eq!(rack.written.len(), usize::from(comes_on), "{rating}");
    }
}

/// What is said of a feed is what it draws if it carries its host alone.
#[test]
fn what_the_feeds_of_a_host_draw_together_is_compared_with_what_is_said_of_one() {
    for (by_outlet, said, comes_on) in [
        (false, 1_000_000, true),
        (false, 700_000, false),
        (true, 1_000_000, true),
        (true, 700_000, false),
    ] {
        let mut site = heavy(Site::default(), &["pdu-a"], 2_000_000);
        let mut two = drawing(1, said, 1_000, said);
        two.outlets.push(outlet(2));
        for number in (1..=2).filter(|_| by_outlet) {
            let spec = OutletSpec { draw: two.draw, ..OutletSpec::default() };
            site.outlets.insert(outlet(number), spec);
        }
        site.hosts.insert("two".parse().unwrap(), two);
        let mut rack = Rack::new(site, [true, true, false]);
        rack.begins(plan("one", &[(3, Relay::On)]));
        rack.passes(70);
        assert_eq!(rack.written.len(), usize::from(comes_on), "{by_outlet} {said}");
    }
}

/// A host may draw more than is said of it, as others do, and would stay dark.
#[test]
fn a_host_is_not_cut_for_a_cycle_that_might_not_come_on_again() {
    for (unmetered, rating, is_cycled) in [
        (None, 1_590_000, false),
        (None, 1_610_000, true),
        (Some(3), 1_590_000, false),
        (Some(3), 1_610_000, true),
    ] {
        let mut site = heavy(Site::default(), &["pdu-a"], rating);
        site.hosts.insert("first".parse().unwrap(), drawing(1, 200_000, 1_000, 200_000));
        let mut rack = Rack::new(site, [true, false, true]);
        rack.unmetered = unmetered.into_iter().collect();
        rack.begins(plan("one", &[(3, Relay::Off), (3, Relay::On)]));
        rack.passes(70);
        assert_eq!(rack.written.len(), if is_cycled { 2 } else { 0 }, "{unmetered:?} {rating}");
        if !is_cycled {
            let detail = rack.ended[0].steps[0].detail.clone().unwrap();
            assert!(detail.contains("draws 250 %"), "{detail}");
        }
    }
}

/// A host of two feeds: 1000 VA, where 600 are said.
#[test]
fn a_host_is_cut_for_a_cycle_only_where_there_is_room_for_what_it_draws_now() {
    for (keeps_host, rating, is_cycled) in
        [(false, 1_490_000, false), (false, 1_510_000, true), (true, 1_490_000, true)]
    {
        let mut site = heavy(Site::default(), &["pdu-a"], rating);
        let mut two = drawing(1, 600_000, 1_000, 600_000);
        two.outlets.push(outlet(2));
        site.hosts.insert("two".parse().unwrap(), two);
        let mut rack = Rack::new(site, [true; 3]);
        let mut cycle = plan("one", &[(1, Relay::Off), (1, Relay::On)]);
        cycle.steps[0].keeps_host = keeps_host;
        rack.begins(cycle);
        rack.passes(70);
        assert_eq!(rack.written.len(), if is_cycled { 2 } else { 0 }, "{keeps_host} {rating}");
    }
}

#[test]
fn what_drew_more_than_is_said_of_it_is_expected_to_do_so_again_for_an_hour() {
    for (rating, comes_on, later) in
        [(990_000, false, false), (1_010_000, true, false), (990_000, true, true)]
    {
        // Two feeds, of which the other was seen to draw more.
        let mut site = heavy(Site::default(), &["pdu-a"], rating);
        let mut two = drawing(1, 200_000, 1_000, 200_000);
        two.outlets.push(outlet(2));
        site.hosts.insert("two".parse().unwrap(), two);
        let mut rack = Rack::new(site, [false, true, true]);
        rack.begins(plan("one", &[(2, Relay::Off)]));
        rack.passes(if later { 3_700 } else { 10 });
        rack.begins(plan("two", &[(1, Relay::On)]));
        rack.passes(70);
        assert_eq!(rack.written.len(), if comes_on { 2 } else { 1 }, "{rating} {later}");
        if !comes_on {
            let detail = rack.ended[1].steps[0].detail.clone().unwrap();
            assert!(detail.contains("feeds drew 500 VA before"), "{detail}");
        }
    }
}
