//! `/metrics`: OpenMetrics for whoever scrapes. The numbers are the board's; a scrape asks no device.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hyper::StatusCode;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, text::encode};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use crate::model::metric::{Metric, Scope, Word};
use crate::model::reading::Datum;
use crate::model::view::{Health, PduView};
use crate::wire::problem::Problem;

use super::context::{Answer, Context, State, bytes};

/// Everything that is known now.
#[utoipa::path(get, path = "/metrics", tag = "gateway", responses((status = 200, content_type = "application/openmetrics-text", body = String)))]
pub async fn metrics(context: Context) -> Answer {
    context.only(&[])?;
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Everything { state: context.state.clone() }));
    let mut text = String::new();
    encode(&mut text, &registry).map_err(|_| {
        Problem::new(500, "Internal error", "the metrics cannot be written", "report this")
    })?;
    Ok(bytes(StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", text))
}

struct Everything {
    state: Arc<State>,
}

impl fmt::Debug for Everything {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Everything")
    }
}

type Labels = Vec<(&'static str, String)>;
/// A family's name without its unit, help, unit, whether it counts, and its samples.
struct Family {
    help: &'static str,
    unit: Option<&'static str>,
    counts: bool,
    samples: Vec<(Labels, f64)>,
}

/// Names, helps and units of the readings by scope and metric.
pub(super) const READINGS: [(Metric, &str, Option<&str>, bool); 9] = [
    (Metric::Power, "power", Some("watts"), false),
    (Metric::ApparentPower, "apparent_power", Some("voltamperes"), false),
    (Metric::Current, "current", Some("amperes"), false),
    (Metric::Voltage, "voltage", Some("volts"), false),
    (Metric::PowerFactor, "power_factor", Some("ratio"), false),
    (Metric::Frequency, "frequency", Some("hertz"), false),
    (Metric::Energy, "energy", Some("watthours"), true),
    (Metric::Temperature, "temperature", Some("celsius"), false),
    (Metric::Humidity, "humidity", Some("percent"), false),
];

impl Collector for Everything {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut families: BTreeMap<String, Family> = BTreeMap::new();
        let site = self.state.site.borrow().clone();
        for view in self.state.board.views() {
            device(&mut families, &view);
            for scope in Scope::ALL {
                readings(&mut families, &view, scope, &|number| {
                    let outlet = crate::model::id::OutletId { pdu: view.id.clone(), number };
                    site.host_of(&outlet).map(|(id, _)| id.to_string())
                });
            }
        }
        own(&mut families, &self.state);
        limits(&mut families, &self.state);
        for (name, family) in &families {
            let unit = family.unit.map(|unit| Unit::Other(unit.to_owned()));
            let kind = if family.counts { MetricType::Counter } else { MetricType::Gauge };
            let mut metric = encoder.encode_descriptor(name, family.help, unit.as_ref(), kind)?;
            for (labels, value) in &family.samples {
                let labelled = metric.encode_family(labels)?;
                if family.counts {
                    ConstCounter::new(*value).encode(labelled)?;
                } else {
                    ConstGauge::new(*value).encode(labelled)?;
                }
            }
        }
        Ok(())
    }
}

fn put(
    families: &mut BTreeMap<String, Family>,
    name: &str,
    help: &'static str,
    unit: Option<&'static str>,
    counts: bool,
    labels: Labels,
    value: f64,
) {
    let family = families.entry(name.to_owned()).or_insert_with(|| Family {
        help,
        unit,
        counts,
        samples: Vec::new(),
    });
    family.samples.push((labels, value));
}

fn device(families: &mut BTreeMap<String, Family>, view: &PduView) {
    let labels = || vec![("pdu", view.id.to_string()), ("name", view.name.to_string())];
    let up = f64::from(u8::from(view.health == Health::Online));
    put(
        families,
        "pdu_up",
        "Whether the last poll of the PDU was answered",
        None,
        false,
        labels(),
        up,
    );
    if let Some(at) = view.observed_at {
        let seconds = at.0 as f64 / 1_000.0;
        put(
            families,
            "pdu_last_poll_timestamp",
            "When the last answered poll of the PDU began",
            Some("seconds"),
            false,
            labels(),
            seconds,
        );
    }
    let failed = view.failed_polls as f64;
    put(
        families,
        "pdu_polls_failed",
        "Polls of the PDU that were not answered",
        None,
        true,
        labels(),
        failed,
    );
}

fn readings(
    families: &mut BTreeMap<String, Family>,
    view: &PduView,
    scope: Scope,
    host_of: &dyn Fn(u16) -> Option<String>,
) {
    // Readings of a PDU that is offline are not the present's.
    if matches!(view.health, Health::Offline(_)) {
        return;
    }
    for (at, part) in (0u16..).zip(view.layout.parts(scope)) {
        let labels = || {
            let mut labels = vec![("pdu", view.id.to_string())];
            match scope {
                Scope::Inlet => labels.push(("inlet", part.id.clone())),
                Scope::Phase => labels.push(("phase", part.id.clone())),
                Scope::Branch => labels.push(("branch", part.id.clone())),
                Scope::Sensor => labels.push(("sensor", part.id.clone())),
                Scope::Outlet => {
                    labels.push(("outlet", part.id.clone()));
                    // What it does not have is left out: to Prometheus an empty label is none.
                    let name = part.name.as_ref().or(part.label.as_ref());
                    labels.extend(name.map(|name| ("name", name.clone())));
                    labels.extend(host_of(part.number).map(|host| ("host", host)));
                }
            }
            labels
        };
        for (metric, name, unit, counts) in READINGS {
            let Some(Datum::Value(kept)) =
                view.reading(scope, at, metric).map(|reading| reading.datum)
            else {
                continue;
            };
            let value = metric.unit().map_or(0.0, |unit| unit.to_f64(kept));
            put(
                families,
                &format!("pdu_{}_{name}", scope.word()),
                "As the PDU tells it",
                unit,
                counts,
                labels(),
                value,
            );
        }
        if scope == Scope::Outlet
            && let Ok(state @ (Word::On | Word::Off)) = view.outlet_state(at)
        {
            let value = f64::from(u8::from(state == Word::On));
            put(
                families,
                "pdu_outlet_state",
                "Whether the outlet is on (1) or off (0); absent while unknown",
                None,
                false,
                labels(),
                value,
            );
        }
        if let Some(Datum::Value(kept)) =
            view.reading(scope, at, Metric::Rating).map(|reading| reading.datum)
        {
            put(
                families,
                &format!("pdu_{}_rating", scope.word()),
                "Rated current",
                Some("amperes"),
                false,
                labels(),
                kept as f64 / 1_000.0,
            );
        }
    }
}

/// The limits as `GET /v1/limits` tells them.
fn limits(families: &mut BTreeMap<String, Family>, state: &State) {
    for limit in crate::switching::body::limits(&state.switching.limits()) {
        let labels = vec![("limit", limit.id), ("kind", limit.kind)];
        for (name, help, watts) in [
            ("budget", "What may flow over the limit for long, derated", limit.budget_w),
            ("load", "What flows over the limit, with what plans have taken of it", limit.load_w),
            ("headroom", "What is left of the limit", limit.headroom_w),
        ] {
            let name = format!("pmgate_limit_{name}");
            put(families, &name, help, Some("watts"), false, labels.clone(), watts);
        }
    }
}

fn own(families: &mut BTreeMap<String, Family>, state: &State) {
    let labels = Vec::new;
    let uptime = (state.clock.tick() - state.started).0 as f64 / 1_000.0;
    put(
        families,
        "pmgate_uptime",
        "Time since the gateway started",
        Some("seconds"),
        false,
        labels(),
        uptime,
    );
    let written = state.counts.written.load(Ordering::Relaxed) as f64;
    put(
        families,
        "pmgate_store_rows_written",
        "Rows of readings stored since the start",
        None,
        true,
        labels(),
        written,
    );
    let traps = &state.traps.counts;
    for (sender, count) in [
        ("known", traps.known.load(Ordering::Relaxed)),
        ("unknown", traps.unknown.load(Ordering::Relaxed)),
        ("unreadable", traps.unreadable()),
    ] {
        put(
            families,
            "pmgate_traps",
            "SNMP traps since the start; those of unknown senders, and what was no trap or not proven, were dropped",
            None,
            true,
            vec![("sender", sender.to_owned())],
            count as f64,
        );
    }
    let dropped = state.counts.dropped.load(Ordering::Relaxed) as f64;
    put(
        families,
        "pmgate_store_rows_dropped",
        "Rows of readings lost since the start",
        None,
        true,
        labels(),
        dropped,
    );
    put(
        families,
        "pmgate_running_plans",
        "Plans that are being carried out",
        None,
        false,
        labels(),
        state.switching.running_plans() as f64,
    );
    let expires = state.tls.borrow().not_after as f64;
    put(
        families,
        "pmgate_certificate_expiry_timestamp",
        "Until when the gateway's certificate is valid",
        Some("seconds"),
        false,
        labels(),
        expires,
    );
}
