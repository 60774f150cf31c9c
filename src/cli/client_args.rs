//! What may be typed to talk to a gateway.

// A doc comment on a flattened field would replace the help of its command.
#![allow(missing_docs)]

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// How a gateway is reached.
#[derive(Debug, Clone, Args)]
pub struct Client {
    /// Base URL of the gateway
    #[arg(long, env = "PMGATE_URL", global = true)]
    pub url: Option<String>,
    /// Client certificate, PEM
    #[arg(long, env = "PMGATE_CERT", global = true)]
    pub cert: Option<PathBuf>,
    /// Key of the client certificate, PEM
    #[arg(long, env = "PMGATE_KEY", global = true)]
    pub key: Option<PathBuf>,
    /// The authority that signed the gateway's certificate, PEM
    #[arg(long, env = "PMGATE_CA", global = true)]
    pub ca: Option<PathBuf>,
    /// A context of ~/.config/pmgate/config.toml
    #[arg(long, env = "PMGATE_CONTEXT", global = true)]
    pub context: Option<String>,
    /// As JSON
    #[arg(long, global = true)]
    pub json: bool,
}

/// `pdu`.
#[derive(Debug, Subcommand)]
pub enum Pdu {
    /// All PDUs
    List {
        #[command(flatten)]
        client: Client,
    },
    /// One PDU
    Show {
        /// Its id
        id: String,
        /// How old the answer may be, ms
        #[arg(long, value_name = "MS")]
        max_age_ms: Option<u64>,
        #[command(flatten)]
        client: Client,
    },
}

/// How something is switched.
#[derive(Debug, Args)]
pub struct Switch {
    /// What to switch: pdu-a/7, or the id of a host or group
    #[arg(required = true, value_name = "ID")]
    pub ids: Vec<String>,
    /// Why, for the record
    #[arg(long, default_value = "")]
    pub reason: String,
    /// Makes a repeated call switch once only [default: a new key for every call]
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
    #[command(flatten)]
    pub client: Client,
}

/// `outlet`.
#[derive(Debug, Subcommand)]
pub enum Outlet {
    /// Outlets of a PDU, or of all
    List {
        /// The PDU
        pdu: Option<String>,
        #[command(flatten)]
        client: Client,
    },
    /// One outlet
    Show {
        /// As pdu-a/7
        id: String,
        #[command(flatten)]
        client: Client,
    },
    /// Switch on
    On(Switch),
    /// Switch off
    Off(Switch),
    /// Off, hold, on
    Cycle(Switch),
    /// Have it switched by nobody until it is unlocked; needs the role admin
    Lock {
        /// As pdu-a/7
        id: String,
        /// Why
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        client: Client,
    },
    /// Lift a lock; needs the role admin
    Unlock {
        /// As pdu-a/7
        id: String,
        #[command(flatten)]
        client: Client,
    },
}

/// What a plan is for.
#[derive(Debug, Args)]
pub struct Wish {
    /// Switch on: pdu-a, pdu-a/7, host:web-01 or group:web; may be given more than once
    #[arg(long, value_name = "ID")]
    pub on: Vec<String>,
    /// Switch off
    #[arg(long, value_name = "ID")]
    pub off: Vec<String>,
    /// Off, hold, on
    #[arg(long, value_name = "ID")]
    pub cycle: Vec<String>,
    /// Why, for the record
    #[arg(long, default_value = "")]
    pub reason: String,
    /// What becomes of the rest when a step fails
    #[arg(long, default_value = "stop", value_parser = ["stop", "continue"])]
    pub on_failure: String,
    /// What becomes of the rest when more flows than was reckoned, and waiting does not help
    #[arg(long, default_value = "stop", value_parser = ["stop", "replan"])]
    pub on_overload: String,
    /// Whether hosts go on in the fastest order, or strictly by their priority
    #[arg(long, default_value = "fastest", value_parser = ["fastest", "priority"])]
    pub order: String,
    /// Hosts whose last feed is among the outlets may go dark, though they are not named
    #[arg(long)]
    pub drop_hosts: bool,
    /// Locked and critical outlets may be named; an admin lifts their locks for this plan
    #[arg(long)]
    pub over_locks: bool,
    /// Not before, as 2026-01-31T22:00:00Z
    #[arg(long, value_name = "TIME")]
    pub not_before: Option<String>,
    /// Made anew and run by a rule, as "Mon-Fri 07:30 Europe/Berlin", once it has been run
    #[arg(long, value_name = "RULE", conflicts_with = "not_before")]
    pub calendar: Option<String>,
    #[command(flatten)]
    pub client: Client,
}

/// `plan`.
#[derive(Debug, Subcommand)]
pub enum Plan {
    /// What a plan would do, and nothing else
    Preview(Wish),
    /// Make a plan and keep it
    Create(Wish),
    /// Run a kept plan, if the rack is still the one it was made for
    Run {
        /// Its id
        id: String,
        /// The digest that was looked at [default: that of the plan as it is kept]
        #[arg(long)]
        digest: Option<String>,
        /// Show how it goes on
        #[arg(long)]
        follow: bool,
        #[command(flatten)]
        client: Client,
    },
    /// Agree to a plan that somebody else made; needs the role approver
    Approve {
        /// Its id
        id: String,
        /// The digest that was looked at [default: that of the plan as it is kept]
        #[arg(long)]
        digest: Option<String>,
        #[command(flatten)]
        client: Client,
    },
    /// Lift the locks of the outlets that a plan names, for this plan only; needs the role admin
    Lift {
        /// Its id
        id: String,
        /// The digest that was looked at [default: that of the plan as it is kept]
        #[arg(long)]
        digest: Option<String>,
        #[command(flatten)]
        client: Client,
    },
    /// Have a plan begin no further step
    Cancel {
        /// Its id
        id: String,
        #[command(flatten)]
        client: Client,
    },
    /// One plan
    Show {
        /// Its id
        id: String,
        #[command(flatten)]
        client: Client,
    },
    /// The latest plans
    List {
        #[command(flatten)]
        client: Client,
    },
}

/// `host`.
#[derive(Debug, Subcommand)]
pub enum Host {
    /// All hosts
    List {
        #[command(flatten)]
        client: Client,
    },
    /// One host
    Show {
        /// Its id
        id: String,
        #[command(flatten)]
        client: Client,
    },
    /// Switch all feeds on
    On(Switch),
    /// Switch all feeds off
    Off(Switch),
    /// All feeds off, hold, on
    Cycle(Switch),
}

/// `group`.
#[derive(Debug, Subcommand)]
pub enum Group {
    /// All groups
    List {
        #[command(flatten)]
        client: Client,
    },
    /// One group
    Show {
        /// Its id
        id: String,
        #[command(flatten)]
        client: Client,
    },
    /// Switch everything in it on
    On(Switch),
    /// Switch everything in it off
    Off(Switch),
    /// Everything in it off, hold, on
    Cycle(Switch),
}

/// `audit`.
#[derive(Debug, Subcommand)]
pub enum Audit {
    /// The latest lines, oldest first
    List {
        /// How many
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
        last: u32,
        #[command(flatten)]
        client: Client,
    },
    /// Check the whole chain, line by line, here and at the gateway
    Verify {
        #[command(flatten)]
        client: Client,
    },
}

/// `series`.
#[derive(Debug, Args)]
pub struct Series {
    /// pdu-a, pdu-a/7, pdu-a/L1, pdu-a/B2 or pdu-a/T1
    pub target: String,
    /// power_w, current_a, energy_wh, state, …
    pub metric: String,
    /// From when: RFC 3339, or back from now as in -2h
    #[arg(long, default_value = "-1h", allow_hyphen_values = true)]
    pub start: String,
    /// Until when
    #[arg(long, default_value = "now", allow_hyphen_values = true)]
    pub end: String,
    /// Width of a step, as in 60s; without it the readings as they came
    #[arg(long)]
    pub step: Option<String>,
    /// avg, min, max, last or rate
    #[arg(long, requires = "step")]
    pub agg: Option<String>,
    /// As CSV, or as an Arrow IPC stream for pyarrow, pandas, Polars, DuckDB or R: to a file or a pipe
    #[arg(long, conflicts_with = "json")]
    pub format: Option<Format>,
    /// Short for --format csv
    #[arg(long, conflicts_with_all = ["json", "format"])]
    pub csv: bool,
    #[command(flatten)]
    pub client: Client,
}

/// How readings are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A line a reading
    Csv,
    /// An Arrow IPC stream
    Arrow,
}

/// `events`.
#[derive(Debug, Args)]
pub struct Events {
    /// Go on as they come; without it the last 50 are printed
    #[arg(long, short)]
    pub follow: bool,
    #[command(flatten)]
    pub client: Client,
}
