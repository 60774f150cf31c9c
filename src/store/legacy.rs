//! The store of release 0.1: one sled database of rows in `readings/`. It is read once, its rows become blocks of the
//! present store, and it is kept beside under another name if anything in it could not be read.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use serde::Deserialize;

use crate::series::merge::Rows;
use crate::series::row::Packed;

use super::archive::Archive;
use super::chunk::StoreError;
use super::seal::seal_hour;
use super::shelf::{HOUR_MS, day_of};
use super::writer::verified;

/// What the columns of an old row are.
#[derive(Debug, Deserialize)]
struct OldSchema {
    device: u32,
    columns: Vec<(String, String)>,
}

/// Takes an old store over, if there is one. Told to do it again it does no harm: a row lies under its moment.
pub fn take_over(archive: &Archive, dir: &Path) {
    if !dir.join("db").is_file() || archive.root().is_none() {
        return;
    }
    let taken = catch_unwind(AssertUnwindSafe(|| read(archive, dir)));
    let moved = match taken {
        Ok(Ok((rows, 0))) => {
            tracing::info!("{rows} rows of the store of release 0.1 were taken over");
            std::fs::remove_dir_all(dir)
        }
        Ok(Ok((rows, bad))) => {
            archive.raise("store.legacy", format!("{rows} rows of the store of release 0.1 were taken over, {bad} are damaged; it is kept as {}", aside(dir).display()));
            std::fs::rename(dir, aside(dir))
        }
        Ok(Err(StoreError::Full)) => return,
        Ok(Err(error)) => {
            archive.raise(
                "store.legacy",
                format!(
                    "the store of release 0.1 cannot be read ({error}); it was set aside as {}",
                    aside(dir).display()
                ),
            );
            std::fs::rename(dir, aside(dir))
        }
        Err(_) => {
            archive.raise(
                "store.legacy",
                format!(
                    "the store of release 0.1 is damaged; it was set aside as {}",
                    aside(dir).display()
                ),
            );
            std::fs::rename(dir, aside(dir))
        }
    };
    if let Err(error) = moved {
        archive.raise("store.legacy", format!("{} cannot be moved: {error}", dir.display()));
    }
}

fn aside(dir: &Path) -> std::path::PathBuf {
    for number in 1_u32.. {
        let aside = dir.with_extension(format!("damaged-{number}"));
        if !aside.exists() {
            return aside;
        }
    }
    unreachable!("there is a free number")
}

fn failed(error: &sled::Error) -> StoreError {
    StoreError::Failed(error.to_string())
}

/// Rows taken over, and how many are damaged.
fn read(archive: &Archive, dir: &Path) -> Result<(u64, u64), StoreError> {
    let db = sled::Config::new().path(dir).cache_capacity(8 * 1024 * 1024).open();
    let db = db.map_err(|error| failed(&error))?;
    let tree = |name: &str| db.open_tree(name).map_err(|error| failed(&error));
    let (mut taken, mut bad) = (0, 0);
    let mut devices: BTreeMap<u32, String> = BTreeMap::new();
    for entry in &tree("devices")? {
        let (key, value) = entry.map_err(|error| failed(&error))?;
        let number =
            verified(&value).and_then(|value| Some(u32::from_be_bytes(value.try_into().ok()?)));
        match number.zip(String::from_utf8(key.to_vec()).ok()) {
            Some((number, id)) => drop(devices.insert(number, id)),
            None => bad += 1,
        }
    }
    let mut schemas: BTreeMap<u32, OldSchema> = BTreeMap::new();
    for entry in &tree("schemas")? {
        let (key, value) = entry.map_err(|error| failed(&error))?;
        let number = key.as_ref().try_into().ok().map(u32::from_be_bytes);
        let schema = verified(&value).and_then(|value| serde_json::from_slice(value).ok());
        match number.zip(schema) {
            Some((number, schema)) => drop(schemas.insert(number, schema)),
            None => bad += 1,
        }
    }
    let mut under_way: Option<(u32, i64, Rows)> = None;
    for entry in &tree("rows")? {
        let (key, value) = entry.map_err(|error| failed(&error))?;
        let Some((device, at)) = unkey(&key) else {
            bad += 1;
            continue;
        };
        let row = Packed::open(&value).ok();
        let schema = row.as_ref().and_then(|row| schemas.get(&row.schema));
        let (Some(row), Some(schema)) = (&row, schema.filter(|s| s.device == device)) else {
            bad += 1;
            continue;
        };
        let hour = at.div_euclid(HOUR_MS) * HOUR_MS;
        if under_way.as_ref().is_none_or(|(d, h, _)| (*d, *h) != (device, hour)) {
            put(archive, &devices, under_way.take())?;
            under_way = Some((device, hour, Rows::default()));
        }
        if let Some((_, _, rows)) = &mut under_way {
            let shape = rows.shape(&schema.columns);
            rows.add(at, shape, row.cells());
            taken += 1;
        }
    }
    put(archive, &devices, under_way)?;
    for shelf in archive.shelves() {
        archive.store(&shelf)?.flush()?;
    }
    Ok((taken, bad))
}

fn put(
    archive: &Archive,
    devices: &BTreeMap<u32, String>,
    hour: Option<(u32, i64, Rows)>,
) -> Result<(), StoreError> {
    let Some((device, hour, rows)) = hour else { return Ok(()) };
    let Some(pdu) = devices.get(&device) else { return Ok(()) };
    let _putting = archive.putting();
    let shelf = archive.head(day_of(crate::model::time::Stamp(hour)));
    seal_hour(archive, &shelf, pdu, hour, &rows)
}

fn unkey(key: &[u8]) -> Option<(u32, i64)> {
    let (device, rest) = key.split_first_chunk::<4>()?;
    let at = u64::from_be_bytes(rest.try_into().ok()?);
    Some((u32::from_be_bytes(*device), (at ^ (1 << 63)) as i64))
}
