//! Every bound of the house in one place, each with its reason. A queue that is full has a rule; it
//! stands beside the bound.

/// Orders waiting at one device. A PDU answers one request at a time, so more than a few waiting
/// orders are stale orders; a full queue refuses the order ("the PDU is busy").
pub const DEVICE_ORDERS: usize = 8;

/// Rows of one table that a device may announce. The largest rack PDU known has 84 outlets, a
/// branch-circuit meter 96 circuits; beyond this a walk is a loop or an attack and ends.
pub const TABLE_ROWS: usize = 512;

/// PDUs, outlets and hosts that one plan may name; a rack has fewer outlets.
pub const PLAN_GOALS: usize = 2_000;

/// Named variables of one device. A Rittal PDU with 16 sockets has 470; a metered one with 42 some 3000.
pub const NAMED: usize = 6_000;

/// Requests that adopting one device may cost, walks included.
pub const ADOPT_REQUESTS: usize = 600;

/// Longest OID in encoded bytes. SNMP allows 128 sub-identifiers, PDU tables use under 60 bytes.
pub const OID_BYTES: usize = 96;

/// Variable bindings in one SNMP request: above 50 some cards answer nothing at all.
pub const SNMP_VARBINDS: usize = 50;

/// Bytes of an SNMP reply that fit one Ethernet frame (1500 less IP and UDP headers).
pub const SNMP_REPLY_BYTES: usize = 1472;

/// Registers in one Modbus read (Modbus Application Protocol 1.1b3, section 6.3).
pub const MODBUS_REGISTERS: u16 = 125;

/// Coils or discrete inputs in one Modbus read; the protocol allows 2000, devices rarely do.
pub const MODBUS_BITS: u16 = 512;

/// PDUs of one gateway. A rack has two to eight; a row gateway up to this many.
pub const PDUS: usize = 1000;

/// Rows waiting for the store. When it is full the newest row is dropped, counted and told as an
/// alarm: polling and switching never wait for a disk.
pub const STORE_ROWS: usize = 4096;

/// Events kept for readers that come back with `Last-Event-ID`; older ones are reported as a gap.
pub const EVENTS_KEPT: usize = 4096;

/// Events waiting at one reader. A reader that is this far behind is told how many it missed.
pub const EVENTS_BEHIND: usize = 1024;

/// Bytes of a request body: the largest legal one (a plan with every outlet) is under 64 KiB.
pub const BODY_BYTES: usize = 64 * 1024;

/// Bytes of a client's response that the command line accepts.
pub const RESPONSE_BYTES: usize = 64 * 1024 * 1024;

/// Connections at one time; one more is closed at once.
pub const CONNECTIONS: usize = 1024;

/// Handshakes at one time, so that strangers cannot take all places of `CONNECTIONS`.
pub const HANDSHAKES: usize = 256;

/// Streams on one HTTP/2 connection.
pub const STREAMS: u32 = 64;

/// Webhooks of hosts that are out at one time. A plan may have as many hosts that are drained at once as it names; more than
/// these wait for their turn, and their time begins with it.
pub const WEBHOOKS: usize = 64;

/// Plans that are under way or wait for their time. Whatever waits is in memory, and is looked at time and again; one more is
/// not put off.
pub const OPEN_PLANS: usize = 2_000;

/// Readers of the store at one time. Each holds a thread while it scans; the journal needs threads too.
pub const QUERIES: usize = 4;

/// Long answers from the store that are sent at one time. While its client is slower than it is each holds a thread and
/// some megabytes, and no turn. One more is refused.
pub const LONG_ANSWERS: usize = 16;

/// Steps in one answer of `/v1/series`, of all its series: a rack of 480 outlets over two months by the minute. It is
/// sent as it is made, so this bounds a minute's work, not memory.
pub const SERIES_STEPS: u64 = 50_000_000;

/// Characters of an identifier in a path or a config.
pub const ID_CHARS: usize = 63;

/// Characters of an `Idempotency-Key`.
pub const KEY_CHARS: usize = 128;

/// Characters of a reason given for switching; more is refused, not cut.
pub const REASON_CHARS: usize = 500;

/// Milliseconds that a settled actuation is left alone before the next step on the same outlet: a
/// late or doubled datagram has died by then.
pub const QUIESCE_MS: u64 = 2_000;
