//! `/v1/store`: a consistent copy of all readings, while the gateway runs.

use std::convert::Infallible;
use std::io::Write;

use bytes::Bytes;
use http_body_util::{BodyExt as _, channel::Channel};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};

use crate::store::copy;
use crate::wire::problem::Problem;

use super::context::{Answer, Context};

/// Bytes in one piece of the stream.
const PIECE: usize = 64 * 1024;
/// Pieces made but not yet taken by the client; then it is slow, and the copy waits.
const AHEAD: usize = 8;

/// A copy of all readings, for `pmgate store import`.
#[utoipa::path(get, path = "/v1/store", tag = "series",
    responses((status = 200, content_type = "application/octet-stream", body = Vec<u8>), (status = 403, body = Problem, content_type = "application/problem+json")))]
pub async fn copy_of(context: Context) -> Answer {
    context.only(&[])?;
    let (sender, channel) = Channel::<Bytes, Infallible>::new(AHEAD);
    let store = context.state.store.clone();
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        let mut pieces = Pieces { sender, runtime, held: Vec::with_capacity(PIECE) };
        if let Err(error) = copy::export(&store, &mut pieces) {
            // The client sees a copy without its end.
            tracing::warn!(%error, "a copy of the store was not made to its end");
        }
    });
    let mut response = Response::new(channel.boxed());
    *response.status_mut() = StatusCode::OK;
    let kind = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    Ok(response)
}

/// Writes into a body piece by piece; waits where the client does.
pub(super) struct Pieces {
    pub sender: http_body_util::channel::Sender<Bytes, Infallible>,
    pub runtime: tokio::runtime::Handle,
    pub held: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.held.extend_from_slice(bytes);
        if self.held.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let piece = Bytes::from(std::mem::replace(&mut self.held, Vec::with_capacity(PIECE)));
        let sent = self.runtime.block_on(self.sender.send_data(piece));
        sent.map_err(|_| std::io::Error::other("the client is gone"))
    }
}
