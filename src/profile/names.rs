//! Families that name their variables: the numbers behind the names differ from device to device and from firmware
//! to firmware, so they are looked up at adoption.

use std::collections::BTreeMap;

use crate::model::ask::Value;
use crate::model::oid::Oid;

use super::format::Profile;
use super::rows::{Chain, Row, from_indices};
use super::template::{holes_of, matched};

/// Where the names of a driver are on one device.
#[derive(Debug, Clone, Default)]
pub struct NameMap {
    /// Names of the index parts that come before the variable's number.
    devices: Vec<String>,
    /// By pattern, then by device and the numbers in the pattern's holes: the index of the variable.
    found: BTreeMap<String, BTreeMap<Vec<u32>, Vec<u32>>>,
}

impl NameMap {
    /// From a walk of the column of names. Of several variables of one name the first counts.
    pub fn new(profile: &Profile, walked: &[(Oid, Value)]) -> Self {
        let Some(names) = &profile.names else { return Self::default() };
        let mut found: BTreeMap<String, BTreeMap<Vec<u32>, Vec<u32>>> = BTreeMap::new();
        for (oid, value) in walked {
            let (Some(index), Value::Bytes(bytes)) = (oid.below(&names.column), value) else {
                continue;
            };
            let Ok(name) = std::str::from_utf8(bytes) else { continue };
            if index.len() != names.index.len() {
                continue;
            }
            let device = &index[..index.len() - 1];
            for pattern in &names.patterns {
                if let Some(values) = matched(pattern, name.trim()) {
                    let key = [device, &values].concat();
                    found
                        .entry(pattern.clone())
                        .or_default()
                        .entry(key)
                        .or_insert_with(|| index.clone());
                }
            }
        }
        let devices = names.index[..names.index.len() - 1].to_vec();
        Self { devices, found }
    }

    /// The rows of a table that stands for all names of a pattern, by device and number.
    pub(super) fn rows(
        &self,
        profile: &Profile,
        pattern: &str,
        index: &[String],
        chain: &mut Chain,
    ) -> Vec<Row> {
        let keys = self.found.get(pattern).into_iter().flat_map(BTreeMap::keys);
        let arcs = keys.map(|key| key.iter().map(|arc| vec![*arc]).collect());
        from_indices(profile, index, chain, arcs.take(crate::model::limits::TABLE_ROWS))
    }

    /// Gives rows the variables of their own names.
    pub(super) fn enrich(&self, rows: &mut [Row]) {
        for row in rows {
            let mut more = Vec::new();
            for (pattern, variables) in &self.found {
                let parts = self.devices.iter().map(String::as_str).chain(holes_of(pattern));
                let value = |part: &str| {
                    let (_, value) = row.parts.iter().find(|(name, _)| name == part)?;
                    value.first().copied()
                };
                let key: Option<Vec<u32>> = parts.map(value).collect();
                if let Some(index) = key.and_then(|key| variables.get(&key)) {
                    more.push((pattern.clone(), index.clone()));
                }
            }
            row.parts.extend(more);
        }
    }
}
