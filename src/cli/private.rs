//! What in a text is nobody else's business: addresses and serial numbers by their looks, and which texts cannot be a name.

use std::collections::BTreeMap;

use crate::model::oid::Oid;

/// Words that devices say of themselves.
const WORDS: [&str; 43] = [
    "on",
    "off",
    "open",
    "opened",
    "closed",
    "close",
    "yes",
    "no",
    "true",
    "false",
    "ok",
    "normal",
    "good",
    "bad",
    "up",
    "down",
    "enabled",
    "disabled",
    "enable",
    "disable",
    "active",
    "inactive",
    "alarm",
    "warning",
    "critical",
    "error",
    "fault",
    "failed",
    "tripped",
    "unknown",
    "none",
    "n/a",
    "na",
    "-",
    "--",
    "not-supported",
    "not supported",
    "notsupported",
    "single phase",
    "three phase",
    "single-phase",
    "three-phase",
    "pending",
];
/// Units behind a number.
const UNITS: [&str; 22] = [
    "", "v", "a", "w", "va", "var", "kw", "kva", "wh", "kwh", "hz", "%", "c", "f", "°c", "°f",
    "deg. c", "ma", "mv", "mw", "s", "ms",
];

/// Whether a text cannot be a name: nothing, a number with a unit, a usual word, the mark of a phase or an outlet, or a
/// list of such.
pub fn is_harmless(text: &str) -> bool {
    let one = |text: &str| {
        let text = text.trim().to_lowercase();
        WORDS.contains(&text.as_str()) || text.is_empty() || is_number(&text) || is_mark(&text)
    };
    text.split(',').all(one)
}

/// A number of a few digits; a long one may be that of a device or of a telephone.
fn is_number(text: &str) -> bool {
    let text = text.trim_start_matches(['+', '-']);
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let digits = number.bytes().filter(u8::is_ascii_digit).count();
    let points = number.len() - digits;
    let unit = unit.trim();
    (1..=if unit.is_empty() { 5 } else { 9 }).contains(&digits)
        && points <= 1
        && UNITS.contains(&unit)
}

/// `L1`, `L1-N`, `AA12`, `B3`.
fn is_mark(text: &str) -> bool {
    let phase = |text: &str| matches!(text, "n" | "l1" | "l2" | "l3");
    if let Some((from, to)) = text.split_once('-') {
        return phase(from) && phase(to);
    }
    let letters = text.bytes().take_while(u8::is_ascii_alphabetic).count();
    let digits = &text.as_bytes()[letters..];
    (1..=2).contains(&letters) && digits.len() <= 2 && digits.iter().all(u8::is_ascii_digit)
}

/// Bits, a date (SNMPv2-TC DateAndTime), or a float in an Opaque.
pub fn is_harmless_binary(bytes: &[u8]) -> bool {
    matches!(bytes.len(), 0..=3 | 8 | 11) || bytes.starts_with(&[0x9f, 0x78])
}

/// One word of some length with several digits, and no version.
pub fn is_like_a_serial(text: &str) -> bool {
    let text = text.trim();
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    let rest = text.trim_start_matches(['v', 'V']);
    let is_version = rest.contains('.') && rest.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    (6..=40).contains(&text.len())
        && digits >= 4
        && !text.contains(char::is_whitespace)
        && !is_version
        && !is_number(&text.to_lowercase())
}

fn is_inside(c: Option<char>) -> bool {
    c.is_some_and(char::is_alphanumeric)
}

/// A text without a word, where it stands for itself.
pub fn without_word(text: &str, word: &str, blot: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(word).filter(|_| !word.is_empty()) {
        let (before, from) = rest.split_at(at);
        let after = &from[word.len()..];
        let before_it = before.chars().next_back().or_else(|| clean.chars().next_back());
        let alone = !is_inside(before_it) && !is_inside(after.chars().next());
        clean.push_str(before);
        clean.push_str(if alone { blot } else { word });
        rest = after;
    }
    clean + rest
}

/// The words of a text with what they may be made of, the rest as it is.
fn by_words(
    text: &str,
    belongs: impl Fn(char) -> bool,
    hide: impl Fn(&str) -> bool,
    blot: &str,
) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let word = rest.find(|c: char| !belongs(c)).unwrap_or(rest.len());
        let (head, tail) = rest.split_at(word);
        clean.push_str(if hide(head) { blot } else { head });
        let gap = tail.find(&belongs).unwrap_or(tail.len());
        clean.push_str(&tail[..gap]);
        rest = &tail[gap..];
    }
    clean
}

/// `00:0e:d3:00:0a:01`, `000e.d300.0a01`, `000ED3000A01`.
fn is_mac(word: &str) -> bool {
    let hex = |text: &str| text.bytes().all(|b| b.is_ascii_hexdigit());
    let split = |by: char, count: usize, length: usize| {
        let parts: Vec<&str> = word.split(by).collect();
        parts.len() == count && parts.iter().all(|part| part.len() == length && hex(part))
    };
    let plain = word.len() == 12
        && hex(word)
        && (word.starts_with("00") || word.bytes().any(|b| b.is_ascii_alphabetic()));
    plain || split(':', 6, 2) || split('-', 6, 2) || split('.', 3, 4)
}

/// A text without MAC addresses.
pub fn without_macs(text: &str, blot: &str) -> String {
    let belongs = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '-' | '.');
    // A mark may stand before it: "MAC:00-0e-…".
    let clean = by_words(text, belongs, is_mac, blot);
    let belongs = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    by_words(&clean, belongs, is_mac, blot)
}

/// A text without IP addresses: four numbers, of which the first is no version.
pub fn without_addresses(text: &str, blot: &str) -> String {
    let is_v4 = |word: &str| {
        word.parse::<std::net::Ipv4Addr>().is_ok_and(|address| address.octets()[0] >= 10)
    };
    let is_v6 =
        |word: &str| word.matches(':').count() >= 2 && word.parse::<std::net::Ipv6Addr>().is_ok();
    let clean = by_words(text, |c| c.is_ascii_alphanumeric() || c == '.', is_v4, blot);
    by_words(&clean, |c| c.is_ascii_alphanumeric() || c == ':', is_v6, blot)
}

/// A text without what stands behind `SN`, `S/N`, `Serial`, `Serial Number`.
pub fn without_marked_serials(text: &str, blot: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let mut hidden: Vec<(usize, usize)> = Vec::new();
    for mark in ["serial number", "serial no", "serial", "s/n", "sn"] {
        let mut from = 0;
        while let Some(at) = lower[from..].find(mark).map(|at| from + at) {
            from = at + mark.len();
            let behind = &lower[from..];
            let token = behind.trim_start_matches([' ', ':', '=', '#', '.', '-', '"']);
            let start = lower.len() - token.len();
            let length = token
                .find(|c: char| !(c.is_alphanumeric() || matches!(c, '-' | '_' | '/')))
                .unwrap_or(token.len());
            let is_serial = length >= 4 && token[..length].bytes().any(|b| b.is_ascii_digit());
            if !is_inside(lower[..at].chars().next_back()) && start > from && is_serial {
                hidden.push((start, start + length));
            }
        }
    }
    hidden.sort_unstable();
    hidden.dedup_by(|later, before| later.0 < before.1);
    let mut clean = String::with_capacity(text.len());
    let mut at = 0;
    for (start, end) in hidden {
        clean.push_str(&text[at..start]);
        clean.push_str(blot);
        at = end;
    }
    clean + &text[at..]
}

/// MAC addresses that stand as texts in names of objects, and what they are called instead: in the same order.
pub fn macs_in_names<'o>(names: impl Iterator<Item = &'o Oid>) -> BTreeMap<Vec<u32>, Vec<u32>> {
    let mut macs: BTreeMap<Vec<u32>, Vec<u32>> = BTreeMap::new();
    for name in names {
        let parts = name.parts();
        for window in parts.windows(13) {
            let is_digit = |arc: &u32| u8::try_from(*arc).is_ok_and(|b| b.is_ascii_hexdigit());
            if window[0] == 12 && window[1..].iter().all(is_digit) {
                macs.insert(window[1..].to_vec(), Vec::new());
            }
        }
    }
    for (number, other) in (1_u32..).zip(macs.values_mut()) {
        *other = format!("{number:012}").bytes().map(u32::from).collect();
    }
    macs
}

/// The name of an object with its addresses called otherwise.
pub fn renamed(name: &Oid, macs: &BTreeMap<Vec<u32>, Vec<u32>>) -> Oid {
    let mut parts = name.parts();
    let found = (0..parts.len().saturating_sub(12))
        .find(|at| parts[*at] == 12 && macs.contains_key(&parts[at + 1..at + 13]));
    let Some(at) = found else { return name.clone() };
    if let Some(other) = macs.get(&parts[at + 1..at + 13]) {
        parts[at + 1..at + 13].copy_from_slice(other);
    }
    Oid::from_parts(&parts).unwrap_or_else(|_| name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_words_and_marks_are_no_names() {
        for text in ["", "230.5 V", "0.45kW", "-1", "ON", "1,1,0,-1", "L1-N", "AA12", "n/a"] {
            assert!(is_harmless(text), "{text:?}");
        }
        for text in ["db-1", "4930123456", "Meier", "10.1.2.3", "on the roof", "L1,Meier", "rack 7"]
        {
            assert!(!is_harmless(text), "{text:?}");
        }
    }

    #[test]
    fn addresses_and_serials_are_found_by_their_looks() {
        assert_eq!(without_macs("MAC:00-0E-D3-00-0A-01, x", "#"), "MAC:#, x");
        assert_eq!(without_macs("00:0e:d3:00:0a:01 000ED3000A01 12:30:45", "#"), "# # 12:30:45");
        assert_eq!(without_addresses("at 10.1.2.3:161 FW 4.2.0.5-5", "#"), "at #:161 FW 4.2.0.5-5");
        assert_eq!(without_addresses("at fe80::1 at 12:30", "#"), "at # at 12:30");
        assert_eq!(without_addresses("at 192.168.1.2, FW 4.2.0.5", "#"), "at #, FW 4.2.0.5");
        let serials = [
            ("SN: ZA17 SNMP 123456", "SN: # SNMP 123456"),
            ("Serial Number=5A16-38 end", "Serial Number=# end"),
            ("S/N 12345, dsn 12345", "S/N #, dsn 12345"),
            ("serial port", "serial port"),
        ];
        for (text, clean) in serials {
            assert_eq!(without_marked_serials(text, "#"), clean);
        }
        assert!(is_like_a_serial("SN-4711-0815") && is_like_a_serial("5A1638E01463"));
        assert!(!is_like_a_serial("5.3.2201.0") && !is_like_a_serial("in 4711 boxes"));
    }

    #[test]
    fn a_word_is_hidden_where_it_stands_for_itself() {
        assert_eq!(without_word("rack rack7 my-rack racks", "rack", "#"), "# rack7 my-# racks");
    }
}
