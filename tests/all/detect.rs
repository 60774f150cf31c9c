//! Which driver a device is told to need: not by one object alone, which another model of the family may lack.

use std::path::Path;

use pmgate::link::recording::Recording;
use pmgate::link::{Line, Patience};
use pmgate::model::id::DriverId;
use pmgate::model::oid::Oid;
use pmgate::profile::catalog::Catalog;
use pmgate::profile::detect::{Detection, Undetected};
use pmgate::profile::rows::{item_at, unit_row};
use pmgate::profile::sweep::{Item, Memory};

use crate::rows::{Device, catalog};

/// The driver that a recording is told to need, among all that there are.
pub async fn detect(catalog: &Catalog, line: &mut Line) -> Result<DriverId, Undetected> {
    let detection = Detection::among(catalog.speaking(true));
    let set = detection.set().unwrap();
    let mut sweep = set.sweep(Memory::careful());
    while let Some(ask) = sweep.next_ask() {
        let reply = line.exchange(&ask).await.unwrap();
        sweep.answer(reply);
    }
    detection.verdict(&sweep.finish().0, || "a recording".into())
}

async fn told(catalog: &Catalog, device: &Device) -> Result<DriverId, Undetected> {
    let recording = Recording::parse(&device.recording()).unwrap();
    detect(catalog, &mut Line::new(Box::new(recording), Patience::new((0, 1_000, 1)))).await
}

#[tokio::test]
async fn no_family_hangs_on_one_object() {
    let catalog = catalog();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings");
    let system: Oid = "1.3.6.1.2.1.1".parse().unwrap();
    let mut hanging = Vec::new();
    for profile in catalog.speaking(true) {
        let id = profile.id.as_str();
        if !dir.join(format!("{id}.snmprec")).exists() {
            continue;
        }
        let row = unit_row(profile, None);
        for test in profile.detect.iter().flatten() {
            let Some(Item::Oid(oid)) = item_at(&test.source, &row) else { continue };
            let mut device = Device::of(id);
            if oid.is_under(&system) || !device.rows().contains_key(&oid) {
                continue;
            }
            device.without(oid.to_string());
            let told = told(catalog, &device).await;
            if told.as_ref() != Ok(&profile.id) {
                hanging.push(format!("{id} {oid}: {told:?}"));
            }
        }
    }
    assert!(hanging.is_empty(), "{}", hanging.join("\n"));
}

async fn is_told(device: &Device, driver: &str) {
    let told = told(catalog(), device).await;
    assert_eq!(told.map(|id| id.to_string()), Ok(driver.to_owned()));
}

#[tokio::test]
async fn models_that_lack_a_part_of_their_tree_are_told_all_the_same() {
    // CyberPower's newer cards do not answer the older tree.
    is_told(Device::of("cyberpower").without("1.3.6.1.4.1.3808.1.1.3"), "cyberpower").await;
    is_told(Device::of("tripplite-ats").without("1.3.6.1.4.1.850.1.1.3.4.2"), "tripplite-ats")
        .await;
    // An AP7900 whose model stands in sysDescr only.
    let mut apc = Device::of("apc-rpdu");
    apc.without("1.3.6.1.4.1.318.1.1.12.1").without("1.3.6.1.4.1.318.1.1.4");
    is_told(&apc, "apc-rpdu").await;
    let adopted = apc.adopt(None).await.unwrap();
    assert_eq!(adopted.instance.identity.model.as_deref(), Some("AP7868"));
    assert_eq!(adopted.unknown(), None);
    // A processing unit with a PDU as its third device.
    let mut rittal = Device::of("rittal-pdu");
    rittal.text("1.3.6.1.2.1.1.1.0", "Rittal CMC III-PU SN 1 HW V3.00 - SW V3.15.70_1");
    rittal.text("1.3.6.1.4.1.2606.7.4.1.2.1.2.1", "CMCIII-PU");
    rittal.text("1.3.6.1.4.1.2606.7.4.1.2.1.2.3", "PDU-Controller");
    is_told(&rittal, "rittal-pdu").await;
    rittal.text("1.3.6.1.4.1.2606.7.4.1.2.1.2.3", "CMCIII-SEN");
    assert!(told(catalog(), &rittal).await.is_err());
}

/// Firmware and resold cards answer the enterprise alone, or a product of another number.
#[tokio::test]
async fn a_card_that_calls_itself_otherwise_is_told_by_what_it_has() {
    for (driver, calls_itself) in [
        ("apc-cpdu", "318.1.3.4.10"),
        ("apc-rpdu", "318"),
        ("apc-rpdu2", "318.1.3.4.5"),
        ("cyberpower", "3808.1.1.7"),
        ("eaton-epdu", "534.10.2.1"),
        ("geist-v5", "21239.42.1.53"),
        ("janitza", "34278.10.5"),
        ("tripplite", "850.1"),
        ("tripplite-ats", "850.1"),
    ] {
        let mut device = Device::of(driver);
        let named = device
            .rows()
            .insert("1.3.6.1.2.1.1.2.0".parse().unwrap(), format!("6|1.3.6.1.4.1.{calls_itself}"));
        assert!(named.is_some(), "{driver}");
        is_told(&device, driver).await;
    }
    // Without a model, and of a gateway whose only PDU has a great address.
    let mut sentry = Device::of("sentry4");
    for tree in ["1.1.3", "2.2.1.5", "8.3"] {
        sentry.without(format!("1.3.6.1.4.1.1718.4.1.{tree}"));
    }
    sentry.without("1.3.6.1.2.1.1.1");
    is_told(&sentry, "sentry4").await;
    is_told(&Device::recorded("schleifenbauer", "schleifenbauer-far"), "schleifenbauer").await;
    // What says of itself that it is one, and tells no more.
    for (driver, id, descr) in [
        ("raritan-px1", "13742.4", "Raritan Dominion PX - Firmware Version 010507-11172"),
        ("apc-masterswitch", "318", "APC MasterSwitch PDU"),
    ] {
        let mut device = Device::of(driver);
        device.rows().clear();
        device.text("1.3.6.1.2.1.1.1.0", descr);
        let id = format!("6|1.3.6.1.4.1.{id}");
        device.rows().insert("1.3.6.1.2.1.1.2.0".parse().unwrap(), id);
        is_told(&device, driver).await;
    }
}

#[tokio::test]
async fn a_pdu_may_be_the_second_device_of_its_card() {
    let mut device = Device::of("tripplite");
    let devices: Oid = "1.3.6.1.4.1.850.1.1".parse().unwrap();
    let moved: Vec<(Oid, String)> = std::mem::take(device.rows())
        .into_iter()
        .map(|(oid, rest)| {
            let mut arcs = oid.parts();
            // The device stands behind the column: in 1.2.1, 2.1.1 and 3.2.2.1.1 at once, in the other tables of
            // PDUs after two levels more.
            let at = match arcs.get(9..).unwrap_or_default() {
                [1, 2, 1, ..] | [2, 1, 1, ..] => 13,
                [3, 2, 1 | 2, ..] => 15,
                [3, 2, 3, 1, 2, ..] => 17,
                [3, 2, 3, ..] => 16,
                _ => usize::MAX,
            };
            if oid.is_under(&devices) && arcs.get(at) == Some(&1) {
                arcs[at] = 2;
            }
            (Oid::from_parts(&arcs).unwrap(), rest)
        })
        .collect();
    device.rows().extend(moved);
    is_told(&device, "tripplite").await;
    let (first, second) = (Device::of("tripplite").read(None).await, device.read(Some("2")).await);
    let outlets = pmgate::model::metric::Scope::Outlet;
    assert_eq!(second.numbers(outlets), first.numbers(outlets));
}

#[tokio::test]
async fn a_metered_rack_pdu_is_told_by_its_own_word_and_read_as_far_as_it_goes() {
    let mut device = Device::of("apc-rpdu");
    let descr = "APC Metered Rack PDU (MB:v3.7.0 PF:v2.7.0 AF1:v2.7.3 MN:AP7820 HR:B2 SN: 0A0B0C0D0E0F  MD:09/30/2006)";
    device.text("1.3.6.1.2.1.1.1.0", descr);
    for tree in ["318.1.1.4", "318.1.1.12.1", "318.1.1.12.3"] {
        device.without(format!("1.3.6.1.4.1.{tree}"));
    }
    is_told(&device, "apc-rpdu").await;
    let read = device.read(None).await;
    let identity = &read.adopted.instance.identity;
    let told = [&identity.model, &identity.serial, &identity.firmware];
    assert_eq!(told.map(|t| t.as_deref().unwrap()), ["AP7820", "0A0B0C0D0E0F", "v2.7.3"]);
    assert!(!read.of("phase.current").is_empty());
    let body = read.body();
    assert!(body["outlets"].as_array().unwrap().is_empty(), "{body}");
}
