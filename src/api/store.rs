//! `/v1/store`: a consistent copy of all readings, while the gateway runs.

use crate::store::copy::{self, CopyError};
use crate::wire::problem::Problem;

use super::context::{Answer, Context};
use super::stream::{Outgoing, internal, stream};

/// A copy of all readings, for `pmgate store import`. One that ends early was not whole.
#[utoipa::path(get, path = "/v1/store", tag = "series",
    responses((status = 200, content_type = "application/octet-stream", body = Vec<u8>), (status = 403, body = Problem, content_type = "application/problem+json"), (status = 503, body = Problem, content_type = "application/problem+json")))]
pub async fn copy_of(context: Context) -> Answer {
    context.only(&[])?;
    let store = context.state.store.clone();
    let make = move |out: &mut Outgoing| match copy::export(&store, out) {
        Ok(_) => Ok(()),
        Err(CopyError::Io(error)) => Err(error.into()),
        Err(CopyError::Store(error)) => Err(error.into()),
        Err(error) => Err(internal(&error).into()),
    };
    stream(context.state.turns.clone(), "application/octet-stream", make).await
}
