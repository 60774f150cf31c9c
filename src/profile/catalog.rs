//! The drivers at hand: those inside the program, and those a site adds, which win by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::fault::FaultList;
use crate::model::id::DriverId;

use super::format::Profile;

#[derive(rust_embed::Embed)]
#[folder = "drivers/"]
struct Embedded;

/// Drivers by name.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    profiles: BTreeMap<DriverId, Arc<Profile>>,
}

impl Catalog {
    /// The drivers inside the program. A fault in one of them is a fault of the build; a test loads all.
    pub fn embedded() -> Result<Self, FaultList> {
        let mut catalog = Self::default();
        for name in Embedded::iter().filter(|name| name.ends_with(".toml")) {
            if let Some(file) = Embedded::get(&name) {
                let text = String::from_utf8_lossy(&file.data);
                catalog.add(super::load(&format!("drivers/{name}"), &text)?);
            }
        }
        Ok(catalog)
    }

    /// Adds a driver, or replaces the one of the same name.
    pub fn add(&mut self, profile: Profile) {
        self.profiles.insert(profile.id.clone(), Arc::new(profile));
    }

    /// One by name.
    pub fn get(&self, id: &DriverId) -> Option<&Arc<Profile>> {
        self.profiles.get(id)
    }

    /// How many drivers are new, gone or not what they were before.
    pub fn changed_since(&self, before: &Self) -> usize {
        let other = |id| before.profiles.get(id) != self.profiles.get(id);
        let ids: std::collections::BTreeSet<_> =
            self.profiles.keys().chain(before.profiles.keys()).collect();
        ids.into_iter().filter(|id| other(id)).count()
    }

    /// All, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Profile>> {
        self.profiles.values()
    }

    /// Those of one protocol, for detection.
    pub fn speaking(&self, snmp: bool) -> Vec<&Profile> {
        self.iter().map(Arc::as_ref).filter(|profile| profile.speech.is_snmp() == snmp).collect()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_driver_in_the_program_loads() {
        let catalog = super::Catalog::embedded().unwrap_or_else(|faults| panic!("{faults}"));
        assert!(catalog.iter().count() >= 5);
    }
}
