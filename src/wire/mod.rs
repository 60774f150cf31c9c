//! The JSON bodies of `/v1`: plain data, snake_case, units in names, RFC 3339 times. A value that a device
//! does not have is absent; one that it has and that could not be read is null, with the reason in `gaps`.

pub mod audit;
pub mod energy;
pub mod event;
pub mod host;
pub mod limit;
pub mod pdu;
pub mod plan;
pub mod problem;
pub mod prometheus;
pub mod series;
pub mod status;
