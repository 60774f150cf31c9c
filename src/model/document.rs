//! TOML documents read with places: each value knows its line, unknown keys are faults, and reading
//! goes on after a fault so that all of them are told at once.

use std::cell::RefCell;
use std::ops::Range;
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fault::Faults;

/// Parses a document; syntax faults go to `faults` and what could be read is returned.
pub fn parse<'a>(source: &'a str, faults: &Faults) -> Spanned<DeTable<'a>> {
    let (table, errors) = DeTable::parse_recoverable(source);
    for error in errors {
        let text = error.message().lines().collect::<Vec<_>>().join(", ");
        faults.add(error.span().unwrap_or(0..0), "", format!("this is not TOML: {text}"));
    }
    table
}

/// One table of a document. Keys are taken one by one; [`Fields::done`] faults what was left.
pub struct Fields<'a> {
    table: &'a DeTable<'a>,
    span: Range<usize>,
    path: String,
    faults: &'a Faults,
    asked: RefCell<Vec<&'static str>>,
}

/// One value of a document with its place.
#[derive(Clone)]
pub struct Item<'a> {
    value: &'a DeValue<'a>,
    span: Range<usize>,
    path: String,
    faults: &'a Faults,
}

impl<'a> Fields<'a> {
    /// The whole document.
    pub fn root(document: &'a Spanned<DeTable<'a>>, faults: &'a Faults) -> Self {
        Self::new(document.get_ref(), document.span(), String::new(), faults)
    }

    fn new(table: &'a DeTable<'a>, span: Range<usize>, path: String, faults: &'a Faults) -> Self {
        Self { table, span, path, faults, asked: RefCell::default() }
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The value of a key, if it is there.
    pub fn get(&self, key: &'static str) -> Option<Item<'a>> {
        self.asked.borrow_mut().push(key);
        self.table.get(key).map(|value| Item {
            value: value.get_ref(),
            span: value.span(),
            path: self.path_of(key),
            faults: self.faults,
        })
    }

    /// The value of a key; a fault if it is missing.
    pub fn need(&self, key: &'static str, what: &str) -> Option<Item<'a>> {
        let item = self.get(key);
        if item.is_none() {
            self.faults.add(self.span.clone(), self.path_of(key), format!("is missing: {what}"));
        }
        item
    }

    /// Every key with its value, for tables whose keys are names; counts as asked for.
    pub fn entries(&self) -> Vec<(String, Range<usize>, Item<'a>)> {
        let entry =
            |(key, value): (&'a Spanned<std::borrow::Cow<'a, str>>, &'a Spanned<DeValue<'a>>)| {
                let name = key.get_ref().to_string();
                let item = Item {
                    value: value.get_ref(),
                    span: value.span(),
                    path: self.path_of(&name),
                    faults: self.faults,
                };
                (name, key.span(), item)
            };
        self.table.iter().map(entry).collect()
    }

    /// A text under a key, parsed; a fault if it does not parse.
    pub fn parsed<T: FromStr<Err: std::fmt::Display>>(&self, key: &'static str) -> Option<T> {
        self.get(key)?.parsed()
    }

    /// Faults the table as a whole.
    pub fn fault(&self, text: impl std::fmt::Display) {
        self.faults.add(self.span.clone(), self.path.clone(), text);
    }

    /// The collector behind this table.
    pub fn faults(&self) -> &'a Faults {
        self.faults
    }

    /// Faults every key that nobody asked for, with the nearest known one.
    pub fn done(self) {
        let asked = self.asked.borrow();
        for key in self.table.keys() {
            let name = key.get_ref().as_ref();
            if asked.contains(&name) {
                continue;
            }
            let near = nearest(name, asked.iter().copied());
            let hint = if let Some(near) = near {
                format!("unknown key; did you mean \"{near}\"?")
            } else {
                let mut known = asked.clone();
                known.sort_unstable();
                known.dedup();
                format!("unknown key; known here: {}", known.join(", "))
            };
            self.faults.add(key.span(), self.path_of(name), hint);
        }
    }
}

impl<'a> Item<'a> {
    /// Faults this value.
    pub fn fault(&self, text: impl std::fmt::Display) {
        self.faults.add(self.span.clone(), self.path.clone(), text);
    }

    fn wrong(&self, wanted: &str) {
        self.fault(format!("is {} and should be {wanted}", kind(self.value)));
    }

    /// As a text.
    pub fn text(&self) -> Option<&'a str> {
        let text = self.value.as_str();
        if text.is_none() {
            self.wrong("a text in quotes");
        }
        text
    }

    /// As a text, parsed.
    pub fn parsed<T: FromStr<Err: std::fmt::Display>>(&self) -> Option<T> {
        self.text()?.parse().map_err(|error| self.fault(error)).ok()
    }

    /// As one of a few words.
    pub fn one_of<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let text = self.text()?;
        let found = words.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            let known = words.iter().map(|(word, _)| *word);
            let near = nearest(text, known.clone());
            let near = near.map_or(String::new(), |near| format!("did you mean \"{near}\"? "));
            let list = known.collect::<Vec<_>>().join(", ");
            self.fault(format!("\"{text}\" is not known here; {near}write one of: {list}"));
        }
        found.map(|(_, value)| *value)
    }

    /// As an integer within bounds.
    pub fn integer(&self, bounds: std::ops::RangeInclusive<i64>) -> Option<i64> {
        let (low, high) = (bounds.start(), bounds.end());
        let Some(number) = self.value.as_integer() else {
            let all = *high == i64::MAX;
            let from_to = if all { String::new() } else { format!(" from {low} to {high}") };
            self.wrong(&format!("a whole number{from_to}"));
            return None;
        };
        let parsed = i64::from_str_radix(number.as_str(), number.radix()).ok();
        let within = parsed.filter(|n| bounds.contains(n));
        if within.is_none() {
            self.fault(format!("{} is out of bounds: from {low} to {high}", number.as_str()));
        }
        within
    }

    /// As a yes or no.
    pub fn flag(&self) -> Option<bool> {
        let flag = self.value.as_bool();
        if flag.is_none() {
            self.wrong("true or false");
        }
        flag
    }

    /// As a table.
    pub fn fields(&self) -> Option<Fields<'a>> {
        let Some(table) = self.value.as_table() else {
            self.wrong("a table");
            return None;
        };
        Some(Fields::new(table, self.span.clone(), self.path.clone(), self.faults))
    }

    /// Whether it is a table.
    pub fn is_table(&self) -> bool {
        self.value.is_table()
    }

    /// As a list.
    pub fn list(&self) -> Vec<Item<'a>> {
        let Some(array) = self.value.as_array() else {
            self.wrong("a list in [ ]");
            return Vec::new();
        };
        let item = |(at, value): (usize, &'a Spanned<DeValue<'a>>)| Item {
            value: value.get_ref(),
            span: value.span(),
            path: format!("{}[{at}]", self.path),
            faults: self.faults,
        };
        array.iter().enumerate().map(item).collect()
    }

    /// As a list, or a single value as a list of one.
    pub fn one_or_more(&self) -> Vec<Item<'a>> {
        if self.value.is_array() { self.list() } else { vec![self.clone()] }
    }

    /// Whether it is a text.
    pub fn is_text(&self) -> bool {
        self.value.is_str()
    }

    /// Whether it is an integer.
    pub fn is_integer(&self) -> bool {
        self.value.is_integer()
    }

    /// Its place in the text.
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// Its key.
    pub fn path(&self) -> &str {
        &self.path
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a decimal number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// The known word nearest to a mistyped one, if any is near.
pub fn nearest<'k>(typed: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    known
        .map(|word| (strsim::damerau_levenshtein(typed, word), word))
        .filter(|(distance, word)| *distance <= (word.len() / 3).max(1))
        .min()
        .map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_told_with_its_place_and_mend() {
        let source = "name = 7\ncolour = \"red\"\n[sub]\nsise = 1\nmode = \"fats\"\n";
        let faults = Faults::of("x.toml", source);
        let document = parse(source, &faults);
        let root = Fields::root(&document, &faults);
        assert_eq!(root.need("name", "its name").and_then(|i| i.text()), None);
        assert_eq!(root.get("color").map(|_| ()), None);
        let sub = root.get("sub").and_then(|i| i.fields()).unwrap();
        assert!(sub.need("size", "how many").is_none());
        sub.get("mode").and_then(|i| i.one_of(&[("fast", 1), ("slow", 2)]));
        sub.done();
        root.done();
        insta::assert_snapshot!(faults.or(Some(())).unwrap_err(), @r#"
        x.toml:1:8: name: is a whole number and should be a text in quotes
        x.toml:2:1: colour: unknown key; did you mean "color"?
        x.toml:3:1: sub.size: is missing: how many
        x.toml:4:1: sub.sise: unknown key; did you mean "size"?
        x.toml:5:8: sub.mode: "fats" is not known here; did you mean "fast"? write one of: fast, slow
        "#);
    }

    #[test]
    fn broken_toml_is_a_fault_and_the_rest_is_still_read() {
        let source = "a = \nb = 2\n";
        let faults = Faults::of("x.toml", source);
        let document = parse(source, &faults);
        let root = Fields::root(&document, &faults);
        assert_eq!(root.get("b").and_then(|i| i.integer(0..=9)), Some(2));
        assert!(!faults.is_empty());
    }
}
