//! Answers that are sent while they are made. A thread makes them piece by piece and waits where its client does, so an
//! answer of any length takes little memory; it ends when the client goes away. What breaks off never looks whole: the
//! connection (HTTP/1.1) or stream (HTTP/2) is reset instead of ended.

use std::io::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Polled, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::Response;
use hyper::body::Frame;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, mpsc};
use tokio_util::sync::CancellationToken;

use crate::store::StoreError;
use crate::wire::problem::Problem;

use super::context::{Answer, Body, bytes};

/// Bytes in one piece.
pub const PIECE: usize = 64 * 1024;
/// Pieces made and not yet taken by the client; then it is slow, and the maker waits.
pub const AHEAD: usize = 4;
/// How long a client may take for one piece: 2 KB/s is a slow modem, less is nobody.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why a body ended before its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the answer broke off: {0}")]
pub struct Broken(pub String);

/// Why an answer was not made to its end.
#[derive(Debug)]
pub enum Stopped {
    /// Nobody waits for it any more.
    Gone,
    /// What went wrong.
    Failed(Box<Problem>),
}

impl From<Problem> for Stopped {
    fn from(problem: Problem) -> Self {
        Stopped::Failed(Box::new(problem))
    }
}

impl From<StoreError> for Stopped {
    fn from(error: StoreError) -> Self {
        Problem::from(error).into()
    }
}

impl From<std::io::Error> for Stopped {
    fn from(error: std::io::Error) -> Self {
        // What an `Outgoing` refused to take comes back out of the encoder that wrote it.
        match error.downcast::<Refused>() {
            Ok(refused) => refused.0,
            Err(error) => internal(&error).into(),
        }
    }
}

/// Why a piece was not taken, as an encoder's `Write` hands it on.
#[derive(Debug, thiserror::Error)]
#[error("the answer is not taken any more")]
struct Refused(Stopped);

/// Something of ours went wrong.
pub fn internal(error: &dyn std::fmt::Display) -> Problem {
    Problem::new(
        500,
        "Internal error",
        error.to_string(),
        "report this with the request that caused it",
    )
}

/// Who may read the store and for how long.
#[derive(Debug, Clone)]
pub struct Turns {
    /// Readers that work at one time.
    pub working: Arc<Semaphore>,
    /// Long answers that are sent at one time. While one waits for its client it has no turn, so that it holds up nobody.
    pub waiting: Arc<Semaphore>,
    /// Ends them all when the gateway ends.
    pub stop: CancellationToken,
}

/// What a maker hands on.
enum Piece {
    Some(Bytes),
    /// All of an answer that is short.
    Whole(Bytes),
    End,
    Failed(Problem),
}

/// Where a maker writes its answer.
pub struct Outgoing {
    pieces: mpsc::Sender<Piece>,
    held: Vec<u8>,
    begun: bool,
    turns: Turns,
    turn: Option<OwnedSemaphorePermit>,
    place: Option<OwnedSemaphorePermit>,
    runtime: tokio::runtime::Handle,
}

/// Answers with what a maker writes, as it writes it. A problem before the first piece is the answer.
pub async fn stream<M>(turns: Turns, kind: &'static str, make: M) -> Answer
where
    M: FnOnce(&mut Outgoing) -> Result<(), Stopped> + Send + 'static,
{
    let ending =
        |()| Problem::new(503, "Shutting down", "the gateway ends", "ask again in a moment");
    let turn = turns.working.clone().acquire_owned().await.map_err(|_| ending(()))?;
    let stop = turns.stop.clone();
    let (sender, mut pieces) = mpsc::channel(AHEAD);
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        let mut out = Outgoing {
            pieces: sender,
            held: Vec::new(),
            begun: false,
            turns,
            turn: Some(turn),
            place: None,
            runtime,
        };
        let made = make(&mut out);
        out.end(made);
    });
    let first = match pieces.recv().await {
        Some(Piece::Some(first)) => first,
        Some(Piece::Whole(all)) => return Ok(bytes(hyper::StatusCode::OK, kind, all)),
        Some(Piece::Failed(problem)) => return Err(problem),
        Some(Piece::End) | None if stop.is_cancelled() => return Err(ending(())),
        Some(Piece::End) | None => return Err(internal(&"the answer was not made")),
    };
    let body: Body = Coming { first: Some(first), pieces, over: false }.boxed();
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    Ok(response)
}

impl Outgoing {
    /// Tells whether nobody waits for the answer any more: for makers that work long between two pieces.
    pub fn gone(&self) -> impl Fn() -> bool + use<> {
        let (pieces, stop) = (self.pieces.clone(), self.turns.stop.clone());
        move || pieces.is_closed() || stop.is_cancelled()
    }

    fn send(&mut self, piece: Piece) -> Result<(), Stopped> {
        // Before anything is sent: one that finds no place is refused, and not broken off.
        if !self.begun && !matches!(piece, Piece::Whole(_)) {
            self.will_be_long()?;
        }
        self.begun = true;
        // Also where the client keeps up, and nothing is ever waited for.
        if self.turns.stop.is_cancelled() && matches!(piece, Piece::Some(_)) {
            return Err(Stopped::Gone);
        }
        match self.pieces.try_send(piece) {
            Ok(()) => Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Stopped::Gone),
            Err(mpsc::error::TrySendError::Full(piece)) => self.wait(piece),
        }
    }

    /// Puts all of an answer that is not long, which is sent at the end, with its length before it.
    pub fn put_whole(&mut self, pieces: Vec<Vec<u8>>) {
        pieces.into_iter().for_each(|piece| self.held.extend_from_slice(&piece));
    }

    /// A long answer may have to wait for its client, and takes memory then: so many are sent at one time, and no more. It
    /// has its place when it begins to be sent, or before that when its maker knows.
    pub fn will_be_long(&mut self) -> Result<(), Stopped> {
        if self.place.is_some() {
            return Ok(());
        }
        let place = self.turns.waiting.clone().try_acquire_owned();
        self.place = Some(place.map_err(|error| match error {
            TryAcquireError::Closed => Stopped::Gone,
            TryAcquireError::NoPermits => {
                let detail = "too many long answers are being sent";
                Problem::new(503, "Busy", detail, "ask again when one of them is done").into()
            }
        })?);
        Ok(())
    }

    /// Waits for the client. Others read meanwhile.
    fn wait(&mut self, piece: Piece) -> Result<(), Stopped> {
        self.turn = None;
        let (pieces, turns) = (self.pieces.clone(), self.turns.clone());
        self.turn = self.runtime.block_on(async move {
            let sent = tokio::time::timeout(PATIENCE, pieces.send(piece));
            tokio::select! {
                () = turns.stop.cancelled() => return Err(Stopped::Gone),
                sent = sent => match sent {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return Err(Stopped::Gone),
                    Err(_) => {
                        let detail = format!("its client took nothing for {} s", PATIENCE.as_secs());
                        return Err(Problem::new(408, "Too slow", detail, "read faster").into());
                    }
                },
            }
            tokio::select! {
                () = turns.stop.cancelled() => Err(Stopped::Gone),
                turn = turns.working.acquire_owned() => turn.map(Some).map_err(|_| Stopped::Gone),
            }
        })?;
        Ok(())
    }

    fn end(mut self, made: Result<(), Stopped>) {
        let last = Bytes::from(std::mem::take(&mut self.held));
        let ended = match made {
            Ok(()) if !self.begun => self.send(Piece::Whole(last)),
            Ok(()) if last.is_empty() => self.send(Piece::End),
            Ok(()) => self.send(Piece::Some(last)).and_then(|()| self.send(Piece::End)),
            Err(stopped) => Err(stopped),
        };
        match ended {
            Ok(()) => {}
            Err(Stopped::Gone) => tracing::debug!("a client went away before its answer was made"),
            Err(Stopped::Failed(problem)) => {
                if self.begun {
                    tracing::warn!("an answer broke off: {}", problem.detail);
                }
                // Where there is no room for it, the body ends without its end all the same.
                drop(self.pieces.try_send(Piece::Failed(*problem)));
            }
        }
    }
}

impl Write for Outgoing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.held.extend_from_slice(bytes);
        if self.held.len() >= PIECE {
            let piece = std::mem::replace(&mut self.held, Vec::with_capacity(PIECE));
            let sent = self.send(Piece::Some(piece.into()));
            sent.map_err(|stopped| std::io::Error::other(Refused(stopped)))?;
        }
        Ok(bytes.len())
    }

    /// Nothing: pieces go when they are full, and at the end.
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The body of an answer that is still being made.
struct Coming {
    first: Option<Bytes>,
    pieces: mpsc::Receiver<Piece>,
    over: bool,
}

impl hyper::body::Body for Coming {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        polled: &mut Polled<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        if self.over {
            return Poll::Ready(None);
        }
        let Poll::Ready(piece) = self.pieces.poll_recv(polled) else { return Poll::Pending };
        let broken = match piece {
            Some(Piece::Some(piece) | Piece::Whole(piece)) => {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            Some(Piece::End) => {
                self.over = true;
                return Poll::Ready(None);
            }
            Some(Piece::Failed(problem)) => Broken(problem.detail),
            // Its maker is gone, by a panic or with the gateway.
            None => Broken("it was not made to its end".to_owned()),
        };
        self.over = true;
        Poll::Ready(Some(Err(broken)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use hyper::body::Body as _;

    use super::*;

    fn turns(working: usize, waiting: usize) -> Turns {
        Turns {
            working: Arc::new(Semaphore::new(working)),
            waiting: Arc::new(Semaphore::new(waiting)),
            stop: CancellationToken::new(),
        }
    }

    /// Waits for what another thread does; the test's own time limit is the end of it.
    async fn until(is_so: impl Fn() -> bool) {
        let wait = async {
            while !is_so() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait).await.expect("it never came to that");
    }

    static WHOLE: [u8; PIECE] = [7; PIECE];

    /// An answer of many pieces, and how many of them were written so far.
    async fn endless(turns: &Turns) -> (Response<Body>, Arc<AtomicUsize>) {
        let made = Arc::new(AtomicUsize::new(0));
        let count = made.clone();
        let answer = stream(turns.clone(), "text/plain", move |out| {
            for _ in 0..1_000 {
                out.write_all(&WHOLE)?;
                count.fetch_add(1, Ordering::SeqCst);
            }
            Ok(())
        });
        (answer.await.unwrap(), made)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_maker_is_never_further_ahead_than_the_bound_and_waits_without_a_turn() {
        let turns = turns(1, 1);
        let (answer, made) = endless(&turns).await;
        let mut body = answer.into_body();
        for read in 0..20_usize {
            // The first piece came with the head; the one in hand is not counted as made.
            let expected = read.max(1) + AHEAD;
            until(|| made.load(Ordering::SeqCst) == expected).await;
            // The turn is back: the maker waits for its client, and makes no more.
            until(|| turns.working.available_permits() == 1).await;
            assert_eq!(turns.waiting.available_permits(), 0);
            assert_eq!(made.load(Ordering::SeqCst), expected);
            let turn = turns.working.clone().acquire_owned().await.unwrap();
            let frame = body.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap().len(), PIECE);
            drop(turn);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_client_that_goes_away_ends_the_work() {
        let turns = turns(1, 1);
        let (answer, made) = endless(&turns).await;
        until(|| turns.working.available_permits() == 1).await;
        drop(answer);
        until(|| turns.waiting.available_permits() == 1).await;
        assert!(made.load(Ordering::SeqCst) < 10);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_gateways_end_ends_the_work() {
        let turns = turns(1, 1);
        let (answer, _) = endless(&turns).await;
        until(|| turns.working.available_permits() == 1).await;
        turns.stop.cancel();
        let error = answer.into_body().collect().await.unwrap_err();
        assert!(error.to_string().contains("broke off"), "{error}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_breaks_off_never_looks_whole() {
        type Make = fn(&mut Outgoing) -> Result<(), Stopped>;
        let fails: Make = |out| {
            out.write_all(&WHOLE)?;
            Err(internal(&"the disk is gone").into())
        };
        let panics: Make = |out| {
            out.write_all(&WHOLE)?;
            panic!("a mistake of ours, made by this test");
        };
        for (make, word) in [(fails, "the disk is gone"), (panics, "not made to its end")] {
            let answer = stream(turns(1, 1), "text/plain", make).await.unwrap();
            let error = answer.into_body().collect().await.unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
        }
        let early: Make = |out| {
            out.write_all(b"a beginning")?;
            Err(internal(&"the disk is gone").into())
        };
        let problem = stream(turns(1, 1), "text/plain", early).await.unwrap_err();
        assert_eq!((problem.status, problem.detail.as_str()), (500, "the disk is gone"));
        let long: Make = |out| {
            for _ in 0..2 * AHEAD {
                out.write_all(&WHOLE)?;
            }
            Ok(())
        };
        let answer = stream(turns(1, 1), "text/plain", long).await.unwrap();
        let all = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(all.len(), 2 * AHEAD * PIECE);
        // No place for it: refused before anything is sent.
        let problem = stream(turns(1, 0), "text/plain", long).await.unwrap_err();
        assert_eq!((problem.status, problem.title.as_ref()), (503, "Busy"));
    }

    #[tokio::test]
    async fn a_short_answer_tells_its_length() {
        let make = |out: &mut Outgoing| Ok(out.write_all(b"short")?);
        let answer = stream(turns(1, 0), "text/plain", make).await.unwrap();
        assert_eq!(answer.body().size_hint().exact(), Some(5));
    }
}
