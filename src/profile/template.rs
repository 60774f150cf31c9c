//! OID templates: `1.3.6.1.4.1.13742.6.4.1.2.1.3.{pdu}.{outlet}`, filled from a row's index.

use std::fmt;

use crate::model::oid::{Oid, OidError};

/// An OID with named holes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Fixed(Vec<u32>),
    Part(String),
    /// What a name stands for on this device; its holes are index parts.
    Named(String),
}

/// The index parts that a pattern of names leaves open: `phase` in `Phase L{phase}.Current`.
pub fn holes_of(pattern: &str) -> impl Iterator<Item = &str> {
    pattern.split('{').skip(1).filter_map(|rest| rest.split_once('}').map(|(hole, _)| hole))
}

/// The numbers that a name has in the holes of a pattern, in their order.
pub fn matched(pattern: &str, name: &str) -> Option<Vec<u32>> {
    let mut pieces = pattern.split('{');
    let mut rest = name.strip_prefix(pieces.next()?)?;
    let mut values = Vec::new();
    for piece in pieces {
        let (_, fixed) = piece.split_once('}')?;
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        values.push(rest[..digits].parse().ok()?);
        rest = rest[digits..].strip_prefix(fixed)?;
    }
    rest.is_empty().then_some(values)
}

/// What fills a hole: the sub-identifiers of an index part, by its name.
pub type Parts<'a> = &'a [(String, Vec<u32>)];

impl std::str::FromStr for Template {
    type Err = OidError;

    fn from_str(text: &str) -> Result<Self, OidError> {
        let wrong = || OidError::Text(text.to_owned());
        let mut pieces: Vec<Piece> = Vec::new();
        for arc in text.strip_prefix('.').unwrap_or(text).split('.') {
            let hole = arc.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
            match (hole, pieces.last_mut()) {
                (Some(name), _) if !name.is_empty() => pieces.push(Piece::Part(name.to_owned())),
                (Some(_), _) => return Err(wrong()),
                (None, Some(Piece::Fixed(arcs))) => arcs.push(arc.parse().map_err(|_| wrong())?),
                (None, _) => {
                    pieces.push(Piece::Fixed(vec![arc.parse().map_err(|_| wrong())?]));
                }
            }
        }
        match pieces.first() {
            Some(Piece::Fixed(arcs)) if arcs.len() >= 2 && arcs[0] <= 2 => {
                // Oids that are too long are told here rather than at the first row.
                Oid::from_parts(arcs)?;
                Ok(Self { pieces })
            }
            _ => Err(wrong()),
        }
    }
}

impl Template {
    /// The variable that has a name of this pattern, in a column.
    pub fn named(column: &Oid, pattern: &str) -> Self {
        let fixed = Piece::Fixed(column.parts());
        Self { pieces: vec![fixed, Piece::Named(pattern.to_owned())] }
    }

    /// The names of its holes.
    pub fn holes(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().flat_map(|piece| match piece {
            Piece::Part(name) => vec![name.as_str()],
            Piece::Named(pattern) => holes_of(pattern).collect(),
            Piece::Fixed(_) => Vec::new(),
        })
    }

    /// The pattern of names that it goes by, if so.
    pub fn pattern(&self) -> Option<&str> {
        self.pieces.iter().find_map(|piece| match piece {
            Piece::Named(pattern) => Some(pattern.as_str()),
            _ => None,
        })
    }

    /// The arcs before the first hole.
    pub fn head(&self) -> Oid {
        match self.pieces.first() {
            Some(Piece::Fixed(arcs)) => Oid::from_parts(arcs).unwrap_or_default(),
            _ => Oid::default(),
        }
    }

    /// Whether an instance is one of those that it stands for. What a name stands for is not known here: anything does.
    pub fn matches(&self, oid: &Oid) -> bool {
        fn from(pieces: &[Piece], arcs: &[u32]) -> bool {
            match pieces.split_first() {
                None => arcs.is_empty(),
                Some((Piece::Fixed(fixed), rest)) => {
                    arcs.strip_prefix(fixed.as_slice()).is_some_and(|arcs| from(rest, arcs))
                }
                // A part has one arc, or a text with its length before it.
                Some((_, rest)) => (1..=arcs.len()).any(|taken| from(rest, &arcs[taken..])),
            }
        }
        from(&self.pieces, &oid.parts())
    }

    /// Whether it is a column: fixed arcs, then exactly these index parts in this order. Rows of such
    /// a column follow each other in a walk.
    pub fn is_column_of(&self, index: &[String]) -> bool {
        self.pieces.len() == index.len() + 1
            && self.pieces[1..]
                .iter()
                .zip(index)
                .all(|(piece, name)| matches!(piece, Piece::Part(part) if part == name))
    }

    /// Filled from a row; `None` if a hole has no filling or the result is too long.
    pub fn fill(&self, parts: Parts<'_>) -> Option<Oid> {
        let mut arcs = Vec::with_capacity(24);
        for piece in &self.pieces {
            match piece {
                Piece::Fixed(fixed) => arcs.extend_from_slice(fixed),
                Piece::Part(name) | Piece::Named(name) => {
                    let (_, value) = parts.iter().find(|(part, _)| part == name)?;
                    arcs.extend_from_slice(value);
                }
            }
        }
        Oid::from_parts(&arcs).ok()
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut dot = "";
        for piece in &self.pieces {
            match piece {
                Piece::Part(name) => write!(f, "{dot}{{{name}}}")?,
                Piece::Named(pattern) => write!(f, "{dot}\"{pattern}\"")?,
                Piece::Fixed(arcs) => {
                    for arc in arcs {
                        write!(f, "{dot}{arc}")?;
                        dot = ".";
                    }
                }
            }
            dot = ".";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_filled_from_the_row() {
        let template: Template = "1.3.6.1.4.{pdu}.9.{outlet}.1".parse().unwrap();
        let row = [("pdu".to_owned(), vec![2]), ("outlet".to_owned(), vec![17])];
        assert_eq!(template.fill(&row).unwrap().to_string(), "1.3.6.1.4.2.9.17.1");
        assert_eq!(template.to_string(), "1.3.6.1.4.{pdu}.9.{outlet}.1");
        assert_eq!(template.fill(&row[..1]), None);
        assert_eq!(template.head().to_string(), "1.3.6.1.4");
        let matches = |text: &str| template.matches(&text.parse().unwrap());
        assert!(matches("1.3.6.1.4.2.9.17.1") && matches("1.3.6.1.4.2.48.49.9.17.1"));
        assert!(!matches("1.3.6.1.4.2.9.17.2") && !matches("1.3.6.1.4.9.1") && !matches("1.3.6.1"));
    }

    #[test]
    fn a_name_is_matched_with_the_numbers_in_its_holes() {
        let pattern = "Phase L{phase}.Fuses.Fuse {fuse}.Status";
        assert_eq!(holes_of(pattern).collect::<Vec<_>>(), ["phase", "fuse"]);
        assert_eq!(matched(pattern, "Phase L2.Fuses.Fuse 01.Status"), Some(vec![2, 1]));
        for other in ["Phase L2.Fuses.Fuse x.Status", "Phase L2.Fuses.Fuse 1.Status.x", "Phase L2"]
        {
            assert_eq!(matched(pattern, other), None, "{other}");
        }
        let template = Template::named(&"1.3.6.11".parse().unwrap(), "Total.Power");
        let row = [("Total.Power".to_owned(), vec![2, 12])];
        assert_eq!(template.fill(&row).unwrap().to_string(), "1.3.6.11.2.12");
        assert_eq!(template.fill(&[]), None);
    }

    #[test]
    fn only_trailing_index_parts_in_order_make_a_column() {
        let index = ["pdu".to_owned(), "outlet".to_owned()];
        let column = |text: &str| text.parse::<Template>().unwrap().is_column_of(&index);
        assert!(column("1.3.6.1.{pdu}.{outlet}"));
        assert!(!column("1.3.6.1.{pdu}.{outlet}.1"));
        assert!(!column("1.3.6.1.{outlet}.{pdu}"));
    }

    #[test]
    fn what_is_no_template_is_told_so() {
        for text in ["", "{pdu}", "1.3.{}", "1.3.{pdu", "1.3.x", "4.3.6"] {
            assert!(text.parse::<Template>().is_err(), "{text}");
        }
    }
}
