//! The gateway: started in an order that a reader can recite, reloaded without losing a poll, ended without
//! losing a row.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::api::serve::Listener;
use crate::api::{State, Turns};
use crate::board::Board;
use crate::cli::exit::{Exit, Outcome};
use crate::device::traps::{self, Senders};
use crate::device::{Fleet, Services};
use crate::events::Events;
use crate::link::trap::Receiver;
use crate::model::event::About;
use crate::model::id::RackId;
use crate::model::limits::{LONG_ANSWERS, QUERIES, STORE_ROWS};
use crate::model::time::{Clock, SystemClock};
use crate::profile::catalog::Catalog;
use crate::store::archive::{Archive, Settings};
use crate::store::journal::Journal;
use crate::store::writer::{Counts, Row, Writer};
use crate::store::{keeper, legacy};
use crate::switching::{Site, Switching};
use crate::tls::server::Server;

use super::config::{self, Config, Traps};

/// What of a configuration is taken up at the start only.
#[derive(PartialEq, Eq)]
struct Fixed {
    rack: RackId,
    listen: SocketAddr,
    state_dir: PathBuf,
    traps: Option<Traps>,
}

impl Fixed {
    fn of(config: &Config) -> Self {
        let Config { rack, listen, state_dir, traps, .. } = config;
        let (rack, state_dir, traps) = (rack.clone(), state_dir.clone(), traps.clone());
        Self { rack, listen: *listen, state_dir, traps }
    }
}

/// A running gateway.
pub struct Gateway {
    state: Arc<State>,
    catalog: watch::Sender<Arc<Catalog>>,
    site: watch::Sender<Arc<Site>>,
    tls: watch::Sender<Arc<Server>>,
    fixed: Fixed,
    rows: mpsc::Sender<Row>,
    writer: JoinHandle<()>,
    keeper: (std::sync::mpsc::Sender<()>, JoinHandle<()>),
    api: tokio::task::JoinHandle<()>,
    /// Where the API listens.
    pub address: std::net::SocketAddr,
}

/// `pmgate serve`: until SIGTERM or SIGINT; SIGHUP takes a changed configuration up.
pub async fn serve(path: &Path) -> Outcome {
    no_core_dumps();
    let gateway = Gateway::start(config::load(path)?).await?;
    tracing::info!("rack {} is served at https://{}", gateway.state.rack, gateway.address);
    let mut hangup = signal(SignalKind::hangup()).map_err(Exit::failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Exit::failed)?;
    loop {
        tokio::select! {
            _ = hangup.recv() => gateway.reload(path),
            _ = terminate.recv() => break,
            result = tokio::signal::ctrl_c() => {
                result.map_err(Exit::failed)?;
                break;
            }
        }
    }
    gateway.end().await;
    Ok(())
}

/// Secrets are in memory: a core dump would put them on the disk.
pub fn no_core_dumps() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, none) {
        tracing::warn!(%error, "core dumps could not be switched off");
    }
}

impl Gateway {
    /// Starts everything. When it returns, the address is bound and the devices are being polled.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        let fixed = Fixed::of(&config);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
        let stop = CancellationToken::new();
        // What can fail comes first; nothing has been asked of a device by then.
        let listener = Listener::bind(config.listen).await?;
        let senders = Arc::new(Senders::default());
        let traps = match &config.traps {
            Some(traps) => {
                let known = senders.clone();
                let gate = move |from| known.knows(from);
                Some(Receiver::bind(traps.listen, &traps.users, gate).await?)
            }
            None => None,
        };
        let journal = config.state_dir.join("journal.redb");
        let journal = Arc::new(
            Journal::open(&journal)
                .with_context(|| format!("the journal {} does not open", journal.display()))?,
        );
        let events = Events::new(clock.clone());
        let store = Arc::new(open_store(&config.state_dir, config.store, events.clone()));
        let counts = Arc::new(Counts::default());
        let (rows, queue) = mpsc::channel(STORE_ROWS);
        let writer = start_writer(store.clone(), counts.clone(), queue)?;
        let keeper = start_keeper(store.clone(), clock.clone(), config.state_dir.join("readings"))?;
        let (catalog, catalog_seen) = watch::channel(config.catalog);
        let (site, site_seen) = watch::channel(Arc::new(config.site));
        let (tls, tls_seen) = watch::channel(Arc::new(config.tls));
        let board = Board::default();
        let services = Services {
            clock: clock.clone(),
            board: board.clone(),
            catalog: catalog_seen,
            events: events.clone(),
            counts: counts.clone(),
            rows: rows.downgrade(),
        };
        let fleet = Fleet::new(services, CancellationToken::new());
        let switching =
            Switching::new(fleet.clone(), journal, site_seen.clone(), CancellationToken::new())
                .context("the journal cannot be read")?;
        fleet.apply(config.devices);
        if let Some(receiver) = traps {
            tracing::info!("traps are taken at {}", receiver.address);
            tokio::spawn(traps::listen(receiver, fleet.clone(), senders.clone(), stop.clone()));
        }
        let taken_up = switching.resume().await.context("the journal cannot be read")?;
        if taken_up > 0 {
            tracing::warn!(
                "{taken_up} plans from before the restart go on, or wait for their time"
            );
        }
        switching.forget().await.context("the journal cannot be tidied")?;
        switching.watch(store.clone()).await.context("the journal cannot be read")?;
        let address = listener.address;
        let state = Arc::new(State {
            rack: config.rack.clone(),
            started_at: clock.stamp(),
            started: clock.tick(),
            clock,
            board,
            fleet,
            switching,
            store,
            turns: Turns {
                working: Arc::new(Semaphore::new(QUERIES)),
                waiting: Arc::new(Semaphore::new(LONG_ANSWERS)),
                stop: stop.clone(),
            },
            counts,
            traps: senders,
            events: events.clone(),
            site: site_seen,
            tls: tls_seen,
            config_refused: Arc::new(AtomicBool::new(false)),
            stop,
        });
        let api = tokio::spawn(listener.serve(state.clone()));
        events.tell(
            "gateway.started",
            About::default(),
            format!("the gateway of rack {} started", config.rack),
        );
        Ok(Self { state, catalog, site, tls, fixed, rows, writer, keeper, api, address })
    }

    /// Takes a changed configuration up; a faulty one is refused and the old one stays.
    pub fn reload(&self, path: &Path) {
        let events = &self.state.events;
        let config = match config::load(path) {
            Ok(config) => config,
            Err(error) => {
                self.state.config_refused.store(true, Ordering::Relaxed);
                tracing::error!("the configuration was refused, the old one stays:\n{error:#}");
                events.tell(
                    "config.refused",
                    About::default(),
                    format!("the configuration was refused, the old one stays: {error:#}"),
                );
                return;
            }
        };
        self.state.config_refused.store(false, Ordering::Relaxed);
        if Fixed::of(&config) != self.fixed {
            tracing::warn!("rack, listen, state_dir and [traps] change only with a restart");
        }
        let drivers = config.catalog.changed_since(&self.catalog.borrow());
        self.catalog.send_replace(config.catalog);
        let changes = self.state.fleet.apply(config.devices);
        self.site.send_replace(Arc::new(config.site));
        self.tls.send_replace(Arc::new(config.tls));
        let text = format!(
            "the configuration was taken up: {} PDUs started, {} changed, {} ended; {drivers} drivers changed",
            changes.started, changes.changed, changes.ended
        );
        tracing::info!("{text}");
        let (switching, line) = (self.state.switching.clone(), text.clone());
        tokio::spawn(async move {
            if let Err(error) = switching.write_down("config.reloaded", line).await {
                tracing::error!(%error, "the audit does not tell of the new configuration");
            }
        });
        events.tell("config.reloaded", About::default(), text);
    }

    /// Waits until every PDU was read once, at most this long.
    pub async fn all_read(&self, patience: std::time::Duration) {
        let ids: Vec<_> = self.state.board.views().iter().map(|view| view.id.clone()).collect();
        let all = async {
            for id in ids {
                let Some(mut view) = self.state.board.watch(&id) else { continue };
                // A place that is gone is not waited for.
                drop(view.wait_for(|view| view.observed.is_some()).await);
            }
        };
        if tokio::time::timeout(patience, all).await.is_err() {
            tracing::warn!("not every PDU was read within {} s", patience.as_secs());
        }
    }

    /// Ends everything: no new requests, plans under way reach a safe point, every row is written.
    pub async fn end(self) {
        self.state.events.tell("gateway.ending", About::default(), "the gateway ends");
        self.state.switching.end().await;
        self.state.stop.cancel();
        if let Err(error) = self.api.await {
            tracing::error!(%error, "the API did not end well");
        }
        self.state.fleet.end().await;
        drop(self.rows);
        let (writer, (stop_keeper, keeper)) = (self.writer, self.keeper);
        drop(stop_keeper);
        let both = move || writer.join().is_ok() & keeper.join().is_ok();
        let joined = tokio::task::spawn_blocking(both).await;
        if !joined.unwrap_or(false) {
            tracing::error!("the store's writer did not end well: the last readings may be lost");
        }
    }
}

/// Opens the store; without a disk readings are kept in memory.
fn open_store(state_dir: &Path, settings: Settings, events: Events) -> Archive {
    let alarm = |events: Events| {
        Box::new(move |kind, text: String| events.tell(kind, About::default(), text))
    };
    match Archive::open(&state_dir.join("history"), settings, alarm(events.clone())) {
        Ok(archive) => archive,
        Err(error) => {
            let archive = Archive::in_memory(settings, alarm(events));
            archive.raise("store.memory", format!("readings are kept in memory only: {error}"));
            archive
        }
    }
}

fn start_writer(
    store: Arc<Archive>,
    counts: Arc<Counts>,
    queue: mpsc::Receiver<Row>,
) -> anyhow::Result<JoinHandle<()>> {
    let writer = Writer::new(store, counts);
    std::thread::Builder::new()
        .name("store".into())
        .spawn(move || writer.run(queue))
        .context("no thread for the store")
}

fn start_keeper(
    store: Arc<Archive>,
    clock: Arc<dyn Clock>,
    old: PathBuf,
) -> anyhow::Result<(std::sync::mpsc::Sender<()>, JoinHandle<()>)> {
    let (stop, stopped) = std::sync::mpsc::channel();
    let keep = move || {
        legacy::take_over(&store, &old);
        keeper::run(&store, &clock, &stopped);
    };
    let thread = std::thread::Builder::new()
        .name("keeper".into())
        .spawn(keep)
        .context("no thread for the store's keeper")?;
    Ok((stop, thread))
}
