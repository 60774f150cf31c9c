//! A disk that outlives the gateway: what was written to it before a crash is there after it.

use std::sync::{Arc, Mutex};

use pmgate::store::journal::backend::StorageBackend;

/// The disk.
#[derive(Debug, Clone, Default)]
pub struct Disk(Arc<Mutex<Vec<u8>>>);

impl StorageBackend for Disk {
    fn len(&self) -> std::io::Result<u64> {
        Ok(self.0.lock().unwrap().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        let bytes = self.0.lock().unwrap();
        let from = offset as usize;
        let Some(found) = bytes.get(from..from + out.len()) else {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        };
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.0.lock().unwrap().resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> std::io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        let mut bytes = self.0.lock().unwrap();
        let from = offset as usize;
        bytes[from..from + data.len()].copy_from_slice(data);
        Ok(())
    }
}
