//! Simulated PDUs on real sockets: loads with physics behind the vendors' own object trees, and recordings
//! that answer as their devices did. For the demo, for tests, and for whoever has no PDU at hand.

mod agent;
pub mod families;
pub mod modbus;
pub mod objects;
pub mod physics;
pub mod recording;
pub mod snmp;
