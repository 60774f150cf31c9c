//! The board: the latest view of every PDU, for everything that reads. Writers replace a view as a whole;
//! readers never wait.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use tokio::sync::watch;

use crate::model::id::PduId;
use crate::model::view::PduView;

/// Views by PDU.
#[derive(Debug, Clone, Default)]
pub struct Board {
    pdus: Arc<RwLock<BTreeMap<PduId, watch::Receiver<Arc<PduView>>>>>,
}

/// The place on the board where one device shows its view.
#[derive(Debug)]
pub struct Place {
    show: watch::Sender<Arc<PduView>>,
}

impl Board {
    /// A place for a PDU; replaces an older one of the same id.
    pub fn place(&self, view: PduView) -> Place {
        let id = view.id.clone();
        let (show, seen) = watch::channel(Arc::new(view));
        self.write().insert(id, seen);
        Place { show }
    }

    /// Takes a PDU off.
    pub fn remove(&self, id: &PduId) {
        self.write().remove(id);
    }

    /// The latest of one PDU.
    pub fn view(&self, id: &PduId) -> Option<Arc<PduView>> {
        Some(self.read().get(id)?.borrow().clone())
    }

    /// The latest of all, by id.
    pub fn views(&self) -> Vec<Arc<PduView>> {
        self.read().values().map(|seen| seen.borrow().clone()).collect()
    }

    /// A watch on one PDU.
    pub fn watch(&self, id: &PduId) -> Option<watch::Receiver<Arc<PduView>>> {
        self.read().get(id).cloned()
    }

    // A thread that panicked while it held the lock left the map whole: nothing in here can fail
    // half-way.
    fn read(
        &self,
    ) -> std::sync::RwLockReadGuard<'_, BTreeMap<PduId, watch::Receiver<Arc<PduView>>>> {
        self.pdus.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn write(
        &self,
    ) -> std::sync::RwLockWriteGuard<'_, BTreeMap<PduId, watch::Receiver<Arc<PduView>>>> {
        self.pdus.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Place {
    /// What is shown.
    pub fn view(&self) -> Arc<PduView> {
        self.show.borrow().clone()
    }

    /// A watch on this place.
    pub fn watch(&self) -> watch::Receiver<Arc<PduView>> {
        self.show.subscribe()
    }

    /// Shows a new view.
    pub fn show(&self, mut view: PduView) {
        self.show.send_modify(|shown| {
            view.version = shown.version + 1;
            *shown = Arc::new(view);
        });
    }
}
