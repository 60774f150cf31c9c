//! The limits of a rack as `GET /v1/limits` tells them: phases, wye and delta, amperes, limits above limits, and what
//! each side of an A/B pair has to carry alone.

use pmgate::sim::families::Family;
use serde_json::{Value, json};

use pmgate::model::switching::Relay;

use crate::planned::{FEEDS, relay, two_pdus};
use crate::rig::{Curl, Gateway, Sim, pdu_section};

fn limits(curl: &Curl<'_>) -> Vec<Value> {
    curl.get("/v1/limits")["limits"].as_array().unwrap().clone()
}

fn limit(curl: &Curl<'_>, id: &str) -> Value {
    let all = limits(curl);
    let found = all.iter().find(|limit| limit["id"] == id).cloned();
    let names: Vec<&str> = all.iter().map(|limit| limit["id"].as_str().unwrap()).collect();
    found.unwrap_or_else(|| panic!("no {id} among {names:?}"))
}

fn number(body: &Value, key: &str) -> f64 {
    body[key].as_f64().unwrap_or_else(|| panic!("no {key} in {body}"))
}

fn close(one: f64, other: f64, within: f64) -> bool {
    (one - other).abs() <= within * one.abs().max(other.abs())
}

/// A three-phase PDU whose first outlets are wired between two lines, to three, and to one; what each phase is rated.
async fn wired(l2: i64) -> (Sim, Gateway) {
    let sim = Sim::start(Family::ApcRpdu2, 8).await;
    let ratings =
        format!("write_gap_ms = 0\nfast_s = 1\nratings_a = {{ L1 = 24, L2 = {l2}, L3 = 24 }}");
    let outlet = |n: u16, phases: &str| {
        format!(
            "[[outlet]]\nid = \"pdu-a/{n}\"\nphases = [{phases}]\ndraw = {{ steady_w = 1000, boot_s = 1 }}\n"
        )
    };
    let sections = pdu_section("pdu-a", sim.address, &ratings)
        + &outlet(1, "\"L1\", \"L2\"")
        + &outlet(2, "\"L1\", \"L2\", \"L3\"")
        + &outlet(3, "\"L3\"");
    let gateway = tokio::task::spawn_blocking(move || {
        let gateway = Gateway::start(&sections);
        gateway.wait_online("pdu-a");
        gateway
    });
    (sim, gateway.await.unwrap())
}

/// What an on adds to each limit above an outlet at its worst, while nothing that flows moves.
fn adds(curl: &Curl<'_>, outlet: &str) -> Vec<(String, f64)> {
    let wish =
        json!({"goals": [{"select": {"outlets": [outlet]}, "action": "on"}], "dry_run": true});
    let flows = |curl: &Curl<'_>| -> Vec<(String, f64)> {
        let _read_anew = curl.get("/v1/pdus/pdu-a?max_age_ms=0");
        let named = |l: &Value| (l["id"].as_str().unwrap().to_owned(), number(l, "load_w"));
        limits(curl).iter().map(named).collect()
    };
    for _ in 0..50 {
        let before = flows(curl);
        let answer = curl.post("/v1/plans", &wish.to_string(), &[]);
        assert_eq!(answer.status, 200, "{answer:?}");
        if flows(curl) != before {
            continue;
        }
        let line = |line: &Value| {
            let loads: Vec<f64> =
                line["points"].as_array().unwrap().iter().map(|p| number(p, "load_w")).collect();
            let most = loads.iter().copied().fold(0.0, f64::max);
            assert!(most <= number(line, "peak_w"), "{line}");
            let (id, load) = before.iter().find(|(id, _)| line["limit"] == id.as_str()).unwrap();
            (id.clone(), most - load)
        };
        return answer.json()["timeline"].as_array().unwrap().iter().map(line).collect();
    }
    panic!("what flows through pdu-a was never the same before and after a plan was made");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wired_between_lines_loads_both_and_what_is_on_three_loads_all() {
    let (_sim, gateway) = wired(24).await;
    let curl = gateway.curl();
    let pdu = curl.get("/v1/pdus/pdu-a?max_age_ms=0");
    for (at, id) in ["pdu-a/L1", "pdu-a/L2", "pdu-a/L3"].iter().enumerate() {
        let line = limit(&curl, id);
        assert_eq!((&line["kind"], &line["rating_a"]), (&"phase".into(), &json!(24.0)), "{line}");
        assert_eq!((&line["phases"], &line["derating_percent"]), (&json!(1), &json!(80)));
        let volts = number(&line, "voltage_v");
        assert!((225.0..240.0).contains(&volts), "to neutral: {line}");
        assert!(close(number(&line, "rating_w"), 24.0 * volts, 0.001), "{line}");
        assert!(close(number(&line, "budget_w"), 19.2 * volts, 0.001), "{line}");
        assert!(
            close(number(&line, "load_a"), number(&pdu["phases"][at], "current_a"), 0.1),
            "{line} {pdu}"
        );
        assert!(line["why"].as_str().unwrap().contains("the site configures a rating of 24 A"));
    }
    let inlet = limits(&curl).into_iter().find(|limit| limit["kind"] == "inlet").unwrap();
    assert_eq!((&inlet["phases"], &inlet["rating_a"]), (&json!(3), &json!(32.0)), "{inlet}");
    let volts = number(&inlet, "voltage_v");
    assert!(close(number(&inlet, "rating_w"), 3.0 * 32.0 * volts, 0.001), "{inlet}");
    let branch = limit(&curl, "pdu-a/B1");
    assert_eq!(
        (&branch["kind"], &branch["rating_a"]),
        (&"branch".into(), &json!(16.0)),
        "{branch}"
    );
    for outlet in ["pdu-a/1", "pdu-a/2", "pdu-a/3"] {
        assert_eq!(curl.power(outlet, "off").status, 200);
    }
    let added = |outlet: &str, limit: &str| {
        adds(&curl, outlet).into_iter().find(|(of, _)| of == limit).map(|(_, most)| most.round())
    };
    // Between two lines: 1 / √3 through each. On three: a third through each. On one: all of it.
    for (outlet, lines) in [
        ("pdu-a/1", [Some(578.0), Some(578.0), None]),
        ("pdu-a/2", [Some(334.0), Some(334.0), Some(334.0)]),
        ("pdu-a/3", [None, None, Some(1000.0)]),
    ] {
        let on = ["pdu-a/L1", "pdu-a/L2", "pdu-a/L3"].map(|line| added(outlet, line));
        assert_eq!(on, lines, "{outlet}");
        assert_eq!(added(outlet, inlet["id"].as_str().unwrap()), Some(1000.0), "{outlet}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_line_refuses_what_is_wired_between_it_and_another() {
    // What flows through L2 is known once it is read: outlets 4 to 6.
    let load = {
        let (_sim, gateway) = wired(24).await;
        number(&limit(&gateway.curl(), "pdu-a/L2"), "load_w")
    };
    // Room for a third of 1000 W, not for 1 / √3 of it.
    let amperes = ((load + 360.0) / (231.0 * 0.8)).ceil() as i64;
    let (_sim, gateway) = wired(amperes).await;
    let curl = gateway.curl();
    for outlet in ["pdu-a/1", "pdu-a/2"] {
        assert_eq!(curl.power(outlet, "off").status, 200);
    }
    let on = |outlet: &str| {
        let wish =
            json!({"goals": [{"select": {"outlets": [outlet]}, "action": "on"}], "dry_run": true});
        curl.post("/v1/plans", &wish.to_string(), &[])
    };
    assert_eq!(on("pdu-a/2").status, 200, "{:?}", on("pdu-a/2"));
    let refused = on("pdu-a/1");
    let body = refused.json();
    assert_eq!((refused.status, &body["limit"]), (409, &"pdu-a/L2".into()), "{refused:?}");
    assert_eq!(body["needs_w"], 578, "{body}");
    assert_eq!(body["leave_out"], json!(["pdu-a/1"]), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_rated_in_amperes_is_told_in_both() {
    let busway = "[[limit]]\nid = \"busway\"\nkind = \"busway\"\nrating_a = 63\nvolts = 230\nphases = 3\nderate_percent = 50\nof = [\"pdu-a\", \"pdu-b\"]\n[[limit]]\nid = \"spur\"\nrating_a = 16\nof = [\"pdu-a/B1\"]\n[[limit]]\nid = \"other\"\nrating_a = 16\nof = [\"pdu-b/B1\"]\n";
    let (_a, _b, gateway) = two_pdus(busway).await;
    let curl = gateway.curl();
    let limit_of = |id| limit(&curl, id);
    let busway = limit_of("busway");
    assert_eq!(busway["kind"], "busway");
    assert_eq!((number(&busway, "rating_w"), number(&busway, "rating_a")), (43_470.0, 63.0));
    assert_eq!((number(&busway, "voltage_v"), number(&busway, "phases")), (230.0, 3.0));
    assert!((number(&busway, "budget_w") - 21_735.0).abs() < 0.5, "{busway}");
    let load = number(&busway, "load_w");
    assert!(load > 3_000.0, "{busway}");
    assert!(close(number(&busway, "load_a"), load / 690.0, 0.001), "{busway}");
    let left = number(&busway, "headroom_w");
    assert!(close(left, 21_735.0 - load, 0.001), "{busway}");
    assert!(close(number(&busway, "headroom_a"), left / 690.0, 0.001), "{busway}");
    assert!(busway["why"].as_str().unwrap().contains("63 A at 230 V on 3 phases"), "{busway}");
    let spur = limit_of("spur");
    assert_eq!((number(&spur, "rating_w"), number(&spur, "phases")), (3_680.0, 1.0), "{spur}");
    let outlets = curl.get("/v1/pdus/pdu-a/outlets?max_age_ms=0");
    // Nobody tells the branches of pdu-b's outlets; its meter knows what flows there all the same.
    let other = limit_of("other");
    let own = limit_of("pdu-b/B1");
    assert!(close(number(&other, "load_w"), number(&own, "load_w"), 0.1), "{other} {own}");
    let all = number(&limit_of("pdu-b/I1"), "load_w");
    assert!(number(&other, "load_w") < all * 0.7, "{other} {all}");
    let on_b1: f64 = (0..3).map(|at| number(&outlets["outlets"][at], "power_w")).sum();
    assert!(close(number(&spur, "load_w"), on_b1 / 0.95, 0.1), "{spur} {on_b1}");
}

const NESTED: &str = "[[limit]]\nid = \"row-1\"\nrating_w = 20000\nof = [\"pdu-a\"]\n[[limit]]\nid = \"row-2\"\nrating_w = 20000\nof = [\"pdu-b\"]\n[[limit]]\nid = \"room\"\nkind = \"room\"\nrating_w = 30000\nof = [\"limit:row-1\", \"limit:row-2\", \"limit:again\"]\n[[limit]]\nid = \"again\"\nrating_w = 30000\nof = [\"limit:row-1\"]\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_above_limits_carries_what_they_do_once_and_refuses_for_them() {
    let (_a, _b, gateway) = two_pdus(NESTED).await;
    let curl = gateway.curl();
    let load = |id: &str| number(&limit(&curl, id), "load_w");
    let (one, two, room) = (load("row-1"), load("row-2"), load("room"));
    assert!(one > 1_000.0 && two > 1_000.0);
    assert!(close(room, one + two, 0.02), "{room} of {one} and {two}");
    assert!(close(load("again"), one, 0.02));
    assert_eq!(limit(&curl, "room")["kind"], "room");
    assert_eq!(curl.power("pdu-b/7", "off").status, 200);
    curl.get("/v1/pdus/pdu-b?max_age_ms=0");
    // The room is full, its rows are not.
    let rating = ((load("room") + 100.0) / 0.8) as i64;
    let path = gateway.dir.path().join("gateway.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let small = text.replacen("rating_w = 30000", &format!("rating_w = {rating}"), 1);
    std::fs::write(&path, small).unwrap();
    gateway.running.signal("HUP");
    gateway.wait_for("/v1/limits", |body| {
        let all = body["limits"].as_array().unwrap();
        all.iter().any(|limit| limit["id"] == "room" && limit["rating_w"] == json!(rating as f64))
    });
    let refused = curl.power("pdu-b/7", "on");
    assert_eq!((refused.status, &refused.json()["limit"]), (409, &"room".into()), "{refused:?}");
    // A circle is a fault.
    let circle = text.replace("of = [\"limit:row-1\"]", "of = [\"limit:room\"]");
    std::fs::write(&path, circle).unwrap();
    let (out, err, code) = crate::rig::pmgate(&["config", "check", path.to_str().unwrap()], &[]);
    assert!(code == 1 && (out + &err).contains("which stands above it"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_side_of_a_pair_has_to_carry_what_the_other_leaves_behind() {
    let tail = "[[limit]]\nid = \"tail\"\nrating_w = 9000\nof = [\"pdu-b/1\", \"pdu-b/2\"]\n";
    let (_a, _b, gateway) = two_pdus(&format!("{FEEDS}{tail}")).await;
    let curl = gateway.curl();
    let draws = |pdu: &str, outlets: std::ops::RangeInclusive<usize>| -> f64 {
        let body = curl.get(&format!("/v1/pdus/{pdu}/outlets?max_age_ms=0"));
        // Volt-amperes, at the power factor of these loads.
        outlets.map(|n| number(&body["outlets"][n - 1], "power_w") / 0.965).sum()
    };
    let all = limits(&curl);
    let load = |id: &str| number(all.iter().find(|limit| limit["id"] == id).unwrap(), "load_w");
    let pair = all.iter().find(|limit| limit["kind"] == "pair").unwrap();
    assert_eq!(
        (&pair["rating_w"], &pair["budget_w"]),
        (&json!(20000.0), &json!(20000.0)),
        "{pair}"
    );
    assert!(close(number(pair, "load_w"), load("feed-a") + load("feed-b"), 0.05), "{pair}");
    let failover = limit(&curl, "feed-b if feed-a dies");
    assert_eq!(
        (&failover["kind"], &failover["derating_percent"]),
        (&"failover".into(), &json!(100))
    );
    // The hosts on outlets 1 to 4 have a feed on both sides; the rest dies with its side.
    let moved = draws("pdu-a", 1..=4);
    assert!(close(number(&failover, "load_w"), load("feed-b") + moved, 0.05), "{failover} {moved}");
    let below = limit(&curl, "tail if feed-a dies");
    assert!(close(number(&below, "load_w"), load("tail") + draws("pdu-a", 1..=2), 0.05), "{below}");
    // The tail has room for what flows through it, and not for what would come when the other side dies.
    assert_eq!(curl.power("pdu-a/1", "off").status, 200);
    curl.get("/v1/pdus/pdu-a?max_age_ms=0");
    let rating = (number(&limit(&curl, "tail if feed-a dies"), "load_w") + 100.0) as i64;
    let path = gateway.dir.path().join("gateway.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("rating_w = 9000", &format!("rating_w = {rating}")))
        .unwrap();
    gateway.running.signal("HUP");
    gateway.wait_for("/v1/limits", |body| {
        let all = body["limits"].as_array().unwrap();
        all.iter().any(|limit| limit["id"] == "tail" && limit["rating_w"] == json!(rating as f64))
    });
    let tail = limit(&curl, "tail");
    assert!(number(&tail, "load_w") < number(&tail, "budget_w"), "{tail}");
    let refused = curl.power("pdu-a/1", "on");
    assert_eq!(
        (refused.status, &refused.json()["limit"]),
        (409, &"tail if feed-a dies".into()),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeline_shows_the_first_moment_of_each_load_within_its_peak() {
    let feed =
        "inrush_percent = 150\n[[limit]]\nid = \"feed\"\nrating_w = 20000\nof = [\"pdu-a\"]\n";
    let (_a, _b, gateway) = two_pdus(feed).await;
    let curl = gateway.curl();
    let off = curl.post("/v1/hosts/web-1/power", r#"{"action":"off"}"#, &[]);
    assert_eq!(off.status, 200, "{off:?}");
    curl.get("/v1/pdus/pdu-a?max_age_ms=0");
    let wish =
        json!({"goals": [{"select": {"hosts": ["web-1"]}, "action": "on"}], "dry_run": true});
    let plan = curl.post("/v1/plans", &wish.to_string(), &[]).json();
    let lines = plan["timeline"].as_array().unwrap();
    let feed = lines.iter().find(|line| line["limit"] == "feed").unwrap();
    assert_eq!((number(feed, "budget_w"), number(feed, "peak_w")), (16_000.0, 30_000.0), "{feed}");
    let points: Vec<(f64, f64)> = feed["points"]
        .as_array()
        .unwrap()
        .iter()
        .map(|point| (number(point, "at_ms"), number(point, "load_w")))
        .collect();
    assert!(points.is_sorted_by(|one, other| one.0 < other.0), "{feed}");
    let first = number(&limit(&curl, "feed"), "load_w");
    let most = points.iter().map(|point| point.1).fold(0.0, f64::max);
    // 400 W in the first moment, 250 W while it starts up, then 200 W.
    assert!(close(most - first, 400.0, 0.01), "{feed}");
    assert!(points.iter().any(|point| close(point.1 - first, 250.0, 0.01)), "{feed}");
    assert!(close(points.last().unwrap().1 - first, 200.0, 0.01), "{feed}");
    assert_eq!(plan["loses_redundancy"], json!([]));
    let cut =
        json!({"goals": [{"select": {"outlets": ["pdu-a/2"]}, "action": "off"}], "dry_run": true});
    let plan = curl.post("/v1/plans", &cut.to_string(), &[]).json();
    assert_eq!(plan["loses_redundancy"], json!(["web-2"]), "{plan}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_outlives_a_voltage_that_moves_and_not_a_rating_that_changes() {
    // What a breaker may carry in watts goes with the voltage; plans were refused for that.
    let (_a, _b, gateway) = two_pdus("").await;
    let curl = gateway.curl();
    let wish =
        |outlet: &str| json!({"goals": [{"select": {"outlets": [outlet]}, "action": "off"}]});
    let [first, second] = ["pdu-b/7", "pdu-b/8"].map(|outlet| {
        let made = curl.post("/v1/plans", &wish(outlet).to_string(), &[]);
        assert_eq!(made.status, 201, "{made:?}");
        made.json()
    });
    let budgets = |body: &Value| -> Vec<f64> {
        let own = body["limits"].as_array().unwrap().iter();
        own.filter(|l| l["id"].as_str().unwrap().starts_with("pdu-b/"))
            .map(|l| number(l, "budget_w").floor())
            .collect()
    };
    let before = budgets(&curl.get("/v1/limits"));
    gateway.wait_for("/v1/limits", |body| budgets(body) != before);
    let begun = crate::planned::run(&curl, &first);
    assert_eq!(begun.status, 202, "{begun:?}");
    assert_eq!(crate::planned::ended(&gateway, &first)["state"], "done");
    let path = gateway.dir.path().join("gateway.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let limited = text.replace("hold_s = 1\n", "hold_s = 1\nderate_percent = 70\n");
    std::fs::write(&path, limited).unwrap();
    gateway.running.signal("HUP");
    gateway.wait_for("/v1/limits", |body| body["limits"][0]["derating_percent"] == 70);
    let refused = crate::planned::run(&curl, &second);
    assert_eq!(refused.status, 409, "{refused:?}");
    let detail = refused.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("allowed 12.8 A and allows 11.2 A"), "{detail}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_above_one_side_and_more_has_to_carry_what_the_other_leaves_behind() {
    let feeds = "[[limit]]\nid = \"feed-a\"\nrating_w = 20000\nof = [\"pdu-a/1\", \"pdu-a/2\"]\npair = \"feed-b\"\n\
        [[limit]]\nid = \"feed-b\"\nrating_w = 20000\nof = [\"pdu-b/1\", \"pdu-b/2\"]\npair = \"feed-a\"\n\
        [[limit]]\nid = \"up\"\nrating_w = 20000\nof = [\"limit:feed-a\", \"pdu-a/8\"]\n\
        [[limit]]\nid = \"room\"\nrating_w = 40000\nof = [\"limit:up\", \"limit:feed-b\"]\n";
    let (_a, _b, gateway) = two_pdus(feeds).await;
    let curl = gateway.curl();
    let all = limits(&curl);
    let load = |id: &str| number(all.iter().find(|limit| limit["id"] == id).unwrap(), "load_w");
    let failover = load("up if feed-b dies");
    assert!(close(failover, load("up") + load("feed-b"), 0.05), "{all:?}");
    // What moves within the room is there already.
    assert!(!all.iter().any(|limit| limit["id"] == "room if feed-b dies"), "{all:?}");
}

/// It would be left dark: the planner would count as free what the meter goes on to show.
#[tokio::test(flavor = "multi_thread")]
async fn an_off_of_which_nobody_knows_the_phase_frees_none_also_for_when_the_other_side_dies() {
    let (_a, _b, gateway) = two_pdus(FEEDS).await;
    let curl = gateway.curl();
    // Of all but one outlet the phase is told by nobody.
    crate::approved::reload(&gateway, |text| {
        let rated = "fast_s = 1\nratings_a = { L1 = 24, L2 = 24, L3 = 24 }";
        let outlets: String = (1..=8)
            .map(|n| format!("[[outlet]]\nid = \"pdu-a/{n}\"\nbranch = \"none\"\n"))
            .collect();
        text.replacen("fast_s = 1", rated, 1) + &outlets
    });
    gateway.wait_for("/v1/limits", |body| {
        body["limits"].as_array().unwrap().iter().any(|limit| limit["id"] == "pdu-a/L1")
    });
    let wish = json!({"goals": [{"select": {"outlets": ["pdu-a/7", "pdu-a/8"]}, "action": "off"}], "dry_run": true});
    let answer = curl.post("/v1/plans", &wish.to_string(), &[]);
    assert_eq!(answer.status, 200, "{answer:?}");
    let body = answer.json();
    let lines = body["timeline"].as_array().unwrap();
    for id in ["pdu-a/L1", "pdu-a/L2 if feed-b dies"] {
        let line = lines.iter().find(|line| line["limit"] == id);
        let line = line.unwrap_or_else(|| panic!("no {id} in {body}"));
        let points: Vec<f64> =
            line["points"].as_array().unwrap().iter().map(|of| number(of, "load_w")).collect();
        assert!(points.iter().all(|of| *of >= points[0]), "{id}: {points:?}");
    }
    let inlet = lines.iter().find(|line| line["limit"] == "feed-a").unwrap();
    let points = inlet["points"].as_array().unwrap();
    assert!(number(points.last().unwrap(), "load_w") < number(&points[0], "load_w"), "{inlet}");
}

/// The limit is the PDU's own, and nobody says what is plugged in: what the meter has shown of it counts by hand as well.
#[tokio::test(flavor = "multi_thread")]
async fn by_hand_no_measured_limit_is_passed_either() {
    let sim = Sim::start(Family::ApcRpdu2, 8).await;
    let sections =
        pdu_section("pdu-a", sim.address, "write_gap_ms = 0\nfast_s = 1\nratings_a = { B1 = 16 }");
    let gateway = tokio::task::spawn_blocking(move || {
        let gateway = Gateway::start(&sections);
        gateway.wait_online("pdu-a");
        gateway
    });
    let gateway = gateway.await.unwrap();
    let curl = gateway.curl();
    assert_eq!(curl.power("pdu-a/1", "off").status, 200);
    curl.get("/v1/pdus/pdu-a?max_age_ms=0");
    let branch = limit(&curl, "pdu-a/B1");
    // Room for less than it draws.
    let amperes = ((number(&branch, "load_a") + 1.1) / 0.8).floor();
    crate::approved::reload(&gateway, |text| text.replace("B1 = 16", &format!("B1 = {amperes}")));
    gateway.wait_for("/v1/limits", |_| {
        (number(&limit(&curl, "pdu-a/B1"), "rating_a") - amperes).abs() < 0.1
    });
    let refused = curl.power("pdu-a/1", "on");
    assert_eq!(
        (refused.status, &refused.json()["limit"]),
        (409, &"pdu-a/B1".into()),
        "{refused:?}"
    );
    // Something else goes off, and it may.
    for outlet in ["pdu-a/2", "pdu-a/3"] {
        assert_eq!(curl.power(outlet, "off").status, 200);
    }
    curl.get("/v1/pdus/pdu-a?max_age_ms=0");
    let on = curl.power("pdu-a/1", "on");
    assert_eq!(on.status, 200, "{on:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_by_itself_goes_dark_by_the_feed_whose_load_the_other_can_carry() {
    let (a, b) = (Sim::start(Family::ApcRpdu2, 8).await, Sim::start(Family::Sentry4, 8).await);
    let load = pmgate::sim::physics::Load {
        steady_mw: 100_000,
        boot_percent: 100,
        boot: pmgate::model::time::Span(0),
        inrush_percent: 100,
        inrush: pmgate::model::time::Span(0),
        power_factor: 10_000,
    };
    for sim in [&a, &b] {
        sim.pdu.lock().unwrap().load_all(load);
    }
    // Outlet 1 of pdu-a bears what hangs on it, and not what moves there when the other feed goes first.
    let sections = format!(
        "[switching]\nhold_s = 1\n[[limit]]\nid = \"rail\"\nrating_w = 188\nof = [\"pdu-a/1\"]\n{}{}[[host]]\nid = \"web\"\noutlets = [\"pdu-b/1\", \"pdu-a/1\"]\ndraw = {{ steady_w = 130, boot_w = 130, boot_s = 1, inrush_w = 130 }}\n",
        pdu_section("pdu-a", a.address, "write_gap_ms = 0\nfast_s = 1"),
        pdu_section("pdu-b", b.address, "write_gap_ms = 0\nfast_s = 1")
    );
    tokio::task::spawn_blocking(move || {
        let gateway = Gateway::start(&sections);
        gateway.wait_online("pdu-a");
        gateway.wait_online("pdu-b");
        let curl = gateway.curl();
        let off = curl.post("/v1/hosts/web/power", r#"{"action":"off"}"#, &[]);
        assert_eq!((off.status, &off.json()["state"]), (200, &"done".into()), "{off:?}");
        assert_eq!(off.json()["steps"][0]["outlet"], "pdu-a/1", "{off:?}");
        assert_eq!((relay(&a, 1), relay(&b, 1)), (Relay::Off, Relay::Off));
    })
    .await
    .unwrap();
}
