//! Polling: how much a poll costs the device, and that a dead one costs nobody else.

use std::time::Duration;

use pmgate::model::metric::{Metric, Scope};
use pmgate::model::view::Health;
use pmgate::sim::families::Family;

use crate::proxy::{Fault, Proxy};
use crate::rig::{House, Sim, settings, v2c};

#[tokio::test]
async fn a_poll_of_24_outlets_with_totals_takes_three_requests_at_most() {
    for delay in [0, 20] {
        let sim = Sim::start(Family::ApcRpdu2, 24).await;
        let proxy = Proxy::before(sim.address).await;
        let mut house = House::new();
        house.fleet.apply(vec![settings("pdu-a", v2c(proxy.address), 60_000)]);
        house.rows.recv().await.unwrap();
        let handle = house.fleet.get(&"pdu-a".parse().unwrap()).unwrap();
        proxy.take_requests();
        proxy.delay(Duration::from_millis(delay));
        // Everything, younger than now.
        let now = house.fleet.services().clock.tick();
        let view = handle.since(now).await;
        let requests = proxy.take_requests().len();
        assert!(requests <= 3, "{requests} requests at {delay} ms");
        for metric in [Metric::State, Metric::Current, Metric::Power, Metric::Energy] {
            for outlet in 0..24 {
                let reading = view.reading(Scope::Outlet, outlet, metric).unwrap();
                assert!(reading.datum.is_good(), "{metric:?} of {outlet}");
            }
        }
        for metric in [Metric::Power, Metric::Energy, Metric::ApparentPower] {
            assert!(view.reading(Scope::Inlet, 0, metric).unwrap().datum.is_good(), "{metric:?}");
        }
        house.fleet.end().await;
    }
}

#[tokio::test]
async fn a_dead_pdu_turns_stale_then_offline_with_its_reason_and_delays_no_other() {
    let (good, bad) =
        (Sim::start(Family::ApcRpdu2, 4).await, Sim::start(Family::ApcRpdu2, 4).await);
    let proxy = Proxy::before(bad.address).await;
    let house = House::new();
    house.fleet.apply(vec![
        settings("good", v2c(good.address), 200),
        settings("bad", v2c(proxy.address), 200),
    ]);
    let mut bad_view = house.board.watch(&"bad".parse().unwrap()).unwrap();
    let good_view = house.board.watch(&"good".parse().unwrap()).unwrap();
    bad_view.wait_for(|view| view.health == Health::Online).await.unwrap();
    proxy.silent(true);
    let before = good_view.borrow().version;
    let began = house.fleet.services().clock.tick();
    bad_view.wait_for(|view| view.health.word() == "stale").await.unwrap();
    let gone = bad_view.wait_for(|view| view.health.word() == "offline").await.unwrap().clone();
    assert!(gone.health.reason().unwrap().contains("no answer"), "{:?}", gone.health);
    // An outlet of an offline PDU is unknown, whatever it was.
    assert!(gone.outlet_state(0).is_err());
    let took = (house.fleet.services().clock.tick() - began).0;
    let polls = good_view.borrow().version - before;
    assert!(polls + 2 >= took / 200, "{polls} polls of the good one in {took} ms");
    proxy.silent(false);
    bad_view.wait_for(|view| view.health == Health::Online).await.unwrap();
    house.fleet.end().await;
}

#[tokio::test]
async fn lost_packets_do_not_make_gaps() {
    let sim = Sim::start(Family::ApcRpdu2, 24).await;
    let proxy = Proxy::before(sim.address).await;
    let house = House::new();
    let mut patient = settings("pdu-a", v2c(proxy.address), 300);
    patient.manners.attempts = Some(3);
    house.fleet.apply(vec![patient]);
    let mut view = house.board.watch(&"pdu-a".parse().unwrap()).unwrap();
    view.wait_for(|view| view.health == Health::Online).await.unwrap();
    proxy.faults(&[Fault::Lose, Fault::Pass, Fault::Lose]);
    let version = view.borrow_and_update().version;
    let after = view.wait_for(|view| view.version >= version + 2).await.unwrap().clone();
    assert_eq!(after.quality().word(), "good");
    assert_eq!(after.health, Health::Online);
    house.fleet.end().await;
}
