//! The nouns of the house: what a PDU is, what a reading says, what may be asked of a device.
//! Plain values; this room does no I/O, reads no clock and knows no other room.

pub mod ask;
pub mod document;
pub mod event;
pub mod fault;
pub mod id;
pub mod limits;
pub mod metric;
pub mod oid;
pub mod quantity;
pub mod reading;
pub mod secret;
pub mod switching;
pub mod time;
pub mod topology;
pub mod varint;
pub mod view;
