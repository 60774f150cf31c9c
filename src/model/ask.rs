//! What may be asked of a device, and what it may answer, over either protocol.

use super::oid::Oid;

/// One request to a device. A device has one in flight at any time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// SNMP GET of exact instances (RFC 3416 section 4.2.1).
    Get(Vec<Oid>),
    /// SNMP GETNEXT (4.2.2); the only walk that SNMPv1 knows.
    GetNext(Vec<Oid>),
    /// SNMP GETBULK (4.2.3): the first `single` names once, the others `repeat` times.
    GetBulk {
        /// Names: predecessors of what is wanted.
        names: Vec<Oid>,
        /// How many of them are wanted once (non-repeaters).
        single: u32,
        /// Rows wanted of the others (max-repetitions).
        repeat: u32,
    },
    /// SNMP SET (4.2.5), all or nothing.
    Set(Vec<(Oid, Value)>),
    /// Modbus read of functions 1 to 4.
    Read {
        /// Which table.
        table: Registers,
        /// First wire address, from 0.
        start: u16,
        /// How many registers or bits.
        count: u16,
    },
    /// Modbus write of one coil (function 5).
    WriteCoil {
        /// Wire address, from 0.
        address: u16,
        /// Closed or open.
        on: bool,
    },
    /// Modbus write of holding registers (function 6 for one, 16 for more).
    WriteRegisters {
        /// First wire address, from 0.
        address: u16,
        /// The words.
        words: Vec<u16>,
    },
    /// Modbus read device identification (function 43/14), basic objects from this one.
    DeviceId(u8),
}

impl Ask {
    /// Whether it changes something; such a request is never repeated.
    pub fn is_write(&self) -> bool {
        matches!(self, Ask::Set(_) | Ask::WriteCoil { .. } | Ask::WriteRegisters { .. })
    }
}

/// The four tables of a Modbus device (Application Protocol 1.1b3, section 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Registers {
    /// Function 1, read and write bits.
    Coil,
    /// Function 2, read-only bits.
    Discrete,
    /// Function 3, read and write words.
    Holding,
    /// Function 4, read-only words.
    Input,
}

impl Registers {
    /// Whether it holds bits rather than words.
    pub fn is_bits(self) -> bool {
        matches!(self, Registers::Coil | Registers::Discrete)
    }

    /// The word in driver files.
    pub fn word(self) -> &'static str {
        match self {
            Registers::Coil => "coil",
            Registers::Discrete => "discrete",
            Registers::Holding => "holding",
            Registers::Input => "input",
        }
    }
}

/// The types of SNMP that have no sign (RFC 2578 section 7.1), by their tags (RFC 3416 section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whole {
    /// Counter32.
    Counter = 65,
    /// Gauge32, Unsigned32.
    Gauge = 66,
    /// TimeTicks.
    Ticks = 67,
    /// Counter64.
    Counter64 = 70,
}

/// An SNMP value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// INTEGER, Integer32.
    Integer(i64),
    /// Gauge32, Counter32, Counter64, Unsigned32, TimeTicks, and which of them.
    Unsigned(u64, Whole),
    /// OCTET STRING, Opaque.
    Bytes(Box<[u8]>),
    /// OBJECT IDENTIFIER.
    Oid(Oid),
    /// IpAddress.
    Ip([u8; 4]),
    /// noSuchObject, noSuchInstance or endOfMibView, or an unSpecified NULL.
    Nothing,
    /// A type that SNMP does not have, or one that did not parse.
    Other,
}

impl Value {
    /// The text of an octet string, without trailing NULs and spaces; lossy beyond UTF-8.
    pub fn text(&self) -> Option<String> {
        match self {
            Value::Bytes(bytes) => {
                let text = String::from_utf8_lossy(bytes);
                Some(text.trim_end_matches(['\0', ' ', '\r', '\n']).trim_start().to_owned())
            }
            _ => None,
        }
    }

    /// The number of an integer or unsigned value; counters above 2^63 have none.
    pub fn number(&self) -> Option<i64> {
        match self {
            Value::Integer(number) => Some(*number),
            Value::Unsigned(number, _) => i64::try_from(*number).ok(),
            _ => None,
        }
    }

    /// As recordings and `driver read --points` print it.
    pub fn raw(&self) -> String {
        match self {
            Value::Integer(number) => number.to_string(),
            Value::Unsigned(number, _) => number.to_string(),
            Value::Bytes(_) => self.text().unwrap_or_else(|| "?".into()),
            Value::Oid(oid) => oid.to_string(),
            Value::Ip(ip) => ip.map(|b| b.to_string()).join("."),
            Value::Nothing => "noSuchInstance".into(),
            Value::Other => "?".into(),
        }
    }
}

/// What a device answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// An SNMP response PDU.
    Binds(Vec<(Oid, Value)>),
    /// An SNMP response with an error-status other than noError; the index counts from 1.
    Refused {
        /// error-status (RFC 3416 section 3): 1 tooBig, 2 noSuchName, 5 genErr, …
        status: u32,
        /// error-index.
        index: u32,
    },
    /// Modbus bits.
    Bits(Vec<bool>),
    /// Modbus words.
    Words(Vec<u16>),
    /// A Modbus write was echoed as it should be.
    Written,
    /// Modbus exception code (1 illegal function, 2 illegal address, 3 illegal value, …).
    Exception(u8),
    /// Modbus identification objects: id and text.
    Identification(Vec<(u8, String)>),
}

/// Names of SNMP error-status values (RFC 3416 section 3).
pub fn status_name(status: u32) -> &'static str {
    const NAMES: [&str; 19] = [
        "noError",
        "tooBig",
        "noSuchName",
        "badValue",
        "readOnly",
        "genErr",
        "noAccess",
        "wrongType",
        "wrongLength",
        "wrongEncoding",
        "wrongValue",
        "noCreation",
        "inconsistentValue",
        "resourceUnavailable",
        "commitFailed",
        "undoFailed",
        "authorizationError",
        "notWritable",
        "inconsistentName",
    ];
    NAMES.get(status as usize).copied().unwrap_or("an unknown error")
}

/// Names of Modbus exception codes (Application Protocol 1.1b3, section 7).
pub fn exception_name(code: u8) -> &'static str {
    match code {
        1 => "illegal function",
        2 => "illegal data address",
        3 => "illegal data value",
        4 => "server device failure",
        5 => "acknowledge",
        6 => "server device busy",
        8 => "memory parity error",
        10 => "gateway path unavailable",
        11 => "gateway target failed to respond",
        _ => "an unknown exception",
    }
}
