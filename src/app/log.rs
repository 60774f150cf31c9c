//! The log on standard error, and what the log of a library is the only one to tell: datagrams that are no traps.

use std::fmt::Debug;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::link::trap::UNREADABLE;

/// Where the library tells of datagrams that it dropped.
const TRAPS: &str = "async_snmp::notification";

/// Sets the log up.
pub fn start(verbose: u8) {
    let default = match verbose {
        0 => "warn,pmgate=info",
        1 => "info,pmgate=debug",
        _ => "debug,pmgate=trace",
    };
    let named = std::env::var("PMGATE_LOG").ok();
    let mut filter = named
        .as_deref()
        .and_then(|named| EnvFilter::try_new(named).ok())
        .unwrap_or_else(|| EnvFilter::new(default));
    // Anybody can send a line for each datagram: they are counted, and told once a minute. Who wants each asks for it.
    if verbose < 2 && !named.is_some_and(|named| named.contains("async_snmp")) {
        filter = filter.add_directive(format!("{TRAPS}=error").parse().expect("a fixed text"));
    }
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(colours)
        .with_writer(std::io::stderr)
        .with_filter(filter);
    tracing_subscriber::registry().with(lines).with(Unread.with_filter(Dropped)).init();
}

/// What [`Unread`] is shown.
struct Dropped;

impl<S> tracing_subscriber::layer::Filter<S> for Dropped {
    fn enabled(&self, about: &tracing::Metadata<'_>, _: &Context<'_, S>) -> bool {
        about.is_event() && about.target() == TRAPS && *about.level() <= Level::WARN
    }
}

/// Counts them.
struct Unread;

impl<S: Subscriber> Layer<S> for Unread {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut seen = Seen::default();
        event.record(&mut seen);
        // Who asks which engine this is has done nothing wrong, and the other failures are told as an error too.
        let failed = seen.failure.is_some_and(|failure| {
            ["UnknownUserNames", "UnsupportedSecLevels"].contains(&failure.as_str())
        });
        if seen.error || failed {
            UNREADABLE.add(seen.from);
        }
    }
}

#[derive(Default)]
struct Seen {
    from: Option<String>,
    failure: Option<String>,
    error: bool,
}

impl Visit for Seen {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "snmp.source" => self.from = Some(format!("{value:?}")),
            "snmp.failure" => self.failure = Some(format!("{value:?}")),
            "error" => self.error = true,
            _ => {}
        }
    }
}
