//! Connections: accepted within bounds, proved by certificate, given a time for everything. A client that does
//! nothing is closed; one that does too much waits or is refused.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_LENGTH, HeaderValue};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::Identity;
use crate::model::limits::{BODY_BYTES, CONNECTIONS, HANDSHAKES, STREAMS};
use crate::tls::leaf::{self, LeafError};
use crate::wire::problem::Problem;

use super::context::{Body, State, whole};
use super::problem;
use super::route::Routes;

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long a request's head may take, and how long a kept-alive connection may be silent.
const HEAD: Duration = Duration::from_secs(10);
/// How long a request's body may take.
const BODY: Duration = Duration::from_secs(10);
/// How long a client whose handshake failed may take to read why.
const LINGER: Duration = Duration::from_secs(1);
/// How often a silent HTTP/2 connection is asked whether it lives.
const PING: Duration = Duration::from_secs(20);
/// How long connections may take to finish when the gateway ends.
const FAREWELL: Duration = Duration::from_secs(10);

/// A bound listener, so that its address is known before anything is served.
pub struct Listener {
    listener: TcpListener,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Listener {
    /// Binds.
    pub async fn bind(address: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen at {address}"))?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// Serves until the state's token is cancelled; then lets connections finish.
    pub async fn serve(self, state: Arc<State>) {
        let server = Arc::new(Server {
            routes: Routes::new(),
            connections: Arc::new(Semaphore::new(CONNECTIONS)),
            handshakes: Arc::new(Semaphore::new(HANDSHAKES)),
            state: state.clone(),
        });
        let tasks = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                () = state.stop.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let server = server.clone();
                    tasks.spawn(async move { server.connection(stream, peer).await });
                }
                Err(error) => {
                    // Out of file descriptors, most likely: those that end free some.
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        tasks.close();
        if tokio::time::timeout(FAREWELL, tasks.wait()).await.is_err() {
            tracing::warn!(
                "some connections did not finish in {} s and were cut",
                FAREWELL.as_secs()
            );
        }
    }
}

struct Server {
    routes: Routes,
    connections: Arc<Semaphore>,
    handshakes: Arc<Semaphore>,
    state: Arc<State>,
}

/// Who is at the other end and until when (seconds since 1970), or why it is nobody.
type Client = Result<(Identity, i64), LeafError>;

impl Server {
    async fn connection(self: Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        let Ok(_place) = self.connections.clone().try_acquire_owned() else {
            tracing::warn!(%peer, "too many connections: {peer} was closed");
            return;
        };
        let tls = match self.handshake(stream).await {
            Ok(tls) => tls,
            Err(error) => {
                tracing::debug!(%peer, %error, "no TLS with {peer}");
                return;
            }
        };
        let session = tls.get_ref().1;
        let leaf = session.peer_certificates().and_then(|chain| chain.first());
        let client: Client = match leaf {
            Some(der) => leaf::identity(der),
            None => Err(LeafError::Malformed("there is none".into())),
        };
        let client = Arc::new(client);
        let http2 = session.alpn_protocol() == Some(b"h2");
        let result =
            if http2 { self.http2(tls, client).await } else { self.http1(tls, client).await };
        if let Err(error) = result {
            tracing::debug!(%peer, %error, "the connection of {peer} ended early");
        }
    }

    async fn handshake(&self, stream: TcpStream) -> anyhow::Result<TlsStream<TcpStream>> {
        let _turn =
            self.handshakes.clone().try_acquire_owned().context("too many handshakes at once")?;
        stream.set_nodelay(true)?;
        let config = self.state.tls.borrow().config.clone();
        let accept = TlsAcceptor::from(config).accept(stream).into_fallible();
        match tokio::time::timeout(HANDSHAKE, accept).await {
            Ok(Ok(tls)) => Ok(tls),
            Ok(Err((error, stream))) => {
                linger(stream).await;
                Err(error.into())
            }
            Err(_) => Err(anyhow!("the handshake took too long")),
        }
    }

    async fn http1(
        self: Arc<Self>,
        tls: TlsStream<TcpStream>,
        client: Arc<Client>,
    ) -> Result<(), hyper::Error> {
        let stop = self.state.stop.clone();
        let service = service_fn(move |request| self.clone().respond(request, client.clone()));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .max_buf_size(64 * 1024)
            .serve_connection(TokioIo::new(tls), service);
        let mut connection = std::pin::pin!(connection);
        finish(
            &stop,
            connection.as_mut(),
            hyper::server::conn::http1::Connection::graceful_shutdown,
        )
        .await
    }

    async fn http2(
        self: Arc<Self>,
        tls: TlsStream<TcpStream>,
        client: Arc<Client>,
    ) -> Result<(), hyper::Error> {
        let stop = self.state.stop.clone();
        let service = service_fn(move |request| self.clone().respond(request, client.clone()));
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING)
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(16 * 1024)
            .max_pending_accept_reset_streams(20)
            .serve_connection(TokioIo::new(tls), service);
        let mut connection = std::pin::pin!(connection);
        finish(
            &stop,
            connection.as_mut(),
            hyper::server::conn::http2::Connection::graceful_shutdown,
        )
        .await
    }

    fn refuses(&self, who: &Identity, head: &hyper::http::request::Parts, why: &str) {
        let asked = format!("{} {}", head.method, head.uri.path());
        self.state.switching.refuses(who, &asked, why);
    }

    async fn respond(
        self: Arc<Self>,
        request: Request<Incoming>,
        client: Arc<Client>,
    ) -> Result<Response<Body>, std::convert::Infallible> {
        let (head, body) = request.into_parts();
        let (who, until) = match client.as_ref() {
            Ok((who, until)) => (who.clone(), *until),
            Err(error) => return Ok(problem::response(&nobody(error))),
        };
        // A connection may outlive the certificate that opened it.
        if self.state.clock.stamp().0 / 1_000 > until {
            let detail = format!("the certificate {} of {who} has expired", who.serial);
            self.refuses(&who, &head, &detail);
            let next = "connect with a new certificate";
            return Ok(problem::response(&Problem::new(403, "Forbidden", detail, next)));
        }
        if self.state.site.borrow().revoked.contains(&who.serial) {
            let detail = format!("the certificate {} of {who} is revoked", who.serial);
            self.refuses(&who, &head, &detail);
            return Ok(problem::response(&Problem::new(
                403,
                "Forbidden",
                detail,
                "ask for a new certificate",
            )));
        }
        // Often the body is still on its way.
        if self.routes.may_switch(&self.state, &who, &head.method, head.uri.path()) {
            self.state.switching.expect();
        }
        let body = match read(body).await {
            Ok(body) => body,
            Err(problem) => return Ok(problem::response(&problem)),
        };
        let (path, query) = (head.uri.path().to_owned(), head.uri.query().map(str::to_owned));
        let state = self.state.clone();
        tracing::debug!(%who, method = %head.method, %path, "{who} asks for {} {path}", head.method);
        let is_head = head.method == Method::HEAD;
        let response = self
            .routes
            .answer(state, who, head.method, &path, query.as_deref(), head.headers, body)
            .await;
        Ok(if is_head { without_body(response) } else { response })
    }
}

/// Closes a connection whose handshake failed so that the alert arrives: closing while the client is still
/// sending (in TLS 1.3 it may, before it learns that its certificate will not do) would take the alert back.
async fn linger(mut stream: TcpStream) {
    let farewell = async {
        stream.shutdown().await?;
        let mut bytes = [0; 4096];
        let mut left: usize = 64 * 1024;
        while left > 0 {
            let count = stream.read(&mut bytes).await?;
            if count == 0 {
                break;
            }
            left = left.saturating_sub(count);
        }
        Ok::<_, std::io::Error>(())
    };
    // Whatever becomes of it, the connection is closed.
    if !matches!(tokio::time::timeout(LINGER, farewell).await, Ok(Ok(()))) {
        tracing::trace!("a refused client did not close");
    }
}

/// Drives a connection to its end; when the gateway ends, the request in flight is finished and no other taken.
async fn finish<C>(
    stop: &CancellationToken,
    mut connection: std::pin::Pin<&mut C>,
    farewell: impl FnOnce(std::pin::Pin<&mut C>),
) -> Result<(), hyper::Error>
where
    C: Future<Output = Result<(), hyper::Error>>,
{
    tokio::select! {
        result = connection.as_mut() => return result,
        () = stop.cancelled() => {}
    }
    farewell(connection.as_mut());
    connection.await
}

fn nobody(error: &LeafError) -> Problem {
    Problem::new(
        403,
        "Forbidden",
        error.to_string(),
        "use a certificate from \"pmgate ca issue --role viewer NAME\" or the like",
    )
}

/// The answer to HEAD: what GET would answer, with its length but without its body. hyper leaves the body out
/// in HTTP/1.1, but not in HTTP/2.
fn without_body(mut response: Response<Body>) -> Response<Body> {
    if let Some(length) = response.body().size_hint().exact() {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    response.map(|_| whole(Empty::new()))
}

/// The body, whole. One that is too long is read on for a while and thrown away: a client that is still
/// sending when the connection closes would never see the answer.
async fn read(mut body: Incoming) -> Result<Bytes, Problem> {
    let collect = async {
        let mut bytes = BytesMut::new();
        let mut length = 0;
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            length += data.len();
            if length <= BODY_BYTES {
                bytes.extend_from_slice(&data);
            } else if length > 16 * BODY_BYTES {
                break;
            }
        }
        Ok::<_, hyper::Error>((length <= BODY_BYTES).then(|| bytes.freeze()))
    };
    match tokio::time::timeout(BODY, collect).await {
        Err(_) => Err(Problem::new(
            408,
            "Request timeout",
            "the body did not come in time",
            "send it at once",
        )),
        Ok(Ok(Some(body))) => Ok(body),
        Ok(Ok(None)) => Err(Problem::new(
            413,
            "Body too large",
            format!("the body has more than {BODY_BYTES} bytes"),
            "send less at once",
        )),
        Ok(Err(error)) => {
            Err(problem::bad(format!("the body did not come whole: {error}"), "send it again"))
        }
    }
}
