//! What a handler gets: the gateway's state, and the request with whoever made it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::access::Identity;
use crate::board::Board;
use crate::device::Fleet;
use crate::device::traps::Senders;
use crate::events::Events;
use crate::model::id::RackId;
use crate::model::time::{Clock, Stamp, Tick};
use crate::store::Archive;
use crate::store::writer::Counts;
use crate::switching::{Site, Switching};
use crate::tls::server::Server;
use crate::wire::problem::Problem;

use super::stream::{Broken, Turns, internal};

/// The gateway, as the API sees it.
pub struct State {
    /// The rack.
    pub rack: RackId,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The latest of every PDU.
    pub board: Board,
    /// The devices.
    pub fleet: Fleet,
    /// The gate.
    pub switching: Switching,
    /// Readings over time.
    pub store: Arc<Archive>,
    /// Turns at reading the store: so many readers at once, the others wait.
    pub turns: Turns,
    /// What was written and dropped.
    pub counts: Arc<Counts>,
    /// Traps taken and dropped.
    pub traps: Arc<Senders>,
    /// What happens.
    pub events: Events,
    /// What the configuration says about switching.
    pub site: watch::Receiver<Arc<Site>>,
    /// The server's TLS, as it is now.
    pub tls: watch::Receiver<Arc<Server>>,
    /// When the gateway started.
    pub started_at: Stamp,
    /// The same by the monotonic clock.
    pub started: Tick,
    /// Whether the last reload of the configuration was refused.
    pub config_refused: Arc<AtomicBool>,
    /// Ends streams when the gateway ends.
    pub stop: CancellationToken,
}

/// A body that is sent.
pub type Body = BoxBody<Bytes, Broken>;

/// What a handler returns.
pub type Answer = Result<Response<Body>, Problem>;

/// A request, read and authorised.
pub struct Context {
    /// The gateway.
    pub state: Arc<State>,
    /// Who asks.
    pub who: Identity,
    /// Values of the path's parameters.
    pub params: BTreeMap<String, String>,
    /// The query, decoded.
    pub query: Vec<(String, String)>,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, read whole.
    pub body: Bytes,
}

impl State {
    /// Reads the store, once there is a turn. It has the turn until it is done, also when nobody waits for it any more.
    pub async fn in_turn<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Archive) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let turn = self.turns.working.clone().acquire_owned().await.map_err(|error| {
            Problem::new(503, "Shutting down", error.to_string(), "ask again in a moment")
        })?;
        let store = self.store.clone();
        let done = tokio::task::spawn_blocking(move || {
            let found = read(&store);
            drop(turn);
            found
        });
        done.await.map_err(|error| internal(&error))?
    }
}

impl Context {
    /// A parameter of the path.
    pub fn param(&self, name: &str) -> &str {
        self.params.get(name).map_or("", String::as_str)
    }

    /// A parameter of the query, parsed.
    pub fn query<T: std::str::FromStr>(
        &self,
        name: &str,
        what: &str,
    ) -> Result<Option<T>, Problem> {
        let mut all = self.query.iter().filter(|(key, _)| key == name);
        let Some((_, text)) = all.next() else { return Ok(None) };
        if all.next().is_some() {
            return Err(Problem::new(
                400,
                "Bad query",
                format!("{name} is given more than once"),
                format!("write {name}= once"),
            ));
        }
        text.parse().map(Some).map_err(|_| {
            let shown: String = text.chars().take(60).collect();
            Problem::new(
                400,
                "Bad query",
                format!("{name}={shown} is no {what}"),
                format!("write {name}= and {what}"),
            )
        })
    }

    /// Faults a query with parameters that the route does not have: a mistyped one must not be ignored.
    pub fn only(&self, known: &[&str]) -> Result<(), Problem> {
        match self.query.iter().find(|(key, _)| !known.contains(&key.as_str())) {
            None => Ok(()),
            Some((key, _)) => {
                let shown: String = key.chars().take(60).collect();
                let next = if known.is_empty() {
                    "leave the query out".into()
                } else {
                    format!("known are: {}", known.join(", "))
                };
                Err(Problem::new(
                    400,
                    "Bad query",
                    format!("there is no parameter \"{shown}\" here"),
                    next,
                ))
            }
        }
    }

    /// `max_age_ms`: how old an answer may be.
    pub fn max_age(&self) -> Result<Option<u64>, Problem> {
        self.query("max_age_ms", "number of milliseconds")
    }

    /// The moment since which a reading must be, for `max_age_ms`.
    pub fn since(&self) -> Result<Option<Tick>, Problem> {
        let now = self.state.clock.tick();
        Ok(self.max_age()?.map(|age| Tick(now.0.saturating_sub(age))))
    }

    /// `limit` of a list.
    pub fn limit(&self, default: usize) -> Result<usize, Problem> {
        let limit = self.query::<usize>("limit", "number from 1 to 1000")?.unwrap_or(default);
        if (1..=1_000).contains(&limit) {
            return Ok(limit);
        }
        Err(Problem::new(
            400,
            "Bad query",
            "limit is out of bounds",
            "write limit= and a number from 1 to 1000",
        ))
    }

    /// `limit` and `cursor` of a list, applied to items with their keys in order.
    pub fn page<T>(
        &self,
        items: Vec<(String, T)>,
        default: usize,
    ) -> Result<(Vec<T>, Option<String>), Problem> {
        let limit = self.limit(default)?;
        let cursor = self.query::<String>("cursor", "cursor")?;
        let after = cursor.map_or(0, |cursor| {
            items.iter().position(|(key, _)| *key == cursor).map_or(items.len(), |at| at + 1)
        });
        let more = items.len().saturating_sub(after) > limit;
        let mut page = Vec::new();
        let mut last = None;
        for (key, item) in items.into_iter().skip(after).take(limit) {
            last = Some(key);
            page.push(item);
        }
        Ok((page, last.filter(|_| more)))
    }
}

/// A body of JSON that came in, which is an object: serde takes a list for the fields by their places, and nobody means that.
pub fn object<T: serde::de::DeserializeOwned>(body: &[u8]) -> serde_json::Result<T> {
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    if first.is_some_and(|first| *first != b'{') {
        serde_json::from_slice::<serde::de::IgnoredAny>(body)?;
        let is = if first == Some(&b'[') { "it is a list" } else { "it is a single value" };
        return Err(serde::de::Error::custom(format!("{is}, and an object is needed")));
    }
    serde_json::from_slice(body)
}

/// A body that cannot break off.
pub fn whole<B>(body: B) -> Body
where
    B: hyper::body::Body<Data = Bytes, Error = std::convert::Infallible> + Send + Sync + 'static,
{
    body.map_err(|never| match never {}).boxed()
}

/// A body of bytes.
pub fn bytes(status: StatusCode, kind: &'static str, content: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(whole(Full::new(content.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// A body of JSON.
pub fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    let content = serde_json::to_vec(value).map_err(|error| {
        Problem::new(
            500,
            "Internal error",
            format!("the answer cannot be written: {error}"),
            "report this with the request that caused it",
        )
    })?;
    Ok(bytes(status, "application/json", content))
}
