//! What the gateway sees of a card: states and meters, as they were when it was asked.

use std::sync::Arc;

use pmgate::model::metric::{Metric, Scope, Word};
use pmgate::model::reading::{Datum, Reading};
use pmgate::model::time::{Span, Stamp, Tick};
use pmgate::model::topology::{Layout, Part, Slot};
use pmgate::model::view::{Health, PduView};

use super::physics::Physics;
use super::rack::{Card, MILLIVOLTS, Rack};

/// A card that was not asked yet.
pub fn unknown(card: &Card) -> Arc<PduView> {
    Arc::new(PduView::unknown(card.id.clone(), card.id.as_str().into(), None))
}

fn layout(rack: &Rack, card: usize) -> Arc<Layout> {
    let of = &rack.cards[card];
    let part = |number: usize, id: String| Part { number: number as u16, id, ..Part::default() };
    let inlet = vec![part(1, "I1".into())];
    let branches: Vec<Part> = (1..=of.branches).map(|n| part(n, format!("B{n}"))).collect();
    let sockets = rack.sockets.iter().filter(|socket| socket.card == card);
    let outlets: Vec<Part> = sockets
        .map(|socket| Part {
            branch: Some(socket.branch as u16),
            switchable: true,
            ..part(usize::from(socket.id.number), socket.id.number.to_string())
        })
        .collect();
    let mut slots = Vec::new();
    let mut add = |scope, count: usize, metrics: &[Metric]| {
        for part in 0..count as u16 {
            slots.extend(metrics.iter().map(|metric| Slot { scope, part, metric: *metric }));
        }
    };
    add(Scope::Inlet, 1, &[Metric::ApparentPower, Metric::Voltage, Metric::Rating]);
    add(Scope::Branch, branches.len(), &[Metric::Current, Metric::Rating]);
    let shows: &[Metric] =
        if of.meters.of_outlets { &[Metric::State, Metric::Power] } else { &[Metric::State] };
    add(Scope::Outlet, outlets.len(), shows);
    Layout::new([inlet, vec![], branches, outlets, vec![]], slots)
}

/// What a socket's relay says of itself.
pub fn word(rack: &Rack, socket: usize) -> Word {
    if rack.sockets[socket].closed { Word::On } else { Word::Off }
}

fn value(rack: &Rack, physics: &Physics, card: usize, slot: Slot, error: i64) -> Datum {
    let first = rack.sockets.iter().position(|socket| socket.card == card).unwrap();
    let metered = |load: i64| Datum::Value(load + load * error / 1_000);
    let carries = |name: String| {
        let breaker = rack.breakers.iter().find(|breaker| breaker.name == name).unwrap();
        physics.metered(rack, &breaker.below)
    };
    let id = &rack.cards[card].id;
    match (slot.scope, slot.metric) {
        (Scope::Inlet, Metric::ApparentPower) => metered(carries(format!("{id}/I1"))),
        (_, Metric::Voltage) => Datum::Value(MILLIVOLTS),
        (Scope::Inlet, Metric::Rating) => Datum::Value(32_000),
        (Scope::Branch, Metric::Rating) => Datum::Value(16_000),
        (Scope::Branch, _) => {
            let load = carries(format!("{id}/B{}", slot.part + 1));
            metered(load * 1_000 / MILLIVOLTS)
        }
        (_, Metric::State) => Datum::Word(word(rack, first + usize::from(slot.part))),
        _ => metered(physics.metered(rack, &[first + usize::from(slot.part)])),
    }
}

/// A card that was just polled.
pub fn seen(
    rack: &Rack,
    physics: &Physics,
    card: usize,
    error: i64,
    now: Tick,
    at: Stamp,
) -> Arc<PduView> {
    let layout = layout(rack, card);
    let readings: Vec<Reading> = layout
        .slots()
        .iter()
        .map(|slot| Reading { datum: value(rack, physics, card, *slot, error), at })
        .collect();
    let mut view = PduView::clone(&unknown(&rack.cards[card]));
    view.layout = layout;
    view.readings = readings.into();
    view.health = Health::Online;
    (view.observed_at, view.observed, view.complete) = (Some(at), Some(now), Some(now));
    Arc::new(view)
}

/// A card that did not answer a poll.
pub fn failed(view: &PduView, now: Tick) -> Arc<PduView> {
    let mut view = view.clone();
    view.failed_polls += 1;
    let recent = view.observed.is_some_and(|seen| now - seen <= Span::seconds(30));
    let why = "no answer".to_owned();
    view.health = if recent { Health::Stale(why) } else { Health::Offline(why) };
    Arc::new(view)
}

/// A card of which one outlet was looked at.
pub fn looked(
    view: &PduView,
    rack: &Rack,
    physics: &Physics,
    socket: usize,
    everything: bool,
    at: Stamp,
) -> Arc<PduView> {
    let mut view = view.clone();
    let card = rack.sockets[socket].card;
    let first = rack.sockets.iter().position(|of| of.card == card).unwrap();
    let part = (socket - first) as u16;
    let mut readings = view.readings.to_vec();
    for (place, metric) in view.layout.slots_of(Scope::Outlet, part) {
        if metric == Metric::State || everything {
            let slot = Slot { scope: Scope::Outlet, part, metric };
            readings[place] = Reading { datum: value(rack, physics, card, slot, 0), at };
        }
    }
    view.readings = readings.into();
    Arc::new(view)
}
