//! TLS and certificates: the gateway's server side with client certificates required, the client side of the
//! command line, and the offline authority that issues them.

pub mod ca;
pub mod client;
pub mod files;
pub mod leaf;
pub mod server;
