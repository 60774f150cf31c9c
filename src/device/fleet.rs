//! All devices of a gateway: started, changed and ended as the configuration says. A device whose settings
//! did not change is not touched: it misses no poll.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::model::id::PduId;
use crate::resolve::Address;

use super::orders::Handle;
use super::task::{Services, Settings, spawn};

/// The devices of a gateway.
#[derive(Clone)]
pub struct Fleet {
    services: Services,
    devices: Arc<RwLock<BTreeMap<PduId, Entry>>>,
    stop: CancellationToken,
}

struct Entry {
    handle: Handle,
    settings: watch::Sender<Settings>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// What a change of configuration did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Changes {
    /// Devices started.
    pub started: usize,
    /// Devices given new settings, or started anew because they are reached in another way.
    pub changed: usize,
    /// Devices ended.
    pub ended: usize,
}

impl Fleet {
    /// Without devices.
    pub fn new(services: Services, stop: CancellationToken) -> Self {
        Self { services, devices: Arc::default(), stop }
    }

    /// Makes the devices those that are wanted.
    pub fn apply(&self, wanted: Vec<Settings>) -> Changes {
        let mut changes = Changes::default();
        let mut devices = self.devices.write().unwrap_or_else(PoisonError::into_inner);
        let gone: Vec<PduId> = devices
            .keys()
            .filter(|id| wanted.iter().all(|settings| settings.id != **id))
            .cloned()
            .collect();
        for id in gone {
            if let Some(entry) = devices.remove(&id) {
                entry.stop.cancel();
                self.services.board.remove(&id);
                changes.ended += 1;
            }
        }
        for settings in wanted {
            match devices.get(&settings.id) {
                Some(entry) if *entry.settings.borrow() == settings => {}
                Some(entry) if entry.settings.borrow().is_reached_like(&settings) => {
                    entry.settings.send_replace(settings);
                    changes.changed += 1;
                }
                Some(entry) => {
                    entry.stop.cancel();
                    changes.changed += 1;
                    let before = devices.remove(&settings.id).map(|entry| entry.task);
                    devices.insert(settings.id.clone(), self.start(settings, before));
                }
                None => {
                    changes.started += 1;
                    devices.insert(settings.id.clone(), self.start(settings, None));
                }
            }
        }
        changes
    }

    /// Starts the task of a device, after the one in whose place it comes: the device is asked by one at a time.
    fn start(&self, settings: Settings, before: Option<JoinHandle<()>>) -> Entry {
        let stop = self.stop.child_token();
        let (sender, receiver) = watch::channel(settings);
        let (handle, task) = spawn(receiver, self.services.clone(), stop.clone(), before);
        Entry { handle, settings: sender, stop, task }
    }

    /// The handle of a device.
    pub fn get(&self, id: &PduId) -> Option<Handle> {
        let devices = self.devices.read().unwrap_or_else(PoisonError::into_inner);
        devices.get(id).map(|entry| entry.handle.clone())
    }

    /// Where each device is reached.
    pub fn addresses(&self) -> Vec<(PduId, Address)> {
        let devices = self.devices.read().unwrap_or_else(PoisonError::into_inner);
        let address = |entry: &Entry| entry.settings.borrow().target.address().cloned();
        devices.iter().filter_map(|(id, entry)| Some((id.clone(), address(entry)?))).collect()
    }

    /// What all devices share.
    pub fn services(&self) -> &Services {
        &self.services
    }

    /// Ends all devices and waits for them: each finishes the request that it has in flight.
    pub async fn end(&self) {
        self.stop.cancel();
        let entries =
            std::mem::take(&mut *self.devices.write().unwrap_or_else(PoisonError::into_inner));
        for entry in entries.into_values() {
            if let Err(error) = entry.task.await {
                tracing::error!(%error, "a device task did not end well");
            }
        }
    }
}
