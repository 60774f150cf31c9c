//! Several PDUs behind one agent: each keeps its numbers whoever else is there, and none is taken for another.

use std::path::Path;

use pmgate::device::adopt::Failure;
use pmgate::link::recording::Recording;
use pmgate::model::metric::Scope;
use pmgate::model::oid::Oid;
use pmgate::sim::recording::{Rule, serve};
use tokio_util::sync::CancellationToken;

use crate::rig::{Gateway, anywhere, communities, pdu_section};
use crate::rows::{Device, catalog};

/// An Eaton chain whose outlets are those of unit 1, as if unit 0 did not answer.
fn without_the_first() -> Device {
    let outlets: Oid = "1.3.6.1.4.1.534.6.6.7.6".parse().unwrap();
    let mut device = Device::of("eaton-epdu");
    let moved: Vec<(Oid, String)> = std::mem::take(device.rows())
        .into_iter()
        .map(|(oid, rest)| {
            let mut arcs = oid.parts();
            if oid.is_under(&outlets) {
                // …table.1.column.unit.outlet
                assert_eq!(arcs[14], 0, "{oid}");
                arcs[14] = 1;
            }
            (Oid::from_parts(&arcs).unwrap(), rest)
        })
        .collect();
    device.rows().extend(moved);
    device
}

#[tokio::test]
async fn a_unit_keeps_its_outlet_numbers_when_another_is_missing() {
    let all = Device::of("eaton-epdu").read(None).await.numbers(Scope::Outlet);
    let second = without_the_first();
    let numbers = second.read(None).await.numbers(Scope::Outlet);
    assert_eq!(numbers, all.iter().map(|number| 1_000 + number).collect::<Vec<_>>());
    // Whoever says which unit a PDU is has the numbers that are printed on it.
    assert_eq!(second.read(Some("1")).await.numbers(Scope::Outlet), all);
}

#[tokio::test]
async fn a_unit_that_is_not_there_and_a_driver_without_units_are_told() {
    let chain = Device::of("eaton-epdu");
    let Err(Failure::Adopt(error)) = chain.adopt(Some("7")).await else { panic!() };
    let text = "unit 7 of its chain is not there; chain_unit is one of those that are: 0";
    assert_eq!(error.to_string(), text);
    let Err(Failure::Adopt(error)) = chain.adopt(Some("left")).await else { panic!() };
    assert!(error.to_string().starts_with("unit left of its chain is not there"), "{error}");
    let Err(Failure::Adopt(error)) = Device::of("iboot").adopt(Some("2")).await else { panic!() };
    let text = "driver iboot knows no units of a chain: leave chain_unit out";
    assert_eq!(error.to_string(), text);
}

#[tokio::test]
async fn units_that_go_by_a_text_are_not_shuffled() {
    let device = Device::of("chatsworth");
    assert_eq!(device.read(None).await.numbers(Scope::Outlet), [1, 2, 3, 2001, 2002]);
    let second = device.read(Some("000ED3000A02")).await;
    assert_eq!(second.numbers(Scope::Outlet), [1, 2]);
    assert_eq!(second.adopted.instance.identity.model.as_deref(), Some("P6-1C0A4-000"));
    assert_eq!(second.of("inlet.apparent_power"), [(1, 517.0)]);
    let Err(Failure::Adopt(error)) = device.adopt(Some("000ED3000A03")).await else { panic!() };
    assert!(error.to_string().ends_with("are: 000ED3000A01, 000ED3000A02"), "{error}");
}

#[tokio::test]
async fn a_lone_unit_with_a_great_address_is_read_and_not_switched_until_it_is_named() {
    let device = Device::recorded("schleifenbauer", "schleifenbauer-far");
    let lone = device.read(None).await;
    assert_eq!(lone.numbers(Scope::Outlet), [1, 2]);
    assert_eq!(lone.adopted.instance.identity.model.as_deref(), Some("DPM16-001"));
    let why = lone.adopted.mixed().unwrap();
    assert!(why.ends_with("write chain_unit = 187 in its [[pdu]]"), "{why}");
    let named = device.read(Some("187")).await;
    assert_eq!(named.numbers(Scope::Outlet), [1, 2]);
    assert_eq!(named.adopted.mixed(), None);
}

#[tokio::test]
async fn the_neutral_of_three_infeeds_does_not_take_their_total() {
    let read = Device::recorded("sentry3", "sentry3-wye").read(None).await;
    assert_eq!(read.numbers(Scope::Inlet), [1, 2, 3]);
    assert_eq!(read.of("branch.current"), [(104, 1.94)]);
    assert_eq!(read.body()["inlet"]["power_w"], 314.0);
}

/// A stand-in of a device, which takes writes as the recording of that name does.
async fn stand_in(device: &Device, rules: &str, stop: &CancellationToken) -> std::net::SocketAddr {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings");
    let rules = std::fs::read_to_string(dir.join(format!("{rules}.rules"))).unwrap();
    let recording = Recording::parse(&device.recording()).unwrap();
    let rules = Rule::parse_all(&rules).unwrap();
    serve(recording, rules, anywhere(), communities(), stop.clone()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_mixed_chain_nothing_is_switched_until_each_unit_is_named() {
    let stop = CancellationToken::new();
    let at = stand_in(&Device::of("chatsworth"), "chatsworth", &stop).await;
    let chain = stand_in(&without_the_first(), "eaton-epdu", &stop).await;
    let _stop = stop.drop_guard();
    tokio::task::block_in_place(|| {
        let sections = pdu_section("mixed", at, "write_gap_ms = 0")
            + &pdu_section("second", at, "chain_unit = \"000ED3000A02\"\nwrite_gap_ms = 0")
            + &pdu_section("none", at, "chain_unit = \"000ED3000A03\"")
            + &pdu_section("chain", chain, "write_gap_ms = 0");
        let gateway = Gateway::start(&sections);
        let body = gateway.wait_online("mixed");
        let why = body["read_only"].as_str().unwrap();
        assert!(why.contains("one of: 000ED3000A01, 000ED3000A02"), "{why}");
        assert_eq!(gateway.curl().power("mixed/1", "off").status, 409);
        // Outlet 1 of the second PDU is switched, and no other.
        gateway.wait_online("second");
        assert_eq!(gateway.curl().power("second/1", "off").status, 200);
        let body = gateway.curl().get("/v1/pdus/mixed?max_age_ms=0");
        let states: Vec<&str> = body["outlets"]
            .as_array()
            .unwrap()
            .iter()
            .map(|o| o["state"].as_str().unwrap())
            .collect();
        assert_eq!(states, ["on", "off", "on", "off", "off"]);
        // A unit that is not there is offline, with the reason.
        let why = "unit 000ED3000A03 of its chain is not there";
        gateway.wait_for("/v1/pdus/none", |body| {
            body["state"] == "offline" && body["reason"].as_str().unwrap().starts_with(why)
        });
        // A unit with a number of its own keeps it, and is switched by it.
        let body = gateway.wait_online("chain");
        assert!(body["read_only"].is_null(), "{body}");
        let number = body["outlets"][0]["number"].as_u64().unwrap();
        assert_eq!(number, 1001);
        assert_eq!(gateway.curl().power("chain/1001", "off").status, 200);
    });
}

#[test]
fn a_configuration_with_a_unit_for_a_driver_without_is_refused() {
    assert!(catalog().get(&"iboot".parse().unwrap()).unwrap().unit.is_none());
    let dir = tempfile::tempdir().unwrap();
    let text = "[[pdu]]\nid = \"pdu-a\"\nsnmp = \"192.0.2.1\"\nsecret = \"v2c\"\ndriver = \"iboot\"\nchain_unit = 2\n";
    Gateway::write_config(dir.path(), text);
    let file = dir.path().join("gateway.toml");
    let (out, err, code) = crate::rig::pmgate(&["config", "check", file.to_str().unwrap()], &[]);
    assert_eq!(code, 1, "{out}{err}");
    let said = format!("{out}{err}");
    assert!(
        said.contains("driver iboot knows no units of a chain: leave chain_unit out"),
        "{said}"
    );
}

/// An APC group of two: rows of both in each table, in an order of their own; the second measures no power.
fn apc_group() -> Device {
    const R: &str = "1.3.6.1.4.1.318.1.1.26";
    let mut device = Device::of("apc-rpdu2");
    for table in ["4.3", "6.3", "8.3", "9.2.3", "9.4.3"] {
        device.without(format!("{R}.{table}"));
    }
    device.without("1.3.6.1.4.1.318.1.1.4.4");
    let row = |device: &mut Device, table: &str, row: u32, values: &[(u32, i64)]| {
        for (column, value) in values {
            device.number(format!("{R}.{table}.1.{column}.{row}"), *value);
        }
    };
    row(&mut device, "4.3", 1, &[(1, 1), (2, 1), (5, 27), (9, 11), (16, 30)]);
    row(&mut device, "4.3", 2, &[(1, 2), (2, 2), (5, -1), (9, 22), (16, -1)]);
    for (at, pdu, phase) in [(1, 2, 1), (2, 2, 2), (3, 1, 1), (4, 1, 2)] {
        let amperes = i64::from(pdu * 100 + phase * 10);
        row(&mut device, "6.3", at, &[(1, 1), (2, pdu.into()), (3, phase.into()), (5, amperes)]);
    }
    // The first has switched outlets, the second metered ones, too: the rows of one table are not those of the other.
    for (at, pdu, outlet) in [(1, 1, 1), (2, 1, 2), (3, 2, 1), (4, 2, 2)] {
        let state = if outlet == 1 { 2 } else { 1 };
        row(&mut device, "9.2.3", at, &[(1, at.into()), (2, pdu), (4, outlet), (5, state), (6, 2)]);
    }
    for (at, outlet) in [(1, 1), (2, 2)] {
        row(&mut device, "9.4.3", at, &[(2, 2), (4, outlet), (6, 5 * outlet), (7, 100 * outlet)]);
    }
    device
}

#[tokio::test]
async fn a_group_of_two_is_read_by_what_its_rows_say_they_are_of() {
    let group = apc_group();
    let all = group.read(None).await;
    assert_eq!(all.of("phase.current"), [(1, 11.0), (2, 12.0), (2001, 21.0), (2002, 22.0)]);
    assert_eq!(all.numbers(Scope::Outlet), [1, 2, 2001, 2002]);
    assert_eq!(all.of("outlet.power"), [(2001, 100.0), (2002, 200.0)]);
    let second = group.read(Some("2")).await;
    assert_eq!(second.of("phase.current"), [(1, 21.0), (2, 22.0)]);
    assert_eq!(second.of("outlet.power"), [(1, 100.0), (2, 200.0)]);
    assert_eq!(second.numbers(Scope::Outlet), [1, 2]);
    // What the old trees say is said of the PDU that has the network.
    assert_eq!(second.of("inlet.power"), []);
    assert_eq!(second.of("inlet.energy"), [(1, 2_200.0)]);
    assert_eq!(second.adopted.instance.identity.serial, None);
    assert_eq!(group.read(Some("1")).await.of("inlet.power"), [(1, 270.0)]);
}

#[tokio::test]
async fn a_part_of_the_inlets_is_not_the_whole() {
    let body = apc_group().read(None).await.body();
    assert_eq!(body["inlet"]["power_w"], serde_json::Value::Null, "{body}");
    assert_eq!(body["inlet"]["gaps"]["power_w"], "unsupported", "{body}");
    assert_eq!(body["inlet"]["energy_wh"], 3_300.0);
    // A phase or a quantity that no inlet has is no gap.
    assert!(body["inlet"].get("frequency_hz").is_none(), "{body}");
}

#[tokio::test]
async fn a_cyberpower_chain_is_read_by_what_its_rows_say_they_are_of() {
    const R: &str = "1.3.6.1.4.1.3808.1.1.6";
    let mut device = Device::of("cyberpower");
    let tables: [(&str, u32); 5] = [("3.4", 1), ("4.4", 3), ("5.4", 2), ("6.1.4", 4), ("6.2.4", 4)];
    for (table, count) in tables {
        let under: Oid = format!("{R}.{table}").parse().unwrap();
        let copied: Vec<(Oid, String)> = device
            .rows()
            .iter()
            .filter(|(oid, _)| oid.is_under(&under))
            .map(|(oid, rest)| {
                let mut arcs = oid.parts();
                let column = arcs[arcs.len() - 2];
                *arcs.last_mut().unwrap() += count;
                let rest = if column == 2 { "2|2".to_owned() } else { rest.clone() };
                (Oid::from_parts(&arcs).unwrap(), rest)
            })
            .collect();
        device.rows().extend(copied);
    }
    device.number(format!("{R}.3.4.1.18.2"), 100);
    let one = Device::of("cyberpower").read(None).await;
    let second = device.read(Some("2")).await;
    assert_eq!(second.of("inlet.power"), [(1, 100.0)]);
    assert_eq!(second.numbers(Scope::Outlet), one.numbers(Scope::Outlet));
    assert_eq!(second.numbers(Scope::Phase), one.numbers(Scope::Phase));
    // What the older tree says is said of the PDU that is asked.
    assert_eq!(second.of("inlet.voltage"), []);
    let all = device.read(None).await;
    assert_eq!(all.of("inlet.power"), [(1, 3917.0), (2001, 100.0)]);
    let first: Vec<u16> = one.numbers(Scope::Outlet);
    let both: Vec<u16> = first.iter().copied().chain(first.iter().map(|n| n + 2_000)).collect();
    assert_eq!(all.numbers(Scope::Outlet), both);
}

#[tokio::test]
async fn pdus_at_one_processing_unit_have_their_own_variables() {
    let mut device = Device::of("rittal-pdu");
    let variables: Oid = "1.3.6.1.4.1.2606.7.4.2.2.1".parse().unwrap();
    let copied: Vec<(Oid, String)> = device
        .rows()
        .iter()
        .filter(|(oid, _)| oid.is_under(&variables) && oid.parts()[13] == 2)
        .map(|(oid, rest)| {
            let mut arcs = oid.parts();
            arcs[13] = 3;
            (Oid::from_parts(&arcs).unwrap(), rest.clone())
        })
        .collect();
    device.rows().extend(copied);
    device.text("1.3.6.1.4.1.2606.7.4.1.2.1.2.3", "PDU-Controller");
    let one = Device::of("rittal-pdu").read(None).await.numbers(Scope::Outlet);
    assert_eq!(device.read(Some("2")).await.numbers(Scope::Outlet), one);
    let third = device.read(Some("3")).await;
    assert_eq!(third.numbers(Scope::Outlet), one);
    assert_eq!(third.adopted.unknown(), None);
    let both: Vec<u16> = one.iter().copied().chain(one.iter().map(|n| n + 3_000)).collect();
    assert_eq!(device.read(None).await.numbers(Scope::Outlet), both);
}
