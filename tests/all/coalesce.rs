//! Any number of readers cost a device one poll per `max_age_ms`.

use std::time::Duration;

use pmgate::cli::args::Client;
use pmgate::cli::remote::Gateway as Remote;
use pmgate::sim::families::Family;

use crate::proxy::Proxy;
use crate::rig::{Gateway, Sim, pdu_section};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_readers_cost_one_poll_per_max_age() {
    let sim = Sim::start(Family::ApcRpdu2, 24).await;
    let proxy = Proxy::before(sim.address).await;
    // The schedule itself stays out of the way.
    let section = pdu_section("pdu-a", proxy.address, "fast_s = 3600\nslow_s = 3600");
    let gateway = tokio::task::spawn_blocking(move || {
        let gateway = Gateway::start(&section);
        gateway.wait_online("pdu-a");
        gateway
    })
    .await
    .unwrap();
    proxy.delay(Duration::from_millis(20));
    let options = Client {
        url: Some(gateway.url.clone()),
        cert: Some(gateway.dir.path().join("client.pem")),
        key: Some(gateway.dir.path().join("client.key")),
        ca: Some(gateway.dir.path().join("ca.pem")),
        context: None,
        json: false,
    };
    // What one poll costs.
    let mut one = Remote::connect(&options).await.map_err(|exit| exit.error).unwrap();
    proxy.take_requests();
    one.get("/v1/pdus/pdu-a?max_age_ms=0").await.map_err(|exit| exit.error).unwrap();
    let per_poll = proxy.take_requests().len();
    assert!((1..=3).contains(&per_poll), "{per_poll}");

    const MAX_AGE_MS: u128 = 1_000;
    let mut connected = Vec::new();
    for _ in 0..200 {
        connected.push(Remote::connect(&options).await.map_err(|exit| exit.error).unwrap());
    }
    let began = tokio::time::Instant::now();
    let readers = connected.into_iter().map(|mut remote| {
        tokio::spawn(async move {
            for _ in 0..5 {
                let body = remote
                    .get("/v1/pdus/pdu-a?max_age_ms=1000")
                    .await
                    .map_err(|exit| exit.error)
                    .unwrap();
                assert_eq!(body["state"], "online");
                // Young when it was made; the way back is not the gateway's.
                assert!(body["age_ms"].as_u64().unwrap() <= 1_100, "{}", body["age_ms"]);
            }
        })
    });
    for reader in readers.collect::<Vec<_>>() {
        reader.await.unwrap();
    }
    let took = began.elapsed().as_millis();
    let polls = proxy.take_requests().len() as u128 / per_poll as u128;
    assert!(polls <= took / MAX_AGE_MS + 1, "{polls} polls in {took} ms for 1000 reads");
}
