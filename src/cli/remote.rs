//! Talking to a gateway: HTTP/1.1 over TLS with the client's certificate.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use serde::Deserialize;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::model::limits::RESPONSE_BYTES;
use crate::resolve::Address;

use super::args::Client;
use super::exit::{Exit, Outcome};

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long an answer may take: a plan with a hold takes its time.
const ANSWER: Duration = Duration::from_mins(15);

/// A connection to a gateway.
pub struct Gateway {
    host: String,
    sender: SendRequest<Full<Bytes>>,
    /// To connect again.
    url: String,
    tls: Arc<rustls::ClientConfig>,
}

/// Where a gateway is and who we are to it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    url: Option<String>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    ca: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contexts {
    current: Option<String>,
    #[serde(default)]
    context: std::collections::BTreeMap<String, Place>,
}

fn config_file() -> Option<PathBuf> {
    let base = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let base =
        base.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config")))?;
    Some(base.join("pmgate/config.toml"))
}

/// The context that was named, or the current one of the file.
fn context(name: Option<&str>) -> Result<Option<Place>, Exit> {
    let Some(path) = config_file().filter(|path| path.exists()) else {
        return match name {
            Some(name) => Err(Exit::usage(anyhow!(
                "there is no context \"{name}\": ~/.config/pmgate/config.toml does not exist"
            ))),
            None => Ok(None),
        };
    };
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    let contexts: Contexts =
        toml::from_str(&text).with_context(|| path.display().to_string()).map_err(Exit::usage)?;
    let Some(name) = name.map(str::to_owned).or(contexts.current) else { return Ok(None) };
    let found = contexts.context.get(&name).cloned();
    found
        .map(Some)
        .ok_or_else(|| Exit::usage(anyhow!("there is no [context.{name}] in {}", path.display())))
}

impl Gateway {
    /// Connects as the options, the environment or a context say.
    pub async fn connect(options: &Client) -> Result<Self, Exit> {
        let place = context(options.context.as_deref())?;
        let from = |option: &Option<PathBuf>, of: fn(&Place) -> &Option<PathBuf>, flag: &str| {
            let found =
                option.clone().or_else(|| place.as_ref().and_then(|place| of(place).clone()));
            found.ok_or_else(|| Exit::usage(anyhow!("name the gateway and the client certificate: {flag} is missing (--url --cert --key --ca, or PMGATE_URL …, or a context in ~/.config/pmgate/config.toml)")))
        };
        let url =
            options.url.clone().or_else(|| place.as_ref().and_then(|place| place.url.clone()));
        let url = url.ok_or_else(|| Exit::usage(anyhow!("name the gateway: --url https://HOST:8443, or PMGATE_URL, or a context in ~/.config/pmgate/config.toml")))?;
        let cert = from(&options.cert, |p| &p.cert, "--cert")?;
        let key = from(&options.key, |p| &p.key, "--key")?;
        let ca = from(&options.ca, |p| &p.ca, "--ca")?;
        let tls = crate::tls::client::load(&cert, &key, &ca).map_err(Exit::usage)?;
        Self::open(&url, tls).await
    }

    async fn open(url: &str, tls: Arc<rustls::ClientConfig>) -> Result<Self, Exit> {
        let rest = url.strip_prefix("https://").ok_or_else(|| {
            Exit::usage(anyhow!("{url}: the URL of a gateway begins with https://"))
        })?;
        let address = Address::parse(rest.trim_end_matches('/'), 8443).map_err(Exit::usage)?;
        let unreachable = |error: anyhow::Error| {
            Exit::unreachable(error.context(format!("{url} cannot be reached")))
        };
        let connect = async {
            let socket = address.resolve().await?;
            let stream = TcpStream::connect(socket).await?;
            stream.set_nodelay(true)?;
            let name = ServerName::try_from(address.host.clone())
                .map_err(|_| anyhow!("{} is no host name", address.host))?;
            let stream = TlsConnector::from(tls.clone()).connect(name, stream).await?;
            Ok::<_, anyhow::Error>(handshake(TokioIo::new(stream)).await?)
        };
        let connected = tokio::time::timeout(CONNECT, connect)
            .await
            .map_err(|_| unreachable(anyhow!("no answer in {} s", CONNECT.as_secs())))?;
        let (sender, connection) = connected.map_err(unreachable)?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection ended");
            }
        });
        Ok(Self { host: address.to_string(), sender, url: url.to_owned(), tls })
    }

    /// Sends a request; the response's head has come when it returns.
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> Result<Response<Incoming>, Exit> {
        let mut request =
            Request::builder().method(method).uri(path).header("host", self.host.as_str());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        // A gateway closes a connection over which nothing was asked for a while.
        if self.sender.is_closed() {
            let url = self.url.clone();
            *self = Self::open(&url, self.tls.clone()).await?;
        }
        let body = match body {
            Some(value) => {
                request = request.header("content-type", "application/json");
                Bytes::from(value.to_string())
            }
            None => Bytes::new(),
        };
        let request = request.body(Full::new(body)).map_err(Exit::usage)?;
        // After an answer the connection takes the next request only once it has seen the end of it.
        let exchange = async {
            self.sender.ready().await?;
            self.sender.send_request(request).await
        };
        let sent = tokio::time::timeout(ANSWER, exchange).await;
        let lost = |error: anyhow::Error| {
            // rustls tells a refused certificate only now, in TLS 1.3.
            Exit::unreachable(error.context("the gateway closed the connection; is the certificate signed by its client CA, and not revoked?"))
        };
        sent.map_err(|_| Exit::unreachable(anyhow!("no answer in {} s", ANSWER.as_secs())))?
            .map_err(|error| lost(error.into()))
    }

    /// The text of an answer; a problem is an error that says what helps.
    pub async fn text(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> Result<String, Exit> {
        let response = self.send(method, path, headers, body).await?;
        let status = response.status();
        let collected = Limited::new(response.into_body(), RESPONSE_BYTES).collect().await;
        let bytes = collected.map_err(|error| cut(&error))?.to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if status.is_success() { Ok(text) } else { Err(problem(status.as_u16(), &text)) }
    }

    /// Hands an answer on piece by piece, however long it is.
    pub async fn copy(&mut self, path: &str, accept: &str, take: impl Fn(&[u8])) -> Outcome {
        let response = self.send(Method::GET, path, &[("accept", accept)], None).await?;
        let status = response.status();
        let mut body = response.into_body();
        if !status.is_success() {
            let told = Limited::new(body, RESPONSE_BYTES).collect().await;
            let told = told.map_err(|error| cut(&error))?.to_bytes();
            return Err(problem(status.as_u16(), &String::from_utf8_lossy(&told)));
        }
        while let Some(frame) = body.frame().await {
            if let Some(piece) = frame.map_err(|error| cut(&error))?.data_ref() {
                take(piece);
            }
        }
        Ok(())
    }

    /// An answer as JSON.
    pub async fn get(&mut self, path: &str) -> Result<Value, Exit> {
        let text = self.text(Method::GET, path, &[], None).await?;
        serde_json::from_str(&text)
            .map_err(|error| Exit::failed(anyhow!("the answer is no JSON: {error}")))
    }

    /// All pages of a list.
    pub async fn list(&mut self, path: &str, key: &str) -> Result<Vec<Value>, Exit> {
        let mut all = Vec::new();
        let mut next = path.to_owned();
        loop {
            let mut page = self.get(&next).await?;
            if let Some(Value::Array(items)) = page.get_mut(key).map(Value::take) {
                all.extend(items);
            }
            let Some(cursor) = page.get("next_cursor").and_then(Value::as_str) else {
                return Ok(all);
            };
            let join = if path.contains('?') { '&' } else { '?' };
            next = format!("{path}{join}cursor={}", escape(cursor));
        }
    }
}

fn cut(error: &dyn std::fmt::Display) -> Exit {
    Exit::unreachable(anyhow!("the answer did not come whole: {error}"))
}

fn problem(status: u16, text: &str) -> Exit {
    let body: Value = serde_json::from_str(text).unwrap_or(Value::Null);
    let part = |key: &str| body.get(key).and_then(Value::as_str).map(str::to_owned);
    let detail = part("detail").unwrap_or_else(|| format!("the gateway answered {status}"));
    let next = part("next").map_or(String::new(), |next| format!("\n  {next}"));
    // What would fit is what is left without these.
    let leave_out = body.get("leave_out").and_then(Value::as_array);
    let names: Vec<&str> = leave_out.into_iter().flatten().filter_map(Value::as_str).collect();
    let without = if names.is_empty() {
        String::new()
    } else {
        format!("\n  leave_out: {}", names.join(", "))
    };
    let exit = Exit::failed(anyhow!("{detail}{without}{next}"));
    Exit { problem: body.is_object().then(|| Box::new(body)), ..exit }
}

/// A text as it may stand in a path or query.
pub fn escape(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
    text.bytes()
        .map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}
