//! What others may want of a device: younger readings, a look at an outlet, a write.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use crate::link::LinkError;
use crate::model::id::PduId;
use crate::model::metric::{Metric, Scope, Word};
use crate::model::reading::{Datum, Gap};
use crate::model::switching::{Known, Relay, Seen, Terms};
use crate::model::time::Tick;
use crate::model::view::PduView;

use super::startup::{SetCourse, SetStartup, Startups};

/// Why an order was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// Too many orders wait.
    #[error("the PDU is busy: other orders are waiting for it; try again in a few seconds")]
    Busy,
    /// The task has ended.
    #[error("the PDU is no longer configured")]
    Gone,
    /// The device is not adopted: it was not reached yet, or does not answer any more.
    #[error("the PDU is not reached: {0}")]
    NotAdopted(String),
    /// There is no such outlet, or it cannot be switched.
    #[error("the outlet cannot be switched: {0}")]
    NotSwitchable(String),
    /// The order's task ended before it answered: a write may have taken effect.
    #[error("the PDU was configured anew while the order was on its way")]
    Lost,
    /// The state is not known well enough.
    #[error("nothing was sent: {0}")]
    Doubtful(String),
    /// The device did not answer when it was looked at before a write.
    #[error("nothing was sent: {0}")]
    Silent(String),
    /// The device refused the write: nothing was switched.
    #[error("the PDU refused the command: {0}")]
    Refused(String),
    /// The device did not answer. A write may have taken effect all the same.
    #[error("the PDU {0}")]
    Link(#[from] LinkError),
}

impl OrderError {
    /// Whether nothing was sent for no other reason than that the device did not answer, or had no time.
    pub fn may_pass(&self) -> bool {
        matches!(self, OrderError::Busy | OrderError::NotAdopted(_) | OrderError::Silent(_))
    }
}

/// An order to a device task. Outlets go by their numbers: places may have changed when its turn comes.
#[derive(Debug)]
pub(super) enum Order {
    /// Read the state of one outlet.
    Look { number: u16, everything: bool, reply: oneshot::Sender<Result<Seen, OrderError>> },
    /// Read everything of one outlet: its load has changed.
    Refresh { number: u16 },
    /// Read what the outlets do when the PDU's power comes back.
    Startups { reply: oneshot::Sender<Result<Startups, OrderError>> },
    /// Set that of one.
    SetStartup { wish: SetStartup, reply: oneshot::Sender<Result<(), OrderError>> },
    /// Set one thing of the order of all, and of what passes between.
    SetCourse { wish: Box<SetCourse>, reply: oneshot::Sender<Result<Startups, OrderError>> },
    /// Write one outlet; sent at most once.
    Write {
        number: u16,
        relay: Relay,
        known: Known,
        reply: oneshot::Sender<Result<Terms, OrderError>>,
    },
}

/// A handle to a device task.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(super) id: PduId,
    pub(super) orders: mpsc::Sender<Order>,
    /// The youngest moment that somebody wants the readings to be from.
    pub(super) wanted: watch::Sender<Tick>,
    pub(super) view: watch::Receiver<Arc<PduView>>,
}

impl Handle {
    /// The PDU.
    pub fn id(&self) -> &PduId {
        &self.id
    }

    /// The latest view.
    pub fn view(&self) -> Arc<PduView> {
        self.view.borrow().clone()
    }

    /// The view once everything in it was read at `since` or later. All who wait share the same poll.
    /// Of a PDU that does not answer, the view comes as it stands, with its age and its state: also when
    /// a poll failed after this call.
    pub async fn since(&self, since: Tick) -> Arc<PduView> {
        let mut view = self.view.clone();
        let first = view.borrow_and_update().clone();
        if first.complete.is_some_and(|at| at >= since) {
            return first;
        }
        self.want(since);
        loop {
            {
                let now = view.borrow_and_update();
                let fresh = now.complete.is_some_and(|at| at >= since);
                if fresh || now.failed_polls > first.failed_polls || now.breaker_open {
                    return now.clone();
                }
            }
            if view.changed().await.is_err() {
                return first;
            }
        }
    }

    /// What the board says of the outlet with a number.
    pub fn state(&self, number: u16) -> Result<Word, Gap> {
        let view = self.view();
        let at = view.layout.outlet(number).ok_or(Gap::NotRead)?;
        view.outlet_state(at)
    }

    /// Has everything read at `since` or later, soon; nobody waits for it.
    pub fn want(&self, since: Tick) {
        self.wanted.send_if_modified(|wanted| {
            let younger = since > *wanted;
            *wanted = (*wanted).max(since);
            younger
        });
    }

    /// Looks at the outlet with a number.
    pub async fn look(&self, number: u16) -> Result<Seen, OrderError> {
        self.order(|reply| Order::Look { number, everything: false, reply }).await
    }

    /// Looks at everything of the outlet with a number that changes; what it draws is on the board then.
    pub async fn look_all(&self, number: u16) -> Result<Seen, OrderError> {
        self.order(|reply| Order::Look { number, everything: true, reply }).await
    }

    /// What the board says of a reading of the outlet with a number.
    pub fn reading(&self, number: u16, metric: Metric) -> Option<Datum> {
        let view = self.view();
        let at = view.layout.outlet(number)?;
        view.shown(Scope::Outlet, at, metric)
    }

    /// Has everything of an outlet read soon, for those who look at the board. Nobody waits for it; a busy
    /// device leaves it to its next poll.
    pub fn refresh(&self, number: u16) {
        self.orders.try_send(Order::Refresh { number }).ok();
    }

    /// Writes an outlet; tells how its outcome is to be verified. Must not be called before the intent is
    /// durable.
    pub async fn write(
        &self,
        number: u16,
        relay: Relay,
        known: Known,
    ) -> Result<Terms, OrderError> {
        self.order(|reply| Order::Write { number, relay, known, reply }).await
    }

    /// Reads what the outlets do by themselves when the PDU's power comes back; it is on the board then.
    pub async fn startups(&self) -> Result<Startups, OrderError> {
        self.order(|reply| Order::Startups { reply }).await
    }

    /// Sets how long after that an outlet comes on, if it still tells what it told, and reads it back.
    pub async fn set_startup(&self, wish: SetStartup) -> Result<(), OrderError> {
        self.order(|reply| Order::SetStartup { wish, reply }).await
    }

    /// Sets one thing of the order in which outlets come on after that, or of what passes between them. What it is then.
    pub async fn set_course(&self, wish: SetCourse) -> Result<Startups, OrderError> {
        self.order(|reply| Order::SetCourse { wish: Box::new(wish), reply }).await
    }

    async fn order<T>(
        &self,
        order: impl FnOnce(oneshot::Sender<Result<T, OrderError>>) -> Order,
    ) -> Result<T, OrderError> {
        let (reply, answer) = oneshot::channel();
        self.orders.try_send(order(reply)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => OrderError::Busy,
            mpsc::error::TrySendError::Closed(_) => OrderError::Gone,
        })?;
        answer.await.unwrap_or(Err(OrderError::Lost))
    }
}
