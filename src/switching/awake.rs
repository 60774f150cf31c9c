//! The processor, kept from sleeping while commands come: each of the half dozen hand-overs between a command's arrival
//! and its SET otherwise waits until a sleeping core is up again, which takes tens of microseconds, and on a small board
//! hundreds.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::model::time::Span;

/// Where Linux takes how long a core may need to wake up, as a native `s32` in microseconds (its documentation, "PM
/// Quality Of Service Interface"). It holds for as long as the file is open.
pub(super) const LATENCY: &str = "/dev/cpu_dma_latency";
/// How long after a command: they seldom come alone.
const LASTS: Span = Span::seconds(1);
/// No sleep at all.
const NONE_US: i32 = 0;
/// Whatever the kernel thinks best (`PM_QOS_DEFAULT_VALUE`).
const ANY_US: i32 = -1;

/// Keeps the processor awake for a second after each command. Clones are handles to the same one. Where the kernel's
/// file may not be written it does nothing, and commands take a little longer.
#[derive(Clone)]
pub(super) struct Awake {
    inner: Arc<(Mutex<Inner>, Notify)>,
}

struct Inner {
    file: Option<File>,
    until: Option<Instant>,
}

impl Awake {
    /// By the kernel's file.
    pub fn by(path: &Path) -> Self {
        let file = match OpenOptions::new().write(true).open(path) {
            Ok(file) => Some(file),
            Err(error) => {
                let path = path.display();
                tracing::debug!(%error, "the processor may sleep between commands, as {path} is not writable");
                None
            }
        };
        Self { inner: Arc::new((Mutex::new(Inner { file, until: None }), Notify::new())) }
    }

    /// A command comes.
    pub fn stay(&self) {
        let mut inner = self.inner();
        if inner.file.is_none() {
            return;
        }
        if inner.until.is_none() {
            inner.write(NONE_US);
            self.inner.1.notify_one();
        }
        inner.until = Some(Instant::now() + LASTS.duration());
    }

    /// Lets it sleep again when no command has come for a while, until the gateway has ended.
    pub async fn keep(self, done: CancellationToken) {
        while !done.is_cancelled() {
            let until = self.rest(Instant::now());
            let time_comes = async {
                if let Some(until) = until {
                    tokio::time::sleep_until(until).await;
                } else {
                    self.inner.1.notified().await;
                }
            };
            tokio::select! {
                () = time_comes => {}
                () = done.cancelled() => {}
            }
        }
        let mut inner = self.inner();
        if inner.until.take().is_some() {
            inner.write(ANY_US);
        }
    }

    /// Lets it sleep if its time has come; else until when it stays awake.
    fn rest(&self, now: Instant) -> Option<Instant> {
        let mut inner = self.inner();
        if inner.until.is_some_and(|until| until <= now) {
            inner.until = None;
            inner.write(ANY_US);
        }
        inner.until
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn write(&mut self, latency_us: i32) {
        let Some(file) = &mut self.file else { return };
        if let Err(error) = file.write_all(&latency_us.to_ne_bytes()) {
            tracing::warn!(%error, "the kernel does not take how long the processor may need to wake up");
            // What it was told before ends with the file.
            self.file = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(path: &Path) -> Vec<i32> {
        let bytes = std::fs::read(path).unwrap();
        bytes.chunks(4).map(|four| i32::from_ne_bytes(four.try_into().unwrap())).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_processor_stays_awake_until_a_second_after_the_last_command() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("latency");
        std::fs::write(&path, "").unwrap();
        let awake = Awake::by(&path);
        let done = CancellationToken::new();
        let keeper = tokio::spawn(awake.clone().keep(done.clone()));
        for _ in 0..3 {
            awake.stay();
            tokio::time::sleep(Span(900).duration()).await;
            assert_eq!(told(&path), [NONE_US]);
        }
        tokio::time::sleep(Span(200).duration()).await;
        assert_eq!(told(&path), [NONE_US, ANY_US]);
        awake.stay();
        tokio::time::sleep(Span(10).duration()).await;
        done.cancel();
        keeper.await.unwrap();
        assert_eq!(told(&path), [NONE_US, ANY_US, NONE_US, ANY_US]);
    }

    #[tokio::test(start_paused = true)]
    async fn without_the_kernels_file_commands_come_through_all_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let awake = Awake::by(&directory.path().join("none"));
        awake.stay();
        assert!(awake.inner().until.is_none());
    }
}
