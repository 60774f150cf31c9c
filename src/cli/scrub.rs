//! Blotting a recording out: what tells whose a device is, where it stands or how it is reached does not leave the site.
//! A text that nobody knows the meaning of may be a name, so only what is known to be harmless stays.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::model::ask::Value;
use crate::model::metric::Metric;
use crate::model::oid::Oid;
use crate::profile::Profile;
use crate::profile::format::{Meaning, Names, PointSpec, Rows, Source, Table};
use crate::profile::template::{Template, matched};

use super::private;

/// What stands for a text.
const BLOT: &str = "<private>";
/// sysDescr (SNMPv2-MIB).
const DESCR: &str = "1.3.6.1.2.1.1.1.0";
/// Texts that people set, and addresses: sysContact, sysName, sysLocation; ifPhysAddress, ifAlias; entPhysicalSerialNum,
/// entPhysicalAlias, entPhysicalAssetID.
const PRIVATE: [&str; 8] = [
    "1.3.6.1.2.1.1.4",
    "1.3.6.1.2.1.1.5",
    "1.3.6.1.2.1.1.6",
    "1.3.6.1.2.1.2.2.1.6",
    "1.3.6.1.2.1.31.1.1.1.18",
    "1.3.6.1.2.1.47.1.1.1.1.11",
    "1.3.6.1.2.1.47.1.1.1.1.14",
    "1.3.6.1.2.1.47.1.1.1.1.15",
];
/// Tables whose very names are addresses of others: at, ip, tcp, udp, ospf, bgp, bridge, rip2, ipv6; ifRcvAddressTable.
const NETWORK: [&str; 10] = [
    "1.3.6.1.2.1.3",
    "1.3.6.1.2.1.4",
    "1.3.6.1.2.1.6",
    "1.3.6.1.2.1.7",
    "1.3.6.1.2.1.14",
    "1.3.6.1.2.1.15",
    "1.3.6.1.2.1.17",
    "1.3.6.1.2.1.23",
    "1.3.6.1.2.1.55",
    "1.3.6.1.2.1.31.1.4",
];
/// Standard texts that tell a product and nobody's own: entPhysicalDescr, the revisions, the maker, the model; ifDescr.
const PUBLIC: [&str; 7] = [
    "1.3.6.1.2.1.47.1.1.1.1.2",
    "1.3.6.1.2.1.47.1.1.1.1.8",
    "1.3.6.1.2.1.47.1.1.1.1.9",
    "1.3.6.1.2.1.47.1.1.1.1.10",
    "1.3.6.1.2.1.47.1.1.1.1.12",
    "1.3.6.1.2.1.47.1.1.1.1.13",
    "1.3.6.1.2.1.2.2.1.2",
];

/// What a driver knows of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Known {
    /// A reading, a model, a version: it may be shown.
    Shown,
    /// One item of a list is a name.
    Item(u16),
    /// A name.
    Name,
    /// A serial number.
    Serial,
}

/// A recording that may be shown.
#[derive(Debug, Default)]
pub struct Scrubbed {
    /// As it is written.
    pub text: String,
    /// How many rows it has.
    pub rows: usize,
    /// How many texts were blotted out, in whole or in part.
    pub blotted: usize,
    /// How many rows were left out.
    pub left_out: usize,
}

/// What is known of texts.
pub struct Scrub<'p> {
    known: BTreeMap<Oid, Vec<(&'p Template, Known)>>,
    /// Families that name their variables, with the patterns of those that hold names.
    named: Vec<(&'p Names, Vec<&'p str>)>,
    keep: Vec<Oid>,
    secrets: Vec<String>,
}

impl<'p> Scrub<'p> {
    /// From what drivers know, from objects that may be shown, and secrets that must not be.
    pub fn new(profiles: &[&'p Profile], keep: Vec<Oid>, secrets: Vec<String>) -> Self {
        let mut scrub = Self { known: BTreeMap::new(), named: Vec::new(), keep, secrets };
        for profile in profiles {
            scrub.learn(profile);
        }
        scrub
    }

    fn learn(&mut self, profile: &'p Profile) {
        let identity = &profile.identity;
        identity.serial.iter().for_each(|source| self.add(source, Known::Serial));
        identity.name.iter().for_each(|source| self.add(source, Known::Name));
        let tests = profile
            .detect
            .iter()
            .flatten()
            .chain(profile.capabilities.iter().map(|(_, test)| test));
        let counted = profile.tables.iter().filter_map(|table| match &table.rows {
            Rows::Counted { source, .. } => Some(source),
            _ => None,
        });
        let rows = profile.tables.iter().flat_map(Table::asked_of_rows);
        let shown = identity.model.iter().chain(&identity.firmware).chain(counted).chain(rows);
        shown.chain(tests.map(|test| &test.source)).for_each(|s| self.add(s, Known::Shown));
        for spec in &profile.points {
            spec.companions().into_iter().for_each(|source| self.add(source, Known::Shown));
            let is_name = is_name(spec);
            self.add(&spec.source, if is_name { Known::Name } else { Known::Shown });
        }
        if let Some(names) = &profile.names {
            let name_points = profile.points.iter().filter(|spec| is_name(spec));
            let patterns = name_points.filter_map(|spec| match &spec.source {
                Source::Oid(template) => template.pattern(),
                _ => None,
            });
            self.named.push((names, patterns.collect()));
        }
    }

    fn add(&mut self, source: &'p Source, known: Known) {
        let (template, known) = match (source, known) {
            (Source::Listed(template, Some(at)), Known::Name) => (template, Known::Item(*at)),
            (Source::Oid(template) | Source::Listed(template, _), _) => (template, known),
            // A word of a text does not make all of it private.
            (Source::Behind(template, _), _) => (template, Known::Shown),
            _ => return,
        };
        if template.pattern().is_none() {
            self.known.entry(template.head()).or_default().push((template, known));
        }
    }

    /// What drivers know of an object: the most private of it.
    fn of(&self, oid: &Oid) -> Option<Known> {
        let parts = oid.parts();
        let heads = (2..=parts.len()).filter_map(|length| Oid::from_parts(&parts[..length]).ok());
        let templates = heads.filter_map(|head| self.known.get(&head)).flatten();
        templates.filter(|(template, _)| template.matches(oid)).map(|(_, known)| *known).max()
    }

    /// What is known of each row: by the objects, and by the names of variables.
    fn meanings(&self, rows: &BTreeMap<Oid, Value>) -> BTreeMap<Oid, Known> {
        let mut meanings: BTreeMap<Oid, Known> =
            rows.keys().filter_map(|oid| Some((oid.clone(), self.of(oid)?))).collect();
        for (names, patterns) in &self.named {
            let under = |base: &Oid| {
                let base = base.clone();
                rows.range(base.clone()..).take_while(move |(oid, _)| oid.is_under(&base))
            };
            for (oid, value) in under(&names.column) {
                meanings.insert(oid.clone(), Known::Shown);
                let (Some(name), Some(index)) = (value.text(), oid.below(&names.column)) else {
                    continue;
                };
                let is_name = patterns.iter().any(|pattern| matched(pattern, &name).is_some());
                if let (true, Ok(value)) = (is_name, names.value.child(&index)) {
                    meanings.insert(value, Known::Name);
                }
            }
        }
        meanings
    }

    /// The recording of what a device answered.
    pub fn scrub(&self, rows: &BTreeMap<Oid, Value>) -> Scrubbed {
        let meanings = self.meanings(rows);
        let fixed = |texts: &[&str]| -> Vec<Oid> {
            texts.iter().filter_map(|text| text.parse().ok()).collect()
        };
        let ink = Ink::new(self, rows, &meanings, fixed(&PRIVATE));
        let (network, public) = (fixed(&NETWORK), fixed(&PUBLIC));
        let within = |bases: &[Oid], oid: &Oid| bases.iter().any(|base| oid.is_under(base));
        let macs = private::macs_in_names(rows.keys());
        let mut scrubbed = Scrubbed::default();
        for (oid, value) in rows {
            if within(&network, oid) {
                scrubbed.left_out += 1;
                continue;
            }
            let known = meanings.get(oid).copied();
            let may_show = within(&self.keep, oid) || within(&public, oid);
            let (text, blotted) = ink.value(oid, value, known, may_show);
            // A String takes every line.
            writeln!(scrubbed.text, "{}|{text}", private::renamed(oid, &macs)).ok();
            scrubbed.rows += 1;
            scrubbed.blotted += usize::from(blotted);
        }
        scrubbed
    }
}

fn is_name(spec: &PointSpec) -> bool {
    matches!(spec.meaning, Meaning::Text) && spec.point.metric == Metric::Name
}

/// What must not be seen in one recording.
struct Ink {
    private: Vec<Oid>,
    descr: Option<Oid>,
    /// sysDescr as it is shown.
    described: String,
    /// Never to be seen: serial numbers and credentials.
    secrets: BTreeSet<String>,
    /// Not to be seen where nobody knows what a text means.
    suspects: BTreeSet<String>,
}

impl Ink {
    fn new(
        scrub: &Scrub<'_>,
        rows: &BTreeMap<Oid, Value>,
        meanings: &BTreeMap<Oid, Known>,
        private: Vec<Oid>,
    ) -> Self {
        let mut secrets: BTreeSet<String> =
            scrub.secrets.iter().filter(|secret| secret.len() >= 4).cloned().collect();
        let mut suspects = BTreeSet::new();
        let mut shown = BTreeSet::new();
        for (oid, value) in rows {
            let Some(text) = value.text().filter(|text| text.len() >= 4 && text != BLOT) else {
                continue;
            };
            match meanings.get(oid) {
                Some(Known::Serial) => drop(secrets.insert(text)),
                Some(Known::Name) => drop(suspects.insert(text)),
                Some(_) => drop(shown.insert(text)),
                None if private.iter().any(|base| oid.is_under(base)) => {
                    suspects.insert(text);
                }
                None if scrub.keep.iter().any(|base| oid.is_under(base)) => {
                    shown.insert(text);
                }
                None if private::is_like_a_serial(&text) => drop(suspects.insert(text)),
                None => {}
            }
        }
        suspects.retain(|text| !shown.contains(text));
        let descr: Option<Oid> = DESCR.parse().ok();
        let mut ink = Self { private, descr, described: String::new(), secrets, suspects };
        let text = ink.descr.as_ref().and_then(|oid| rows.get(oid)).and_then(Value::text);
        ink.described = text.map_or(String::new(), |text| ink.clean(&text, false));
        ink
    }

    /// A value as it is written, and whether something of it was blotted out.
    fn value(
        &self,
        oid: &Oid,
        value: &Value,
        known: Option<Known>,
        may_show: bool,
    ) -> (String, bool) {
        let number = |tag: u8, text: String| match known {
            Some(Known::Serial) => (format!("{tag}|0"), true),
            _ => (format!("{tag}|{text}"), false),
        };
        match value {
            Value::Integer(integer) => number(2, integer.to_string()),
            Value::Unsigned(whole, kind) => number(*kind as u8, whole.to_string()),
            Value::Oid(oid) => (format!("6|{oid}"), false),
            Value::Ip(_) => ("64|0.0.0.0".into(), true),
            Value::Nothing | Value::Other => ("5|".into(), false),
            Value::Bytes(bytes) => self.bytes(oid, bytes, known, may_show),
        }
    }

    fn bytes(
        &self,
        oid: &Oid,
        bytes: &[u8],
        known: Option<Known>,
        may_show: bool,
    ) -> (String, bool) {
        let hidden = self.private.iter().any(|base| oid.is_under(base));
        let Ok(text) = std::str::from_utf8(bytes) else {
            let shown = !hidden && (known == Some(Known::Shown) || may_show);
            if shown || (known.is_none() && !hidden && private::is_harmless_binary(bytes)) {
                return (hex(bytes), false);
            }
            return (hex(&vec![0; bytes.len()]), true);
        };
        if text.trim_matches(['\0', ' ']).is_empty() {
            return (written(text), false);
        }
        let is_descr = self.descr.as_ref() == Some(oid);
        let shown = match known {
            _ if hidden => BLOT.into(),
            Some(Known::Serial | Known::Name) => BLOT.into(),
            Some(Known::Item(at)) => without_item(text, at),
            Some(Known::Shown) if !is_descr => self.clean(text, true),
            _ if is_descr || may_show => self.clean(text, false),
            _ if private::is_harmless(text) => text.to_owned(),
            _ if self.is_described(text) => self.clean(text, false),
            _ => BLOT.into(),
        };
        (written(&shown), shown != text)
    }

    /// Whether sysDescr says it, too.
    fn is_described(&self, text: &str) -> bool {
        let text = text.trim();
        text.len() >= 3 && !self.suspects.contains(text) && self.described.contains(text)
    }

    /// A text without what must not be seen. Of a version a part may look like an address.
    fn clean(&self, text: &str, is_known: bool) -> String {
        let mut text = text.to_owned();
        for secret in &self.secrets {
            text = text.replace(secret.as_str(), BLOT);
        }
        if !is_known {
            // The longest first: one may be part of another.
            let mut suspects: Vec<&String> = self.suspects.iter().collect();
            suspects.sort_by_key(|suspect| std::cmp::Reverse(suspect.len()));
            for suspect in suspects {
                text = private::without_word(&text, suspect, BLOT);
            }
            text = private::without_addresses(&text, BLOT);
        }
        private::without_marked_serials(&private::without_macs(&text, BLOT), BLOT)
    }
}

fn without_item(text: &str, at: u16) -> String {
    let item = |(place, item)| match item {
        _ if place == usize::from(at) => BLOT,
        item if private::is_harmless(item) => item,
        _ => BLOT,
    };
    text.split(',').enumerate().map(item).collect::<Vec<_>>().join(",")
}

fn written(text: &str) -> String {
    if text.chars().any(char::is_control) { hex(text.as_bytes()) } else { format!("4|{text}") }
}

fn hex(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("4x|{digits}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::catalog::Catalog;

    fn scrubbed(rows: &[(&str, Value)], keep: &[&str]) -> BTreeMap<String, String> {
        let catalog = Catalog::embedded().unwrap();
        let keep = keep.iter().map(|oid| oid.parse().unwrap()).collect();
        let scrub = Scrub::new(&catalog.speaking(true), keep, vec!["s3cr3t-word".into()]);
        let rows = rows.iter().map(|(oid, value)| (oid.parse().unwrap(), value.clone())).collect();
        let text = scrub.scrub(&rows).text;
        let line = |line: &str| line.split_once('|').map(|(o, v)| (o.to_owned(), v.to_owned()));
        text.lines().filter_map(line).collect()
    }

    fn text(text: &str) -> Value {
        Value::Bytes(text.as_bytes().into())
    }

    #[test]
    fn what_drivers_know_to_be_a_name_or_a_serial_is_blotted_out_and_a_model_is_not() {
        let read = scrubbed(
            &[
                (
                    "1.3.6.1.2.1.1.1.0",
                    text(
                        "APC Web/SNMP Management Card (MN:AP8959EU3 HR:02 SN: 5A1638E01463 MD:09/20/2016)",
                    ),
                ),
                ("1.3.6.1.2.1.1.5.0", text("rack7-left")),
                ("1.3.6.1.4.1.318.1.1.12.1.5.0", text("AP8959EU3")),
                ("1.3.6.1.4.1.318.1.1.12.1.6.0", text("5A1638E01463")),
                ("1.3.6.1.4.1.318.1.1.26.9.2.3.1.3.1", text("Mail of Meier & Co")),
                ("1.3.6.1.4.1.318.1.1.26.9.2.3.1.5.1", Value::Integer(2)),
                // The receivers of traps: nobody knows these objects.
                ("1.3.6.1.4.1.318.2.1.2.1.3.1", text("s3cr3t-word")),
                ("1.3.6.1.4.1.318.2.1.2.1.2.1", Value::Ip([10, 1, 2, 3])),
            ],
            &[],
        );
        let said = |oid: &str| read[oid].as_str();
        assert_eq!(
            said("1.3.6.1.2.1.1.1.0"),
            "4|APC Web/SNMP Management Card (MN:AP8959EU3 HR:02 SN: <private> MD:09/20/2016)"
        );
        assert_eq!(said("1.3.6.1.2.1.1.5.0"), "4|<private>");
        assert_eq!(said("1.3.6.1.4.1.318.1.1.12.1.5.0"), "4|AP8959EU3");
        assert_eq!(said("1.3.6.1.4.1.318.1.1.12.1.6.0"), "4|<private>");
        assert_eq!(said("1.3.6.1.4.1.318.1.1.26.9.2.3.1.3.1"), "4|<private>");
        assert_eq!(said("1.3.6.1.4.1.318.1.1.26.9.2.3.1.5.1"), "2|2");
        assert_eq!(said("1.3.6.1.4.1.318.2.1.2.1.3.1"), "4|<private>");
        assert_eq!(said("1.3.6.1.4.1.318.2.1.2.1.2.1"), "64|0.0.0.0");
    }

    #[test]
    fn of_an_unknown_family_only_what_cannot_be_a_name_stays() {
        let rows = [
            ("1.3.6.1.2.1.1.1.0", text("Acme Strip 8, unit SN-4711-0815 at rack-9 (10.1.2.3)")),
            ("1.3.6.1.2.1.1.5.0", text("rack-9")),
            ("1.3.6.1.4.1.99999.1.1.1.0", text("Strip 8")),
            ("1.3.6.1.4.1.99999.1.1.2.0", text("SN-4711-0815")),
            ("1.3.6.1.4.1.99999.1.1.3.0", text("FW 2.1 beta")),
            ("1.3.6.1.4.1.99999.1.1.4.0", text("00:0e:d3:00:0a:01")),
            ("1.3.6.1.4.1.99999.1.3.1.1.1", text("customer-db-1")),
            ("1.3.6.1.4.1.99999.1.3.1.1.2", text("Küche")),
            ("1.3.6.1.4.1.99999.1.3.1.5.1", text("1.27 A")),
            ("1.3.6.1.4.1.99999.1.3.1.6.1", text("On")),
            ("1.3.6.1.4.1.99999.1.3.1.7.1", text("1,1,0,-1")),
        ];
        let read = scrubbed(&rows, &["1.3.6.1.4.1.99999.1.1.3"]);
        let said = |column: &str| read[&format!("1.3.6.1.4.1.99999.1.{column}")].as_str();
        assert_eq!(
            read["1.3.6.1.2.1.1.1.0"],
            "4|Acme Strip 8, unit <private> at <private> (<private>)"
        );
        assert_eq!(said("1.1.0"), "4|Strip 8");
        for column in ["1.2.0", "1.4.0", "3.1.1.1", "3.1.1.2"] {
            assert_eq!(said(column), "4|<private>", "{column}");
        }
        assert_eq!(said("1.3.0"), "4|FW 2.1 beta");
        assert_eq!(said("3.1.5.1"), "4|1.27 A");
        assert_eq!(said("3.1.6.1"), "4|On");
        assert_eq!(said("3.1.7.1"), "4|1,1,0,-1");
    }

    #[test]
    fn addresses_in_names_of_objects_are_no_addresses_any_more() {
        let mac = |last: u32| format!("12.48.48.48.69.68.51.48.48.48.65.48.{}", 48 + last);
        let state = "1.3.6.1.4.1.30932.1.10.1.4.10.1.11.1.";
        let read = scrubbed(
            &[
                (&format!("{state}{}", mac(1)), Value::Integer(1)),
                (&format!("{state}{}", mac(2)), Value::Integer(0)),
                ("1.3.6.1.2.1.4.22.1.2.1.10.1.2.3", Value::Bytes([1, 2, 3, 4, 5, 6].into())),
            ],
            &[],
        );
        let names: Vec<&str> = read.keys().map(String::as_str).collect();
        let nobody = "12.48.48.48.48.48.48.48.48.48.48.48";
        assert_eq!(names, [format!("{state}{nobody}.49"), format!("{state}{nobody}.50")]);
    }

    #[test]
    fn of_variables_that_have_names_those_that_people_name_are_blotted_out() {
        let catalog = Catalog::embedded().unwrap();
        let profile = catalog.get(&"rittal-pdu".parse().unwrap()).unwrap();
        let names = profile.names.as_ref().unwrap();
        let name = profile.points.iter().find(|spec| is_name(spec)).unwrap();
        let Source::Oid(template) = &name.source else { panic!() };
        let pattern = template.pattern().unwrap();
        let variable = crate::profile::template::holes_of(pattern)
            .fold(pattern.to_owned(), |text, hole| text.replace(&format!("{{{hole}}}"), "1"));
        let at = |column: &Oid| column.child(&[1, 7]).unwrap().to_string();
        let read = scrubbed(
            &[(&at(&names.column), text(&variable)), (&at(&names.value), text("Web of Meier"))],
            &[],
        );
        assert_eq!(read[&at(&names.column)], format!("4|{variable}"));
        assert_eq!(read[&at(&names.value)], "4|<private>");
    }
}
