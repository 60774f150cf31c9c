//! `/v1/events`: Server-Sent Events (WHATWG HTML, section 9.2), resumable by `Last-Event-ID`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::channel::Channel;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use tokio::sync::broadcast::error::RecvError;

use crate::events::Reading;
use crate::model::event::Event;
use crate::wire::event::{EventBody, body};
use crate::wire::problem::Problem;

use super::context::{Answer, Context, json, whole};
use super::problem::bad;

/// A comment this often, so that whatever stands between does not take the stream for dead.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Events sent but not yet taken by the client; then it is slow, and waits.
const AHEAD: usize = 64;

/// What happens, as it happens.
#[utoipa::path(get, path = "/v1/events", tag = "events",
    params(("Last-Event-ID" = Option<u64>, Header, description = "read on after this event"), ("last" = Option<usize>, Query, description = "the last events as a JSON list instead of a stream, up to 1000")),
    responses((status = 200, content_type = "text/event-stream", body = EventBody), (status = 400, body = Problem, content_type = "application/problem+json")))]
pub async fn events(context: Context) -> Answer {
    context.only(&["last"])?;
    if let Some(count) = context.query::<usize>("last", "number from 1 to 1000")? {
        let last: Vec<EventBody> =
            context.state.events.last(count.min(1_000)).iter().map(|event| body(event)).collect();
        return json(StatusCode::OK, &last);
    }
    let after = match context.headers.get("last-event-id") {
        None => None,
        Some(value) => {
            let id = value.to_str().ok().and_then(|text| text.trim().parse::<u64>().ok());
            Some(id.ok_or_else(|| {
                bad("Last-Event-ID is no number", "send the id of the last event that came")
            })?)
        }
    };
    let reading = context.state.events.read(after);
    let stop = context.state.stop.clone();
    let (site, serial) = (context.state.site.clone(), context.who.serial.clone());
    let is_revoked = move || site.borrow().revoked.contains(&serial);
    let (sender, channel) = Channel::<Bytes, Infallible>::new(AHEAD);
    tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = stream(reading, sender, is_revoked) => {}
        }
    });
    let mut response = Response::new(whole(channel));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

async fn stream(
    mut reading: Reading,
    mut sender: http_body_util::channel::Sender<Bytes, Infallible>,
    is_revoked: impl Fn() -> bool,
) {
    let mut first = String::from("retry: 2000\n\n");
    if reading.gap {
        first.push_str("event: gap\ndata: {\"text\":\"older events are no longer kept; read the present state anew\"}\n\n");
    }
    reading.missed.iter().for_each(|event| first.push_str(&lines(event)));
    if sender.send_data(first.into()).await.is_err() {
        return;
    }
    loop {
        let text = match tokio::time::timeout(HEARTBEAT, reading.live.recv()).await {
            Ok(Ok(event)) => lines(&event),
            Ok(Err(RecvError::Lagged(missed))) => {
                format!("event: gap\ndata: {{\"text\":\"{missed} events were missed\"}}\n\n")
            }
            Ok(Err(RecvError::Closed)) => return,
            Err(_) => ": still here\n\n".into(),
        };
        if is_revoked() || sender.send_data(text.into()).await.is_err() {
            return;
        }
    }
}

fn lines(event: &Arc<Event>) -> String {
    // Plain strings and numbers always make JSON, and JSON has no line breaks.
    let data = serde_json::to_string(&body(event)).unwrap_or_else(|_| "{}".into());
    format!("id: {}\nevent: {}\ndata: {data}\n\n", event.id, event.kind)
}
