//! Following what happens: the gateway's event stream, for `pmgate events --follow` and for plans under way.

use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::{Method, Response};
use serde_json::Value;

use super::exit::Exit;
use super::remote::Gateway;

/// An open event stream. Its connection is its own: nothing else can be asked over it.
pub struct Stream {
    response: Response<Incoming>,
    rest: String,
    /// Keeps the connection.
    _gateway: Option<Gateway>,
}

impl Stream {
    /// Reads on after an event, or from now.
    pub async fn open(gateway: &mut Gateway, after: Option<u64>) -> Result<Self, Exit> {
        let id = after.map(|id| id.to_string());
        let mut headers = vec![("accept", "text/event-stream")];
        headers.extend(id.as_deref().map(|id| ("last-event-id", id)));
        let response = gateway.send(Method::GET, "/v1/events", &headers, None).await?;
        Ok(Self { response, rest: String::new(), _gateway: None })
    }

    /// The same over a connection that is kept with it.
    pub async fn over(mut gateway: Gateway) -> Result<Self, Exit> {
        let stream = Self::open(&mut gateway, None).await?;
        Ok(Self { _gateway: Some(gateway), ..stream })
    }

    /// The next event; nothing once the stream has ended.
    pub async fn next(&mut self) -> Result<Option<Value>, Exit> {
        loop {
            while let Some(end) = self.rest.find("\n\n") {
                let block: String = self.rest.drain(..end + 2).collect();
                let data = block.lines().find_map(|line| line.strip_prefix("data: "));
                if let Some(event) = data.and_then(|data| serde_json::from_str(data).ok()) {
                    return Ok(Some(event));
                }
            }
            let Some(frame) = self.response.body_mut().frame().await else { return Ok(None) };
            if let Some(data) = frame.map_err(Exit::unreachable)?.data_ref() {
                self.rest.push_str(&String::from_utf8_lossy(data));
            }
        }
    }
}

/// Between two looks at a plan while no stream tells of it, and while its end is told and not kept yet.
const LOOK: Duration = Duration::from_millis(250);
/// The longest wait for an event: one that was lost is made up for.
const LONGEST: Duration = Duration::from_secs(15);

/// What tells when a plan is to be looked at again: the event stream, or the clock where there is none.
pub struct Watch {
    stream: Option<Stream>,
    plan: String,
}

impl Watch {
    /// Of a plan.
    pub async fn of(plan: &str, client: &super::args::Client) -> Self {
        let stream = match Gateway::connect(client).await {
            Ok(gateway) => Stream::over(gateway).await.ok(),
            Err(_) => None,
        };
        Self { stream, plan: plan.to_owned() }
    }

    /// Comes back when something has happened to the plan, or may have.
    pub async fn moved(&mut self) {
        loop {
            let Some(stream) = &mut self.stream else {
                tokio::time::sleep(LOOK).await;
                return;
            };
            match tokio::time::timeout(LONGEST, stream.next()).await {
                Ok(Ok(Some(event))) if event["plan"] == self.plan.as_str() => {
                    let ends = ["plan.done", "plan.stopped", "plan.interrupted"];
                    if event["kind"].as_str().is_some_and(|kind| ends.contains(&kind)) {
                        // From here on it is a matter of moments.
                        self.stream = None;
                    }
                    return;
                }
                // A gap may have had it.
                Ok(Ok(Some(event))) if event["kind"].is_null() => return,
                Ok(Ok(Some(_))) => {}
                Ok(Ok(None) | Err(_)) => self.stream = None,
                Err(_) => return,
            }
        }
    }
}
