//! What may be typed.

// A doc comment on a flattened field would replace the help of its command.
#![allow(missing_docs)]

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use super::client_args::*;
use crate::model::id::ChainUnit;

/// PowerMan: one gateway to the power distribution units of many vendors.
#[derive(Debug, Parser)]
#[command(name = "pmgate", version, about, max_term_width = 100, arg_required_else_help = true)]
pub struct Arguments {
    /// Log more: -v for what is done, -vv for every request. PMGATE_LOG sets filters as in RUST_LOG.
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub verbose: u8,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// A simulated rack, a gateway and a throw-away CA: everything to try at once
    Demo(Demo),
    /// The gateway
    Serve(Configured),
    /// Simulated PDUs on real sockets
    Sim(Sim),
    /// Check a configuration
    #[command(subcommand)]
    Config(Config),
    /// Drivers: list, check, detect, read, record, prove
    #[command(subcommand)]
    Driver(Driver),
    /// An offline certificate authority
    #[command(subcommand)]
    Ca(Ca),
    /// PDUs of a gateway
    #[command(subcommand)]
    Pdu(Pdu),
    /// Outlets of a gateway
    #[command(subcommand)]
    Outlet(Outlet),
    /// Hosts of a gateway
    #[command(subcommand)]
    Host(Host),
    /// Groups of hosts and outlets
    #[command(subcommand)]
    Group(Group),
    /// Plans of many outlets: preview, create, approve, run, cancel
    #[command(subcommand)]
    Plan(Plan),
    /// What plans may not pass, and what flows there
    Limits {
        #[command(flatten)]
        client: Client,
    },
    /// Who asked for what, and what came of it
    #[command(subcommand)]
    Audit(Audit),
    /// Readings over time
    Series(Series),
    /// The store of readings: verify, export, import, salvage
    #[command(subcommand)]
    Store(Store),
    /// What happens
    Events(Events),
    /// Completions for a shell, on standard output
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

/// `demo`.
#[derive(Debug, Args)]
pub struct Demo {
    /// Where the gateway listens
    #[arg(long, default_value = "127.0.0.1:8443")]
    pub listen: SocketAddr,
    /// Where certificates, readings and the journal go [default: a new directory under the system's temporary one]
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// How many PDUs: APC, Raritan, Server Technology and NETIO in turn
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=200))]
    pub pdus: u16,
    /// Outlets of each PDU
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u16).range(1..=48))]
    pub outlets: u16,
    /// Where the simulated PDUs listen: the first port of as many as there are PDUs; 0 lets the system choose
    #[arg(long, default_value_t = 16100)]
    pub sim_port: u16,
}

/// A command with a configuration.
#[derive(Debug, Args)]
pub struct Configured {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

/// `sim`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(false))]
pub struct Sim {
    /// A file that says which PDUs to simulate
    #[arg(long, value_name = "FILE", group = "what")]
    pub config: Option<PathBuf>,
    /// A recording to answer from; give as many as --listen
    #[arg(long, value_name = "FILE.snmprec", group = "what", requires = "listen")]
    pub recording: Vec<PathBuf>,
    /// Where the recording is answered
    #[arg(long, value_name = "ADDR:PORT", requires = "recording")]
    pub listen: Vec<SocketAddr>,
    /// Rules for writes to recordings: lines of WRITTEN-OID -> CHANGED-OID 1:2, 2:1@500
    #[arg(long, value_name = "FILE", requires = "recording")]
    pub rules: Option<PathBuf>,
    /// Community for reading
    #[arg(long, default_value = "public")]
    pub community: String,
    /// Community for reading and writing
    #[arg(long, default_value = "private")]
    pub write_community: String,
    #[command(flatten)]
    pub user: UserArgs,
}

/// `config`.
#[derive(Debug, Subcommand)]
pub enum Config {
    /// Check a configuration and the drivers that it names: every fault at once
    Check {
        /// The configuration file
        file: PathBuf,
    },
}

/// `driver`.
#[derive(Debug, Subcommand)]
pub enum Driver {
    /// The drivers at hand
    List {
        #[command(flatten)]
        more: MoreDrivers,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Check driver files: every fault with file, line, column and mend
    Check {
        /// Driver files
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Which driver a device needs, or which PDUs are in a network
    Detect {
        #[command(flatten)]
        target: TargetArgs,
        /// A network of SNMP agents instead of one device, at most a /20; prints configuration to paste
        #[arg(long, value_name = "CIDR[:PORT]", group = "target")]
        range: Option<String>,
        /// A network that is not private and may be asked all the same
        #[arg(long, value_name = "CIDR", requires = "range")]
        allow: Vec<String>,
        /// Addresses of a range asked in a second
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=500))]
        per_second: u16,
        /// The name of the secret in the printed configuration
        #[arg(long, value_name = "NAME", default_value = "rack")]
        secret: String,
        #[command(flatten)]
        more: MoreDrivers,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Read a device once, without a gateway
    Read {
        #[command(flatten)]
        target: TargetArgs,
        #[command(flatten)]
        more: MoreDrivers,
        /// The driver; else it is detected
        #[arg(long, value_name = "ID")]
        driver: Option<String>,
        /// The unit of a daisy chain; else all units together
        #[arg(long, value_name = "UNIT")]
        chain_unit: Option<ChainUnit>,
        /// Point by point: where it was read, as it came, and what it means
        #[arg(long)]
        points: bool,
        /// As JSON: the body of GET /v1/pdus/{pdu}, or an array of points
        #[arg(long)]
        json: bool,
    },
    /// Record what a device answers, for a driver's proof
    ///
    /// Blotted out are: sysContact, sysName and sysLocation; names of PDUs, outlets and other parts, serial numbers;
    /// MAC and IP addresses; the community or user that is asked with; every other text that no driver knows the
    /// meaning of, unless it is a number, a usual word for a state, or part of sysDescr. Tables of addresses and
    /// connections are left out. Numbers stay. Look through the file before you show it to others.
    Record {
        #[command(flatten)]
        target: TargetArgs,
        /// Where to walk; give it as often as needed
        #[arg(long, value_name = "OID", default_values = ["1.3.6.1.2.1", "1.3.6.1.4.1"])]
        under: Vec<String>,
        /// An object, or a subtree, whose texts may be shown, as that of the model; give it as often as needed
        #[arg(long, value_name = "OID")]
        keep: Vec<String>,
        /// Modbus registers to read, as input:0-99 or holding:0x5000-0x50ff; give it as often as needed
        #[arg(long, value_name = "TABLE:FIRST-LAST")]
        read: Vec<String>,
        #[command(flatten)]
        more: MoreDrivers,
        /// The recording to write: .snmprec of SNMP, .regs of Modbus
        file: PathBuf,
    },
    /// Replay the recordings that a driver file names and compare
    Prove {
        /// The driver file
        file: PathBuf,
        /// Where the recordings are [default: beside the driver file, in recordings/]
        #[arg(long, value_name = "DIR")]
        recordings: Option<PathBuf>,
    },
}

/// More drivers than those in the program.
#[derive(Debug, Args)]
pub struct MoreDrivers {
    /// A directory with more drivers
    #[arg(long, value_name = "DIR")]
    pub drivers: Option<PathBuf>,
}

/// A device to talk to directly.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("target").required(true).multiple(false))]
pub struct TargetArgs {
    /// An SNMP agent
    #[arg(long, value_name = "ADDR[:PORT]", group = "target")]
    pub snmp: Option<String>,
    /// A Modbus TCP device
    #[arg(long, value_name = "ADDR[:PORT]", group = "target")]
    pub modbus: Option<String>,
    /// A Modbus RTU device on a serial line
    #[arg(long, value_name = "DEVICE", group = "target")]
    pub serial: Option<PathBuf>,
    /// Bits a second of the serial line
    #[arg(long, default_value_t = 9600, value_parser = clap::value_parser!(u32).range(300..=460_800), requires = "serial")]
    pub baud: u32,
    /// Parity of the serial line: none, even or odd
    #[arg(long, default_value = "none", requires = "serial")]
    pub parity: String,
    /// Stop bits of the serial line
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2), requires = "serial")]
    pub stop_bits: u8,
    /// SNMP version
    #[arg(long, value_enum, default_value_t = Version::V2c)]
    pub snmp_version: Version,
    /// SNMP community
    #[arg(long, default_value = "public", env = "PMGATE_COMMUNITY", hide_env_values = true)]
    pub community: String,
    #[command(flatten)]
    pub user: UserArgs,
    /// Modbus unit; else the one that the driver names
    #[arg(long, value_name = "N")]
    pub unit: Option<u8>,
}

impl TargetArgs {
    /// What was typed that nobody else should read.
    pub fn secrets(&self) -> Vec<String> {
        let user = &self.user;
        let typed = [&user.user, &user.auth_password, &user.priv_password].into_iter().flatten();
        // Everybody's community is no secret, and a word of many texts.
        let community = Some(&self.community).filter(|community| community.as_str() != "public");
        typed.chain(community).cloned().collect()
    }
}

/// An SNMP version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Version {
    /// SNMPv1
    V1,
    /// SNMPv2c
    V2c,
}

/// An SNMPv3 user.
#[derive(Debug, Args)]
pub struct UserArgs {
    /// SNMPv3 user name
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// MD5, SHA, SHA-224, SHA-256, SHA-384 or SHA-512
    #[arg(long, value_name = "PROTOCOL", default_value = "SHA-256", requires = "user")]
    pub auth_protocol: String,
    /// Passphrase for authentication
    #[arg(long, value_name = "TEXT", env = "PMGATE_AUTH_PASSWORD", hide_env_values = true)]
    pub auth_password: Option<String>,
    /// DES, AES-128, AES-192, AES-256 or AES-256-C
    #[arg(long, value_name = "PROTOCOL", default_value = "AES-128", requires = "user")]
    pub priv_protocol: String,
    /// Passphrase for privacy
    #[arg(long, value_name = "TEXT", env = "PMGATE_PRIV_PASSWORD", hide_env_values = true)]
    pub priv_password: Option<String>,
    /// SNMPv3 context
    #[arg(long, value_name = "NAME", default_value = "", requires = "user")]
    pub context: String,
}

/// `store`.
#[derive(Debug, Subcommand)]
pub enum Store {
    /// Read all that is stored and say what of it is damaged; the gateway must be stopped
    Verify {
        /// The gateway's state_dir
        #[arg(long, value_name = "DIR")]
        state: PathBuf,
    },
    /// Write a copy of all readings: of a running gateway, or of a stopped one's directory
    Export {
        /// The state_dir of a stopped gateway; without it, a running one is asked
        #[arg(long, value_name = "DIR")]
        state: Option<PathBuf>,
        /// The copy
        file: PathBuf,
        #[command(flatten)]
        client: Client,
    },
    /// Take a copy in; what is there already stays. The gateway must be stopped
    Import {
        /// The gateway's state_dir
        #[arg(long, value_name = "DIR")]
        state: PathBuf,
        /// The copy
        file: PathBuf,
    },
    /// Write a copy of what can be read of a damaged directory; the directory is not touched
    Salvage {
        /// The directory that was set aside
        dir: PathBuf,
        /// The copy
        file: PathBuf,
    },
}

/// `ca`.
#[derive(Debug, Subcommand)]
pub enum Ca {
    /// Make a new authority
    Init {
        #[command(flatten)]
        dir: CaDir,
        /// The trust domain in the names of its clients: spiffe://DOMAIN/role/…
        #[arg(long, default_value = "powerman.local")]
        domain: String,
        /// Days that it is valid
        #[arg(long, default_value_t = 3650, value_parser = clap::value_parser!(u32).range(1..=7300))]
        days: u32,
    },
    /// Make a key and a certificate for a client, or for a gateway with --role server
    Issue {
        #[command(flatten)]
        dir: CaDir,
        /// viewer, operator, approver, admin, hub, or server for a gateway's own
        #[arg(long)]
        role: String,
        /// What the client may reach, for the gateway's policy file: pdu-a, pdu-a/7, host:web-01, group:row3
        #[arg(long)]
        scope: Vec<String>,
        /// Host names and addresses of a gateway
        #[arg(long, value_name = "NAME-OR-IP")]
        host: Vec<String>,
        /// Days that it is valid [default: 90 for people, 30 for machines]
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=7300))]
        days: Option<u32>,
        /// Name of the person or machine
        name: String,
    },
    /// Sign a certificate request; role and name come from here, never from the request
    Sign {
        #[command(flatten)]
        dir: CaDir,
        /// As for issue
        #[arg(long)]
        role: String,
        /// Name of the person or machine
        #[arg(long)]
        name: String,
        /// Host names and addresses of a gateway
        #[arg(long, value_name = "NAME-OR-IP")]
        host: Vec<String>,
        /// Days that it is valid
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=7300))]
        days: Option<u32>,
        /// The request, PEM
        csr: PathBuf,
    },
    /// Revoke a certificate and make a new revocation list
    Revoke {
        #[command(flatten)]
        dir: CaDir,
        /// Serial number as `ca show` prints it
        serial: String,
    },
    /// Make a new revocation list
    Crl {
        #[command(flatten)]
        dir: CaDir,
        /// Days until the next one must be there
        #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=365))]
        days: u32,
    },
    /// The certificates issued
    Show {
        #[command(flatten)]
        dir: CaDir,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// Where an authority keeps its files.
#[derive(Debug, Args)]
pub struct CaDir {
    /// The directory of the authority
    #[arg(long, default_value = "./ca")]
    pub dir: PathBuf,
}
