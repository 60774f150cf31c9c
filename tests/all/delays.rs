//! The power-on delays that PDUs keep themselves: shown, left alone unless the site wants them set, and set such that the
//! rack comes up within its limits while no gateway sees to it.

use std::sync::{Arc, Mutex};

use pmgate::model::metric::{Metric, Scope};
use pmgate::model::switching::Relay;
use pmgate::model::time::{Span, Tick};
use pmgate::sim::families::Family;
use pmgate::sim::physics::{Load, Pdu};
use serde_json::Value;

use crate::families::{stand_ins, stand_ins_by, stand_ins_with};
use crate::rig::{Gateway, Sim, pdu_section};

const LOAD: Load = Load {
    steady_mw: 280_000,
    boot_percent: 200,
    boot: Span(20_000),
    inrush_percent: 300,
    inrush: Span(100),
    power_factor: 9_500,
};

/// What a PDU draws at most, VA, second by second after its power came back.
fn most_after_an_outage(pdu: &Mutex<Pdu>) -> i64 {
    let mut pdu = pdu.lock().unwrap().clone();
    let (dark, back) = (Tick(10_000_000), Tick(10_060_000));
    pdu.loses_power(dark);
    pdu.gets_power(back);
    let drawn = |second: u64| {
        let at = back + Span(second * 1_000 + 500);
        pdu.value(Scope::Inlet, 0, Metric::ApparentPower, at).unwrap() / 1_000
    };
    (0..600).map(drawn).max().unwrap()
}

fn delays(gateway: &Gateway, pdu: &str) -> Vec<Option<f64>> {
    let outlets = gateway.curl().get(&format!("/v1/pdus/{pdu}/outlets"));
    let outlets = outlets["outlets"].as_array().unwrap().iter();
    outlets.map(|outlet| outlet["power_on_delay_s"].as_f64()).collect()
}

fn kinds<'e>(events: &'e Value, kind: &'static str) -> impl Iterator<Item = &'e Value> {
    events.as_array().unwrap().iter().filter(move |event| event["kind"] == kind)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rack_comes_up_within_its_limits_by_the_delays_of_its_pdus() {
    let (a, b) = (Sim::start(Family::ApcRpdu2, 8).await, Sim::start(Family::ApcRpdu2, 2).await);
    a.pdu.lock().unwrap().load_all(LOAD);
    // Somebody wants outlet 3 to stay off after an outage.
    a.pdu.lock().unwrap().set_startup(2, None);
    let all_at_once = most_after_an_outage(&a.pdu);
    let hosts: String = (1..=8)
        .map(|n| {
            format!("[[host]]\nid = \"h{n}\"\noutlets = [\"pdu-a/{n}\"]\npriority = {n}\ndraw = {{ steady_w = 300, boot_w = 600, boot_s = 20, inrush_w = 900 }}\n")
        })
        .collect();
    let sections = format!(
        "[restore]\npower_on_delays = \"set\"\n[[limit]]\nid = \"feed\"\nrating_w = 3000\nderate_percent = 100\nof = [\"pdu-a\"]\n[[outlet]]\nid = \"pdu-a/4\"\ncritical = \"the storage\"\n{}{}{hosts}",
        pdu_section("pdu-a", a.address, "write_gap_ms = 0\nfast_s = 1"),
        pdu_section("pdu-b", b.address, "read_only = true\nfast_s = 1"),
    );
    let (of_a, of_b) = (a.pdu.clone(), b.pdu.clone());
    tokio::task::spawn_blocking(move || {
        let gateway = Gateway::start(&sections);
        let events = gateway
            .wait_for("/v1/events?last=500", |events| kinds(events, "delays.set").next().is_some());
        assert_eq!(kinds(&events, "delays.refused").count(), 0, "{events}");
        let set = delays(&gateway, "pdu-a");
        // What is set never to come on, and what is locked, stays as it was; the others have times of their own.
        assert_eq!((set[2], set[3]), (None, Some(0.0)), "{set:?}");
        assert_eq!(gateway.curl().get("/v1/pdus/pdu-a/outlets/3")["stays_off"], true);
        let mut times: Vec<f64> =
            [7, 6, 5, 4, 1, 0].iter().map(|at: &usize| set[*at].unwrap()).collect();
        assert!(times.is_sorted(), "by priority: {set:?}");
        times.dedup();
        assert_eq!(times.len(), 6, "one after the other: {set:?}");
        let in_device: Vec<Option<Span>> =
            (0..8).map(|outlet| of_a.lock().unwrap().startup(outlet)).collect();
        for (shown, real) in set.iter().zip(&in_device) {
            assert_eq!(shown.map(|s| s as u64 * 1_000), real.map(|real| real.0));
        }
        // Where nothing may be switched nothing is set; it is shown all the same.
        assert_eq!(delays(&gateway, "pdu-b"), [Some(0.0), Some(0.0)]);
        assert!((0..2).all(|outlet| of_b.lock().unwrap().startup(outlet) == Some(Span(0))));
        let audit = gateway.curl().get("/v1/audit?last=200");
        let lines = audit["entries"].as_array().unwrap();
        let lines = lines.iter().filter(|line| line["kind"] == "outlet.power_on_delay");
        // The first comes on at once, as it did.
        assert_eq!(lines.count(), 5, "{audit}");
        // The proof: seven outlets that come on at once are too much, by their delays they are not.
        let by_delays = most_after_an_outage(&of_a);
        assert!(all_at_once > 4_000 && by_delays <= 3_000, "{all_at_once} VA, {by_delays} VA");
        assert!(by_delays > 2_000, "they do come on: {by_delays} VA");
        assert_eq!(of_a.lock().unwrap().relay(0, Tick(0)), Some(Relay::On), "nothing is switched");
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn delays_are_left_alone_while_nobody_knows_what_else_comes_up_with_them() {
    let sim = Sim::start(Family::ApcRpdu2, 3).await;
    sim.pdu.lock().unwrap().set_startup(1, Some(Span::seconds(7)));
    let nowhere = crate::rig::free_udp_port();
    let sections = format!(
        "[restore]\npower_on_delays = \"set\"\n[[limit]]\nid = \"feed\"\nrating_w = 6000\nof = [\"pdu-a\", \"pdu-b\"]\n{}{}",
        pdu_section("pdu-a", sim.address, "write_gap_ms = 0\nfast_s = 1"),
        pdu_section("pdu-b", ([127, 0, 0, 1], nowhere).into(), "fast_s = 1"),
    );
    let pdu: Arc<Mutex<Pdu>> = sim.pdu.clone();
    tokio::task::spawn_blocking(move || {
        let gateway = Gateway::start(&sections);
        let events = gateway.wait_for("/v1/events?last=500", |events| {
            kinds(events, "delays.refused").next().is_some()
                || kinds(events, "delays.set").next().is_some()
        });
        let refused = kinds(&events, "delays.refused").next();
        let text = refused.unwrap_or_else(|| panic!("they are set: {events}"))["text"].to_string();
        assert!(text.contains("stay as they are") && text.contains("feed"), "{text}");
        let kept: Vec<Option<Span>> =
            (0..3).map(|outlet| pdu.lock().unwrap().startup(outlet)).collect();
        assert_eq!(kept, [0, 7, 0].map(|seconds| Some(Span::seconds(seconds))));
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn delays_are_left_alone_unless_the_site_wants_them_set() {
    let sim = Sim::start(Family::ApcRpdu2, 3).await;
    sim.pdu.lock().unwrap().set_startup(1, Some(Span::seconds(7)));
    let sections = format!("[restore]\n{}", pdu_section("pdu-a", sim.address, "fast_s = 1"));
    let pdu: Arc<Mutex<Pdu>> = sim.pdu.clone();
    tokio::task::spawn_blocking(move || {
        let gateway = Gateway::start(&sections);
        let path = "/v1/pdus/pdu-a/outlets/2";
        gateway.wait_for(path, |outlet| outlet["power_on_delay_s"] == 7.0);
        assert_eq!(delays(&gateway, "pdu-a"), [Some(0.0), Some(7.0), Some(0.0)]);
        let events = gateway.curl().get("/v1/events?last=200");
        assert_eq!(kinds(&events, "delays.set").count(), 0, "{events}");
        let audit = gateway.curl().get("/v1/audit?last=200");
        assert!(!audit.to_string().contains("outlet.power_on_delay"), "{audit}");
        assert_eq!(pdu.lock().unwrap().startup(1), Some(Span::seconds(7)));
    })
    .await
    .unwrap();
}

/// The delay of the first outlet of the PDU that is set last.
const LAST: &str = "1.3.6.1.4.1.19536.10.1.5.2.1.6.1.1";

#[tokio::test(flavor = "multi_thread")]
async fn families_that_keep_delays_take_them() {
    let names = [
        "apc-rpdu",
        "apc-rpdu2",
        "cyberpower",
        "dell-rpdu",
        "eaton-epdu",
        "enlogic",
        "geist-v5",
        "hpe-pdu2",
        "hpe-pdu3",
        "panduit-g5",
    ];
    let stand_ins = stand_ins(&names).await;
    let pdus: String = stand_ins
        .at
        .iter()
        .map(|(name, at)| pdu_section(name, *at, "write_gap_ms = 0\nallow_unknown = true"))
        .collect();
    // What was recorded of some of them is more than their own breakers bear.
    let draw = |name: &str, n: u16| {
        format!("[[outlet]]\nid = \"{name}/{n}\"\ndraw = {{ steady_w = 20, boot_s = 2 }}\n")
    };
    let draws: String =
        names.iter().flat_map(|name| (1..=4).map(|n| draw(name, n)).collect::<Vec<_>>()).collect();
    let sections = format!("[restore]\npower_on_delays = \"set\"\n{draws}{pdus}");
    let last = stand_ins.at["panduit-g5"];
    tokio::task::spawn_blocking(move || {
        let gateway = Gateway::start(&sections);
        let events = gateway.wait_for("/v1/events?last=900", |events| {
            let told = kinds(events, "delays.set").count();
            told >= names.len() || kinds(events, "delays.refused").next().is_some()
        });
        assert_eq!(kinds(&events, "delays.refused").count(), 0, "{events}");
        let mut shown = Vec::new();
        for name in names {
            let all: Vec<f64> = delays(&gateway, name).into_iter().map(Option::unwrap).collect();
            let outlets = gateway.curl().get(&format!("/v1/pdus/{name}/outlets"));
            let outlets = outlets["outlets"].as_array().unwrap().iter().zip(&all);
            // What the device does not let be switched keeps what it has.
            let mut set: Vec<f64> =
                outlets.filter(|(o, _)| o["switchable"] == true).map(|(_, delay)| *delay).collect();
            shown.push(all);
            assert!(set.len() > 1, "{name}: {set:?}");
            set.sort_by(f64::total_cmp);
            assert!(set.windows(2).all(|two| two[1] - two[0] >= 2.0), "{name}: {set:?}");
        }
        // They are in the devices: the next run reads them there, and sets what somebody else changed, and no other.
        let own = held(last, LAST);
        let other = (own.parse::<u32>().unwrap() + 1).to_string();
        let target = format!("udp:{last}");
        let args = ["-v2c", "-c", "private", "-t", "2", "-r", "5", &target, LAST, "i", &other];
        assert!(
            std::process::Command::new("snmpset").args(args).output().unwrap().status.success()
        );
        let gateway = Gateway::in_dir(gateway.kill(), &sections, &[]);
        let events = gateway
            .wait_for("/v1/events?last=900", |events| kinds(events, "delays.set").next().is_some());
        let told: Vec<&Value> = kinds(&events, "delays.set").collect();
        let text = told[0]["text"].as_str().unwrap();
        let only = format!("delays of panduit-g5 were set: 1: {own} s");
        assert!(told.len() == 1 && text.ends_with(&only), "{told:?}");
        for (name, before) in names.iter().zip(&shown) {
            let path = format!("/v1/pdus/{name}/outlets");
            gateway.wait_for(&path, |body| {
                let outlets = body["outlets"].as_array().unwrap();
                !outlets.is_empty() && outlets.iter().all(|o| o["power_on_delay_s"].is_number())
            });
            let after: Vec<f64> = delays(&gateway, name).into_iter().map(Option::unwrap).collect();
            assert_eq!(&after, before, "{name}");
        }
    })
    .await
    .unwrap();
}

/// A MasterSwitch takes 15, 30, 45 and 60 seconds, and nothing between.
#[tokio::test(flavor = "multi_thread")]
async fn a_family_that_takes_a_few_delays_is_set_to_those() {
    let name = "apc-masterswitch";
    let stand_ins = stand_ins(&[name]).await;
    let pdu = pdu_section(name, stand_ins.at[name], "write_gap_ms = 0\nallow_unknown = true");
    // It is recorded with 0, 15 and 30 seconds, and never: the other way round than these hosts want it.
    let hosts: String = (1..=4)
        .map(|n| {
            format!("[[host]]\nid = \"h{n}\"\noutlets = [\"{name}/{n}\"]\npriority = {n}\ndraw = {{ steady_w = 20, boot_s = 2 }}\n")
        })
        .collect();
    let sections = format!("[restore]\npower_on_delays = \"set\"\n{hosts}{pdu}");
    tokio::task::spawn_blocking(move || {
        let gateway = Gateway::start(&sections);
        let events = gateway.wait_for("/v1/events?last=900", |events| {
            ["delays.set", "delays.refused"].iter().any(|kind| kinds(events, kind).next().is_some())
        });
        assert_eq!(kinds(&events, "delays.refused").count(), 0, "{events}");
        let shown = delays(&gateway, name);
        assert_eq!(shown, [Some(30.0), Some(15.0), Some(0.0), None]);
    })
    .await
    .unwrap();
}

/// What a stand-in holds now, read by net-snmp.
fn held(at: std::net::SocketAddr, oid: &str) -> String {
    let target = format!("udp:{at}");
    let args = ["-v2c", "-c", "public", "-t", "2", "-r", "5", "-Oqv", &target, oid];
    let output = std::process::Command::new("snmpget").args(args).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().trim_matches('"').to_owned()
}

const ORDER: &str = "1.3.6.1.4.1.13742.6.3.2.2.1.39.1";

fn gap_after(outlet: u16) -> String {
    format!("1.3.6.1.4.1.13742.6.3.5.3.1.32.1.{outlet}")
}

/// Hosts on a Raritan, the higher the number of the outlet the sooner; some of them come after one elsewhere.
fn chained(
    raritan: std::net::SocketAddr,
    other: std::net::SocketAddr,
    is_later: impl Fn(u16) -> bool,
) -> String {
    let hosts: String = (1..=4)
        .map(|n| {
            let after = if is_later(n) { "after = [\"first\"]\n" } else { "" };
            format!("[[host]]\nid = \"h{n}\"\noutlets = [\"raritan-px2/{n}\"]\npriority = {n}\n{after}draw = {{ steady_w = 20, boot_s = 2 }}\n")
        })
        .collect();
    // What was recorded of the other is more than its own breakers bear.
    let draws: String = (2..=4)
        .map(|n| {
            format!("[[outlet]]\nid = \"eaton-epdu/{n}\"\ndraw = {{ steady_w = 20, boot_s = 2 }}\n")
        })
        .collect();
    let first = "[[host]]\nid = \"first\"\noutlets = [\"eaton-epdu/1\"]\npriority = 9\ndraw = { steady_w = 20, boot_s = 2 }\n";
    format!(
        "[restore]\npower_on_delays = \"set\"\n{first}{draws}{hosts}{}{}",
        pdu_section("raritan-px2", raritan, "write_gap_ms = 0\nallow_unknown = true"),
        pdu_section("eaton-epdu", other, "write_gap_ms = 0\nallow_unknown = true"),
    )
}

/// A PDU that waits before its first outlet, so long that what that comes after is up by then; and one that does not.
const NO_WAIT: [(&str, &str); 1] = [("1.3.6.1.4.1.13742.6.3.2.2.1.40.1", "0")];

fn is_raritan(event: &Value) -> bool {
    event["pdu"] == "raritan-px2"
}

/// What is told of the Raritan once something is.
fn told_of_raritan(gateway: &Gateway) -> (&'static str, String) {
    let kind = |events: &Value| {
        ["delays.set", "delays.refused"].into_iter().find(|k| kinds(events, k).any(is_raritan))
    };
    let events = gateway.wait_for("/v1/events?last=900", |events| kind(events).is_some());
    let kind = kind(&events).unwrap();
    let event = kinds(&events, kind).find(|event| is_raritan(event)).unwrap();
    (kind, event["text"].as_str().unwrap().to_owned())
}

/// A PDU that switches its outlets on one after the other, in an order of its own, when it has waited.
#[tokio::test(flavor = "multi_thread")]
async fn a_family_that_goes_from_one_outlet_to_the_next_gets_its_order_set() {
    let mut at_once = Vec::new();
    for (waits, changes) in [(10.0, &[][..]), (0.0, &NO_WAIT)] {
        let stand_ins = stand_ins_with(&["raritan-px2", "eaton-epdu"], with(changes)).await;
        let raritan = stand_ins.at["raritan-px2"];
        let sections = chained(raritan, stand_ins.at["eaton-epdu"], |n| n == 4);
        let case = tokio::task::spawn_blocking(move || {
            assert_eq!(held(raritan, ORDER), "1,2,3,4");
            let gateway = Gateway::start(&sections);
            let (kind, text) = told_of_raritan(&gateway);
            assert_eq!(kind, "delays.set", "{text}");
            let order = held(raritan, ORDER);
            let order: Vec<u16> = order.split(',').map(|number| number.parse().unwrap()).collect();
            let shown = delays(&gateway, "raritan-px2");
            let mut at: f64 = waits;
            for number in &order {
                let shown = shown[usize::from(*number) - 1].unwrap();
                assert!((shown - at).abs() < 0.001, "{order:?} {shown:?}");
                at += held(raritan, &gap_after(*number)).parse::<f64>().unwrap().max(0.2);
            }
            assert!(at >= waits + 6.0, "not all at once: {shown:?}");
            // The host of outlet 4 comes after another: it is no first where the PDU does not wait for that.
            let first = delays(&gateway, "eaton-epdu")[0].unwrap();
            assert!(shown[3].unwrap() >= first + 2.0, "{shown:?}, the first at {first}");
            let place = |number: u16| order.iter().position(|of| *of == number).unwrap();
            assert_eq!(place(4) == 0, waits > 0.0, "{order:?}");
            assert!(place(3) < place(2) && place(2) < place(1), "by priority: {order:?}");
            let audit = gateway.curl().get("/v1/audit?last=200");
            let lines = audit["entries"].as_array().unwrap().iter();
            let lines: Vec<&Value> =
                lines.filter(|line| line["kind"] == "pdu.power_on_order").collect();
            assert_eq!(lines.len(), 1, "{audit}");
            assert!(
                lines[0].to_string().contains("it is 1, 0 s; 2, 0 s; 3, 0 s; 4, 0 s"),
                "{}",
                lines[0]
            );
        });
        at_once.push((case, stand_ins));
    }
    for (case, _stand_ins) in at_once {
        case.await.unwrap();
    }
}

/// Where its order cannot be kept, or nobody knows what becomes of it, a PDU is left as it is, and that is told.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_cannot_be_relied_on_is_left_as_it_is() {
    let second = ("1.3.6.1.4.1.13742.6.4.1.2.1.3.1.2", "8");
    let latching = ("1.3.6.1.4.1.13742.6.3.2.2.1.69.1", "1");
    let cases: [(&[Change], bool, &str); 3] = [
        // The first of a PDU cannot wait, and all of its hosts are to.
        (&NO_WAIT, true, "each is of a host that comes after another"),
        // Its outlets do what they did before, and one of them was off.
        (&[second], false, "raritan-px2/2 does only if it was on"),
        (&[latching], false, "its outlets heed no delay"),
    ];
    let mut at_once = Vec::new();
    for (changes, all_later, why) in cases {
        let stand_ins = stand_ins_with(&["raritan-px2", "eaton-epdu"], with(changes)).await;
        let raritan = stand_ins.at["raritan-px2"];
        let sections = chained(raritan, stand_ins.at["eaton-epdu"], move |_| all_later);
        let case = tokio::task::spawn_blocking(move || {
            let gateway = Gateway::start(&sections);
            let (kind, text) = told_of_raritan(&gateway);
            assert_eq!(kind, "delays.refused", "{text}");
            assert!(text.contains(why), "{text}");
            assert_eq!(held(raritan, ORDER), "1,2,3,4");
            assert!((1..=4).all(|outlet| held(raritan, &gap_after(outlet)) == "0"));
        });
        at_once.push((case, stand_ins));
    }
    for (case, _stand_ins) in at_once {
        case.await.unwrap();
    }
}

/// What is locked keeps its delay, and in a chain that hangs on all others.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_with_a_locked_outlet_in_it_is_left_as_it_is() {
    let stand_ins = stand_ins_with(&["raritan-px2", "eaton-epdu"], with(&NO_WAIT)).await;
    let raritan = stand_ins.at["raritan-px2"];
    let lock = "[[outlet]]\nid = \"raritan-px2/2\"\ncritical = \"the storage\"\n";
    let sections = format!("{}{lock}", chained(raritan, stand_ins.at["eaton-epdu"], |n| n == 4));
    tokio::task::spawn_blocking(move || {
        let gateway = Gateway::start(&sections);
        let (kind, text) = told_of_raritan(&gateway);
        assert_eq!(kind, "delays.refused", "{text}");
        assert!(text.contains("raritan-px2/2 is locked"), "{text}");
        assert_eq!(held(raritan, ORDER), "1,2,3,4");
        assert!((1..=4).all(|outlet| held(raritan, &gap_after(outlet)) == "0"));
    })
    .await
    .unwrap();
}

/// An object, and what it holds instead.
type Change<'c> = (&'c str, &'c str);

/// A recording in which an object holds something else.
fn with<'c>(changes: &'c [Change<'c>]) -> impl Fn(&str) -> String + 'c {
    move |text| {
        let line = |line: &str| {
            let change = changes.iter().find(|(oid, _)| line.split('|').next() == Some(*oid));
            change.map_or(line.to_owned(), |(oid, value)| {
                format!("{oid}|{}|{value}", line.split('|').nth(1).unwrap())
            })
        };
        text.lines().map(line).collect::<Vec<_>>().join("\n")
    }
}

/// That an outlet stays off, many families keep in an object of its own; and one may wait before all of its outlets.
#[tokio::test(flavor = "multi_thread")]
async fn what_stays_off_by_another_object_goes_last_and_what_a_pdu_waits_before_all_is_counted() {
    let changes = [
        // This one does as the whole PDU is told, and that is to come on.
        ("1.3.6.1.4.1.13742.6.3.2.2.1.38.1", "1"),
        ("1.3.6.1.4.1.13742.6.3.5.3.1.13.1.3", "0"),
        ("1.3.6.1.4.1.13742.6.3.5.3.1.32.1.3", "7"),
        ("1.3.6.1.4.1.21239.5.2.3.5.1.12.2", "2"),
        ("1.3.6.1.4.1.21239.5.2.3.5.1.13.2", "9"),
        ("1.3.6.1.4.1.38446.1.2.2.1.6.1", "5"),
        NO_WAIT[0],
    ];
    let names = ["raritan-px2", "geist-v5", "enlogic"];
    let stand_ins = stand_ins_with(&names, with(&changes)).await;
    let at = stand_ins.at.clone();
    let at_enlogic = at["enlogic"];
    let pdus: String = at
        .iter()
        .map(|(name, at)| pdu_section(name, *at, "write_gap_ms = 0\nallow_unknown = true"))
        .collect();
    let draw = |name: &str, n: u16| {
        format!("[[outlet]]\nid = \"{name}/{n}\"\ndraw = {{ steady_w = 20, boot_s = 2 }}\n")
    };
    let draws: String =
        names.iter().flat_map(|name| (1..=4).map(|n| draw(name, n)).collect::<Vec<_>>()).collect();
    let sections = format!("[restore]\npower_on_delays = \"set\"\n{draws}{pdus}");
    tokio::task::spawn_blocking(move || {
        let gateway = Gateway::start(&sections);
        let of = |events: &Value, kind: &'static str, pdu: &str| {
            kinds(events, kind).any(|event| event["pdu"] == pdu)
        };
        let events = gateway.wait_for("/v1/events?last=900", |events| {
            names.iter().all(|name| of(events, "delays.set", name))
        });
        assert_eq!(kinds(&events, "delays.refused").count(), 0, "{events}");
        // The Raritan's goes last, and what is told to pass after it is left as it was.
        let order = held(at["raritan-px2"], ORDER);
        assert!(order.ends_with(",3") && order.len() == 7, "{order}");
        assert_eq!(held(at["raritan-px2"], &gap_after(3)), "7");
        let shown = delays(&gateway, "raritan-px2");
        assert_eq!((shown[2], shown.iter().flatten().count()), (None, 3), "{shown:?}");
        assert_eq!(gateway.curl().get("/v1/pdus/raritan-px2/outlets/3")["stays_off"], true);
        // The Geist's keeps its delay.
        assert_eq!(held(at["geist-v5"], "1.3.6.1.4.1.21239.5.2.3.5.1.13.2"), "9");
        assert_eq!(delays(&gateway, "geist-v5")[1], None);
        // The Enlogic waits five seconds before any of its delays counts.
        let shown: Vec<f64> = delays(&gateway, "enlogic").into_iter().flatten().collect();
        assert!(shown.len() == 4 && shown.iter().all(|at| *at >= 5.0), "{shown:?}");
        for (outlet, at) in (1..).zip(&shown) {
            let own = held(at_enlogic, &format!("1.3.6.1.4.1.38446.1.5.2.1.4.1.{outlet}"));
            assert!((own.parse::<f64>().unwrap() + 5.0 - at).abs() < 0.001, "{own} {shown:?}");
        }
    })
    .await
    .unwrap();
}

/// What one PDU does not take is told and tried once; those beside it are set as if it were left alone, whether they come
/// before it or after.
#[tokio::test(flavor = "multi_thread")]
async fn a_pdu_that_refuses_its_delay_keeps_no_other_from_being_set() {
    let (geist, panduit) = ("1.3.6.1.4.1.21239.5.2.3.5.1.13 ", "1.3.6.1.4.1.19536.10.1.5.2.1.6 ");
    let cases = [("geist-v5", geist, "panduit-g5"), ("panduit-g5", panduit, "geist-v5")];
    let mut at_once = Vec::new();
    for (refuser, delay, other) in cases {
        let refuses = |rules: &str| {
            let own = |line: &&str| !line.starts_with(delay);
            rules.lines().filter(own).collect::<Vec<_>>().join("\n")
        };
        let stand_ins = stand_ins_by(&[refuser, other], str::to_owned, refuses).await;
        let pdus: String = stand_ins
            .at
            .iter()
            .map(|(name, at)| pdu_section(name, *at, "write_gap_ms = 0\nallow_unknown = true"))
            .collect();
        let sections = format!("[restore]\npower_on_delays = \"set\"\n{pdus}");
        let case = tokio::task::spawn_blocking(move || {
            let gateway = Gateway::start(&sections);
            let of = |events: &Value, kind: &'static str, pdu: &str| {
                kinds(events, kind).filter(|event| event["pdu"] == pdu).count()
            };
            // That it is left as it is comes last.
            let events = gateway.wait_for("/v1/events?last=900", |events| {
                of(events, "delays.refused", refuser) > 1
            });
            assert!(of(&events, "delays.set", other) >= 1, "{events}");
            assert_eq!(of(&events, "delays.refused", refuser), 2, "{events}");
            let audit = gateway.curl().get("/v1/audit?last=200");
            let tried = audit["entries"].as_array().unwrap().iter();
            let tried = tried.filter(|line| line.to_string().contains(&format!("{refuser}/")));
            assert_eq!(tried.count(), 1, "{audit}");
        });
        at_once.push((case, stand_ins));
    }
    for (case, _stand_ins) in at_once {
        case.await.unwrap();
    }
}

/// Two of them, and each host is fed by both: the feed that comes first on the second PDU goes before the host's other one.
#[tokio::test(flavor = "multi_thread")]
async fn two_pdus_with_orders_and_hosts_on_both_are_set() {
    let a = stand_ins(&["raritan-px2"]).await;
    let serial = [("1.3.6.1.4.1.13742.6.3.2.1.1.4.1", "B")];
    let b = stand_ins_with(&["raritan-px2"], with(&serial)).await;
    let hosts: String = (1..=4)
        .map(|n| {
            format!("[[host]]\nid = \"h{n}\"\noutlets = [\"px-a/{n}\", \"px-b/{n}\"]\ndraw = {{ steady_w = 20, boot_s = 2 }}\n")
        })
        .collect();
    let sections = format!(
        "[restore]\npower_on_delays = \"set\"\n{hosts}{}{}",
        pdu_section("px-a", a.at["raritan-px2"], "write_gap_ms = 0\nallow_unknown = true"),
        pdu_section("px-b", b.at["raritan-px2"], "write_gap_ms = 0\nallow_unknown = true"),
    );
    tokio::task::spawn_blocking(move || {
        let gateway = Gateway::start(&sections);
        let events = gateway.wait_for("/v1/events?last=900", |events| {
            kinds(events, "delays.set").count() > 1
                || kinds(events, "delays.refused").next().is_some()
        });
        assert_eq!(kinds(&events, "delays.refused").count(), 0, "{events}");
        for pdu in ["px-a", "px-b"] {
            let mut shown: Vec<f64> =
                delays(&gateway, pdu).into_iter().map(Option::unwrap).collect();
            shown.sort_by(f64::total_cmp);
            assert!((shown[0] - 10.0).abs() < 0.001, "{pdu}: {shown:?}");
            assert!(shown.windows(2).all(|two| two[1] - two[0] >= 2.0), "{pdu}: {shown:?}");
        }
    })
    .await
    .unwrap();
}
