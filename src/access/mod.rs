//! Who may do what. The certificate's role is a ceiling; the gateway's policy grants within it. Everything
//! that is not granted is denied. Pure: no certificate is parsed here and no clock is read.

pub mod identity;
pub mod policy;

pub use identity::{Identity, Role};
pub use policy::{Denied, Grant, Permission, Policy, Reach};
