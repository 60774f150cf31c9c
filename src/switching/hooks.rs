//! Webhooks of hosts: called before a host goes dark and after it has come up, within a time. One that answers 202 is at
//! it (a node is being drained), and is asked again.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::handshake;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::model::event::About;
use crate::model::id::{HostId, PlanId};
use crate::model::secret::Secret;
use crate::model::switching::Outcome;
use crate::model::time::Span;
use crate::plan::record::{OnFailure, StepRecord};
use crate::plan::run::{Moment, Unanswered};
use crate::resolve::Address;
use crate::store::journal::JournalError;

use super::submit::Switching;

/// Between two calls of a webhook that is at it, or does not answer.
const AGAIN: Span = Span::seconds(2);
/// With less time than this left it is not asked again.
const LAST: Span = Span(300);
/// How long one call may take.
const ONE_CALL: Span = Span::seconds(30);

/// The nodes that are not taken back yet, each with the plan that switched it on.
pub(super) type Unheard = BTreeSet<(PlanId, HostId)>;
/// How the journal names them.
const UNHEARD: &str = "unheard";

/// A webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// Whether over TLS.
    pub tls: bool,
    /// Where.
    pub address: Address,
    /// The path, with its query.
    pub path: String,
    /// `POST`, `PUT`, `PATCH` or `GET`.
    pub method: &'static str,
    /// What is sent; nothing for a line that says what happens.
    pub body: Option<String>,
    /// Its type.
    pub content_type: String,
    /// A bearer token.
    pub token: Option<Secret>,
    /// The authority of the server's certificate (PEM), where it is called over TLS.
    pub authority: Option<String>,
    /// How long it may take, repetitions included.
    pub within: Span,
}

/// The webhooks of a host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostHooks {
    /// Before it goes dark.
    pub before_off: Option<Hook>,
    /// After it has come up.
    pub after_on: Option<Hook>,
}

/// All of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hooks(pub BTreeMap<HostId, HostHooks>);

/// What a call came to.
enum Came {
    /// It is done.
    Done,
    /// It is at it, or could not be reached: it is asked again.
    Later(String),
    /// It refuses.
    Never(String),
}

impl Switching {
    /// Calls a webhook until it is done, refuses, or its time is over.
    pub(super) async fn call(
        &self,
        plan: &PlanId,
        host: &HostId,
        moment: Moment,
    ) -> Result<(), Unanswered> {
        let unanswered = |why: String| Unanswered { why, refused: false };
        let hook = {
            let site = self.site.borrow();
            let hooks = site.hooks.0.get(host);
            hooks.and_then(|hooks| match moment {
                Moment::BeforeOff => hooks.before_off.clone(),
                Moment::AfterOn => hooks.after_on.clone(),
            })
        };
        // It was taken out of the configuration meanwhile.
        let Some(hook) = hook else { return Ok(()) };
        let word = match moment {
            Moment::BeforeOff => "before_off",
            Moment::AfterOn => "after_on",
        };
        let ending = "the gateway is ending";
        // A node is not drained any further for a plan that goes no further; it is taken back all the same.
        let goes_on = || moment == Moment::AfterOn || self.goes_on(plan);
        let stopped = |asked: bool| {
            let why = format!("plan {plan} goes no further");
            Err(Unanswered { why, refused: !asked })
        };
        let _place = loop {
            tokio::select! {
                biased;
                place = self.webhooks.acquire() => break place,
                // It was never asked, so it is not at it.
                () = self.stop.cancelled() => {
                    self.leaves(plan, host, moment).await;
                    return Err(Unanswered { why: ending.into(), refused: true });
                }
                () = tokio::time::sleep(AGAIN.duration()) => if !goes_on() { return stopped(false) },
            }
        };
        let deadline = self.clock.tick() + hook.within;
        let mut asked = false;
        loop {
            if !goes_on() {
                return stopped(asked);
            }
            if let Some(other) = self.is_drained_anew(plan, host) {
                return Err(unanswered(format!("plan {other} is at it by now")));
            }
            asked = true;
            let rest = Span((deadline - self.clock.tick()).0.min(ONE_CALL.0));
            let call = once(&hook, word, host, plan);
            let came = tokio::time::timeout(rest.duration(), call).await;
            let why = match came {
                Ok(Ok(Came::Done)) => return Ok(()),
                Ok(Ok(Came::Never(why))) => return Err(Unanswered { why, refused: true }),
                Ok(Ok(Came::Later(why))) => why,
                Ok(Err(error)) => format!("{error:#}"),
                Err(_) => "it does not answer".to_owned(),
            };
            let rest = deadline - self.clock.tick();
            let Some(pause) = pause(rest) else {
                return Err(unanswered(format!("not done within {}: {why}", hook.within)));
            };
            tokio::select! {
                () = tokio::time::sleep(pause.duration()) => {}
                () = self.stop.cancelled() => {
                    self.leaves(plan, host, moment).await;
                    return Err(unanswered(ending.into()));
                }
            }
        }
    }

    /// Whether a plan may yet begin something: nobody cancelled it, and none of it failed that it stops for.
    pub(super) fn goes_on(&self, plan: &PlanId) -> bool {
        let runs = self.runs();
        let Some(record) = runs.record(plan) else { return false };
        // What was left out as it was planned anew stops nothing.
        let failed = |step: &StepRecord| {
            let outcome = step.state.outcome();
            outcome.is_some_and(|of| !of.is_success() && of != Outcome::Skipped)
        };
        let stops = record.on_failure == OnFailure::Stop && record.steps.iter().any(failed);
        record.cancelled.is_none() && !stops
    }

    /// The plan that has a host by now, where the one that it is to be taken back for is over: that takes it back itself, and
    /// may drain it meanwhile.
    fn is_drained_anew(&self, plan: &PlanId, host: &HostId) -> Option<PlanId> {
        let site = self.site.borrow().clone();
        let runs = self.runs();
        if runs.record(plan).is_some() {
            return None;
        }
        let outlets = &site.hosts.get(host)?.outlets;
        outlets.iter().find_map(|outlet| runs.claimed_by(outlet).cloned())
    }

    /// A node that is not taken back yet, as the gateway ends: the next start does it.
    async fn leaves(&self, plan: &PlanId, host: &HostId, moment: Moment) {
        if moment == Moment::AfterOn {
            let mut left = self.unheard.lock().await;
            left.insert((plan.clone(), host.clone()));
            self.remember(UNHEARD, &*left).await;
        }
    }

    /// Takes back the nodes that the last run has left; a plan that was taken up does that itself. Call once, after that.
    pub(super) async fn takes_back_what_was_left(&self) -> Result<(), JournalError> {
        let mut left: Unheard = self.remembered(UNHEARD).await?;
        let before = left.len();
        left.retain(|(plan, _)| self.runs().record(plan).is_none());
        if left.len() < before {
            self.remember(UNHEARD, &left).await;
        }
        self.unheard.lock().await.clone_from(&left);
        for (plan, host) in left {
            let this = self.clone();
            self.tasks.spawn(async move { this.takes_back_one(plan, host).await });
        }
        Ok(())
    }

    async fn takes_back_one(&self, plan: PlanId, host: HostId) {
        let answer = self.call(&plan, &host, Moment::AfterOn).await;
        if self.stop.is_cancelled() && answer.is_err() {
            return;
        }
        let when = format!("the webhook of host {host} after it came on");
        let (kind, text) = match answer {
            Ok(()) => (
                "host.taken_back",
                format!("{when} by plan {plan} is seen to, after a restart of the gateway"),
            ),
            Err(Unanswered { why, .. }) => {
                ("host.no_answer", format!("{when} by plan {plan}, which is over: {why}"))
            }
        };
        let about = About { host: Some(host.clone()), ..About::plan(&plan) };
        self.events.tell(kind, about, text);
        let mut left = self.unheard.lock().await;
        left.remove(&(plan, host));
        self.remember(UNHEARD, &*left).await;
    }
}

/// How long to wait before it is asked again; nothing if its time is as good as over. Towards the end it is asked more often:
/// it may be done in the last moment.
fn pause(rest: Span) -> Option<Span> {
    (rest >= LAST).then(|| AGAIN.min(Span(rest.0 / 2)))
}

async fn once(hook: &Hook, moment: &str, host: &HostId, plan: &PlanId) -> anyhow::Result<Came> {
    let socket = hook.address.resolve().await?;
    let stream = TcpStream::connect(socket).await?;
    if !hook.tls {
        return exchange(hook, stream, moment, host, plan).await;
    }
    let authority = hook.authority.as_deref().unwrap_or_default();
    let config = crate::tls::client::trusting(authority)?;
    let name = ServerName::try_from(hook.address.host.clone())?;
    let stream = TlsConnector::from(config).connect(name, stream).await?;
    exchange(hook, stream, moment, host, plan).await
}

async fn exchange(
    hook: &Hook,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    moment: &str,
    host: &HostId,
    plan: &PlanId,
) -> anyhow::Result<Came> {
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let body = hook.body.clone().unwrap_or_else(|| {
        serde_json::json!({ "event": moment, "host": host.as_str(), "plan": plan.as_str() })
            .to_string()
    });
    let mut request = Request::builder()
        .method(hook.method)
        .uri(&hook.path)
        .header("host", hook.address.to_string())
        .header("content-type", &hook.content_type)
        .header("idempotency-key", format!("{plan}-{host}-{moment}"));
    if let Some(token) = &hook.token {
        request = request.header("authorization", format!("Bearer {}", token.expose()));
    }
    let response = sender.send_request(request.body(Full::new(Bytes::from(body)))?).await?;
    connection.abort();
    let status = response.status();
    Ok(match status {
        StatusCode::ACCEPTED => Came::Later("it is still at it (202)".into()),
        _ if status.is_success() => Came::Done,
        // Somebody else is at it, or it is too much for it just now.
        StatusCode::REQUEST_TIMEOUT
        | StatusCode::CONFLICT
        | StatusCode::LOCKED
        | StatusCode::TOO_EARLY
        | StatusCode::TOO_MANY_REQUESTS => Came::Later(format!("it answers {status}")),
        _ if status.is_server_error() => Came::Later(format!("it answers {status}")),
        _ => Came::Never(format!("it answers {status}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_webhook_is_asked_until_its_time_is_as_good_as_over() {
        for within in [100, 1_000, 1_900, 2_100, 7_000, 300_000] {
            let (mut rest, mut calls) = (Span(within), 1_u64);
            while let Some(pause) = pause(rest) {
                assert!(Span(0) < pause && pause <= AGAIN, "{pause:?} with {rest:?} left");
                rest = Span(rest.0 - pause.0);
                calls += 1;
            }
            assert!(rest < LAST, "given up with {rest:?} of {within} ms left");
            assert!(calls <= within / AGAIN.0 + 5, "{calls} calls in {within} ms");
        }
    }
}
