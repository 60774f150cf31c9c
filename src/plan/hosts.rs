//! Hosts by their names, and by what feeds them: whether an outlet feeds one is asked of every outlet at every step.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;

use crate::model::id::{HostId, OutletId, PduId};

use super::site::HostSpec;
use super::world::Draw;

/// The hosts of a site.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hosts {
    by_id: BTreeMap<HostId, HostSpec>,
    by_outlet: BTreeMap<OutletId, HostId>,
    together: BTreeSet<BTreeSet<PduId>>,
}

impl Hosts {
    /// Adds a host. An outlet that feeds several is of the first that came.
    pub fn insert(&mut self, id: HostId, host: HostSpec) {
        for outlet in &host.outlets {
            self.by_outlet.entry(outlet.clone()).or_insert_with(|| id.clone());
        }
        let pdus: BTreeSet<PduId> = host.outlets.iter().map(|outlet| outlet.pdu.clone()).collect();
        if pdus.len() > 1 {
            self.together.insert(pdus);
        }
        self.by_id.insert(id, host);
    }

    /// The host that an outlet feeds.
    pub fn of(&self, outlet: &OutletId) -> Option<(&HostId, &HostSpec)> {
        self.by_id.get_key_value(self.by_outlet.get(outlet)?)
    }

    /// PDUs that feed a host together; each set once, however many hosts it feeds.
    pub fn together(&self) -> impl Iterator<Item = &BTreeSet<PduId>> {
        self.together.iter()
    }

    /// What the site says that they draw.
    pub fn draws_mut(&mut self) -> impl Iterator<Item = &mut Draw> {
        self.by_id.values_mut().filter_map(|host| host.draw.as_mut())
    }
}

impl FromIterator<(HostId, HostSpec)> for Hosts {
    fn from_iter<I: IntoIterator<Item = (HostId, HostSpec)>>(hosts: I) -> Self {
        let mut all = Self::default();
        hosts.into_iter().for_each(|(id, host)| all.insert(id, host));
        all
    }
}

/// To be read as the map that it is.
impl Deref for Hosts {
    type Target = BTreeMap<HostId, HostSpec>;

    fn deref(&self) -> &Self::Target {
        &self.by_id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_found_by_each_of_its_outlets() {
        let outlet = |text: &str| -> OutletId { text.parse().unwrap() };
        let host = |outlets: &[&str]| {
            HostSpec::fed_by("some", outlets.iter().map(|text| outlet(text)).collect())
        };
        let id = |text: &str| -> HostId { text.parse().unwrap() };
        let hosts: Hosts = [
            (id("web"), host(&["pdu-a/1", "pdu-b/1"])),
            (id("db"), host(&["pdu-b/2", "pdu-a/2"])),
            (id("old"), host(&["pdu-c/1"])),
        ]
        .into_iter()
        .collect();
        let of = |text: &str| hosts.of(&outlet(text)).map(|(id, _)| id.to_string());
        assert_eq!((of("pdu-b/1"), of("pdu-a/2")), (Some("web".into()), Some("db".into())));
        assert_eq!((of("pdu-c/1"), of("pdu-c/2")), (Some("old".into()), None));
        // Two hosts on the same two PDUs are one set of these.
        let together: Vec<&BTreeSet<PduId>> = hosts.together().collect();
        assert_eq!(together, [&["pdu-a".parse().unwrap(), "pdu-b".parse().unwrap()].into()]);
    }
}
