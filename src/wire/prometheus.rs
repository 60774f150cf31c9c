//! Prometheus' remote read, as protobuf (prometheus/prometheus, prompb/remote.proto and types.proto): what is asked,
//! and the answer in samples.

use crate::model::varint;

/// How a label is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// The same.
    Equal,
    /// Another.
    NotEqual,
    /// A regular expression that fits all of it.
    Fits,
    /// One that does not.
    FitsNot,
}

/// A condition on a label; a label that is not there is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matcher {
    /// How.
    pub how: How,
    /// Which label.
    pub name: String,
    /// With what.
    pub value: String,
}

/// One query.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Query {
    /// From when, ms since 1970.
    pub start_ms: i64,
    /// Until when, that moment included.
    pub end_ms: i64,
    /// All of them hold.
    pub matchers: Vec<Matcher>,
    /// How far apart the asker looks, ms; 0 if it does not say.
    pub step_ms: i64,
}

/// A field's number and what is in it.
enum Field<'b> {
    Number(u64),
    Bytes(&'b [u8]),
}

fn field<'b>(bytes: &mut &'b [u8]) -> Option<(u64, Field<'b>)> {
    let tag = varint::pull(bytes)?;
    let taken = match tag & 7 {
        0 => return Some((tag >> 3, Field::Number(varint::pull(bytes)?))),
        1 => 8,
        2 => usize::try_from(varint::pull(bytes)?).ok()?,
        5 => 4,
        _ => return None,
    };
    let (taken, rest) = bytes.split_at_checked(taken)?;
    *bytes = rest;
    Some((tag >> 3, Field::Bytes(taken)))
}

/// The queries of a ReadRequest.
pub fn request(mut bytes: &[u8]) -> Option<Vec<Query>> {
    let mut queries = Vec::new();
    while !bytes.is_empty() {
        if let (1, Field::Bytes(inner)) = field(&mut bytes)? {
            queries.push(query(inner)?);
        }
    }
    Some(queries)
}

fn query(mut bytes: &[u8]) -> Option<Query> {
    let mut query = Query::default();
    while !bytes.is_empty() {
        match field(&mut bytes)? {
            (1, Field::Number(at)) => query.start_ms = at as i64,
            (2, Field::Number(at)) => query.end_ms = at as i64,
            (3, Field::Bytes(inner)) => query.matchers.push(matcher(inner)?),
            (4, Field::Bytes(mut hints)) => {
                while !hints.is_empty() {
                    if let (1, Field::Number(step)) = field(&mut hints)? {
                        query.step_ms = step as i64;
                    }
                }
            }
            _ => {}
        }
    }
    Some(query)
}

fn matcher(mut bytes: &[u8]) -> Option<Matcher> {
    let mut matcher = Matcher { how: How::Equal, name: String::new(), value: String::new() };
    while !bytes.is_empty() {
        match field(&mut bytes)? {
            (1, Field::Number(how)) => {
                matcher.how = *[How::Equal, How::NotEqual, How::Fits, How::FitsNot]
                    .get(usize::try_from(how).ok()?)?;
            }
            (2, Field::Bytes(text)) => matcher.name = std::str::from_utf8(text).ok()?.to_owned(),
            (3, Field::Bytes(text)) => matcher.value = std::str::from_utf8(text).ok()?.to_owned(),
            _ => {}
        }
    }
    Some(matcher)
}

fn push_bytes(bytes: &mut Vec<u8>, number: u64, inner: &[u8]) {
    varint::push(bytes, number << 3 | 2);
    varint::push(bytes, inner.len() as u64);
    bytes.extend_from_slice(inner);
}

/// A TimeSeries within a QueryResult; labels sorted by name, samples by time.
pub fn series(result: &mut Vec<u8>, labels: &[(&str, String)], samples: &[(i64, f64)]) {
    let mut inner = Vec::with_capacity(samples.len() * 18 + 64);
    for (name, value) in labels {
        let mut label = Vec::new();
        push_bytes(&mut label, 1, name.as_bytes());
        push_bytes(&mut label, 2, value.as_bytes());
        push_bytes(&mut inner, 1, &label);
    }
    for (at, value) in samples {
        let mut sample = vec![1 << 3 | 1];
        sample.extend_from_slice(&value.to_le_bytes());
        sample.push(2 << 3);
        varint::push(&mut sample, *at as u64);
        push_bytes(&mut inner, 2, &sample);
    }
    push_bytes(result, 1, &inner);
}

/// The ReadResponse of results.
pub fn response(results: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    results.iter().for_each(|result| push_bytes(&mut bytes, 1, result));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_request_is_read() {
        let mut matcher = vec![1 << 3, 2];
        push_bytes(&mut matcher, 2, b"pdu");
        push_bytes(&mut matcher, 3, b"a|b");
        let mut query = vec![1 << 3, 5, 2 << 3, 9];
        push_bytes(&mut query, 3, &matcher);
        push_bytes(&mut query, 4, &[1 << 3, 60]);
        let mut bytes = Vec::new();
        push_bytes(&mut bytes, 1, &query);
        let read = request(&bytes).unwrap();
        assert_eq!((read[0].start_ms, read[0].end_ms, read[0].step_ms), (5, 9, 60));
        let expected = Matcher { how: How::Fits, name: "pdu".into(), value: "a|b".into() };
        assert_eq!(read[0].matchers, [expected]);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _either_way = request(&bytes);
        }
    }
}
