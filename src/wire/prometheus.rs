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
    /// Over how long a function of a range looks, ms; 0 if it does not say.
    pub range_ms: i64,
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
                    match field(&mut hints)? {
                        (1, Field::Number(step)) => query.step_ms = step as i64,
                        (7, Field::Number(range)) => query.range_ms = range as i64,
                        _ => {}
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
fn series(labels: &[(&str, String)], samples: &[(i64, f64)]) -> Vec<u8> {
    let mut inner = Vec::with_capacity(samples.len() * 18 + 64);
    for (name, value) in labels {
        let mut label = Vec::new();
        push_bytes(&mut label, 1, name.as_bytes());
        push_bytes(&mut label, 2, value.as_bytes());
        push_bytes(&mut inner, 1, &label);
    }
    let mut when = Vec::new();
    for (at, value) in samples {
        when.clear();
        varint::push(&mut when, *at as u64);
        inner.extend_from_slice(&[2 << 3 | 2, 10 + when.len() as u8, 1 << 3 | 1]);
        inner.extend_from_slice(&value.to_le_bytes());
        inner.push(2 << 3);
        inner.extend_from_slice(&when);
    }
    inner
}

/// How much is compressed at once. What a snappy block refers back to is never further away than that (google/snappy,
/// format_description.txt), so pieces that were compressed by themselves make one block when they follow each other.
const PIECE: usize = 64 * 1024;

/// A ReadResponse, compressed with snappy while it is made: of all that is in it only that is in memory.
#[derive(Default)]
pub struct Response {
    results: Vec<Packed>,
}

impl Response {
    /// Begins the QueryResult of the next query.
    pub fn begin(&mut self) {
        self.results.push(Packed::default());
    }

    /// Puts a series into it: labels sorted by name, samples by time (ms since 1970).
    pub fn series(
        &mut self,
        labels: &[(&str, String)],
        samples: &[(i64, f64)],
    ) -> Result<(), snap::Error> {
        let inner = series(labels, samples);
        let mut head = Vec::new();
        varint::push(&mut head, 1 << 3 | 2);
        varint::push(&mut head, inner.len() as u64);
        if let Some(result) = self.results.last_mut() {
            result.push(&head)?;
            result.push(&inner)?;
        }
        Ok(())
    }

    /// All of it, in order.
    pub fn finish(self) -> Result<Vec<Vec<u8>>, snap::Error> {
        let mut length = 0;
        let mut pieces = vec![Vec::new()];
        for mut result in self.results {
            result.close()?;
            let mut head = Packed::default();
            let mut bytes = Vec::new();
            varint::push(&mut bytes, 1 << 3 | 2);
            varint::push(&mut bytes, result.length);
            head.push(&bytes)?;
            head.close()?;
            length += head.length + result.length;
            pieces.append(&mut head.done);
            pieces.append(&mut result.done);
        }
        varint::push(&mut pieces[0], length);
        Ok(pieces)
    }
}

/// Bytes that are compressed piece by piece.
#[derive(Default)]
struct Packed {
    open: Vec<u8>,
    done: Vec<Vec<u8>>,
    /// Bytes before they were compressed.
    length: u64,
}

impl Packed {
    fn push(&mut self, mut bytes: &[u8]) -> Result<(), snap::Error> {
        self.length += bytes.len() as u64;
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(PIECE - self.open.len()));
            self.open.extend_from_slice(now);
            bytes = later;
            if self.open.len() == PIECE {
                self.close()?;
            }
        }
        Ok(())
    }

    /// Compresses what is open. Each piece comes with its length before it, which is in the answer once for all.
    fn close(&mut self) -> Result<(), snap::Error> {
        if !self.open.is_empty() {
            let piece = snap::raw::Encoder::new().compress_vec(&self.open)?;
            let mut rest = piece.as_slice();
            if varint::pull(&mut rest).is_some() {
                self.done.push(rest.to_vec());
            }
            self.open.clear();
        }
        Ok(())
    }
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
        push_bytes(&mut query, 4, &[1 << 3, 60, 7 << 3, 90]);
        let mut bytes = Vec::new();
        push_bytes(&mut bytes, 1, &query);
        let read = request(&bytes).unwrap();
        assert_eq!((read[0].start_ms, read[0].end_ms, read[0].step_ms), (5, 9, 60));
        assert_eq!(read[0].range_ms, 90);
        let expected = Matcher { how: How::Fits, name: "pdu".into(), value: "a|b".into() };
        assert_eq!(read[0].matchers, [expected]);
    }

    /// The labels of a series, and its samples.
    type Opened = (String, Vec<(i64, f64)>);

    /// The series of each result, read back.
    fn opened(mut bytes: &[u8]) -> Vec<Vec<Opened>> {
        let mut results = Vec::new();
        while !bytes.is_empty() {
            let Some((1, Field::Bytes(mut result))) = field(&mut bytes) else {
                panic!("no result")
            };
            let mut all = Vec::new();
            while !result.is_empty() {
                let Some((1, Field::Bytes(mut inner))) = field(&mut result) else { panic!() };
                let (mut labels, mut samples) = (String::new(), Vec::new());
                while !inner.is_empty() {
                    match field(&mut inner) {
                        Some((1, Field::Bytes(mut label))) => {
                            while let Some((_, Field::Bytes(text))) = field(&mut label) {
                                labels.push_str(std::str::from_utf8(text).unwrap());
                                labels.push(' ');
                            }
                        }
                        Some((2, Field::Bytes(mut sample))) => {
                            let Some((1, Field::Bytes(value))) = field(&mut sample) else {
                                panic!()
                            };
                            let Some((2, Field::Number(at))) = field(&mut sample) else { panic!() };
                            samples
                                .push((at as i64, f64::from_le_bytes(value.try_into().unwrap())));
                        }
                        _ => panic!("neither label nor sample"),
                    }
                }
                all.push((labels, samples));
            }
            results.push(all);
        }
        results
    }

    #[test]
    fn an_answer_that_is_compressed_piece_by_piece_is_one_block() {
        let labels = |n: i64| vec![("__name__", "pdu_x".to_owned()), ("outlet", n.to_string())];
        let samples = |n: i64| -> Vec<(i64, f64)> {
            (0..n * 1_000)
                .map(|at| (1_790_000_000_000 + at * 60_000, (at * n) as f64 / 7.0))
                .collect()
        };
        let mut response = Response::default();
        response.begin();
        for n in 0..12 {
            response.series(&labels(n), &samples(n)).unwrap();
        }
        response.begin();
        response.begin();
        response.series(&labels(40), &samples(1)).unwrap();
        let packed = response.finish().unwrap().concat();
        let raw = snap::raw::Decoder::new().decompress_vec(&packed).unwrap();
        assert!(raw.len() > 10 * PIECE && packed.len() < raw.len());
        let results = opened(&raw);
        assert_eq!(results.iter().map(Vec::len).collect::<Vec<_>>(), [12, 0, 1]);
        for n in 0..12 {
            let (text, found) = &results[0][n as usize];
            assert_eq!(
                (text.as_str(), found),
                (format!("__name__ pdu_x outlet {n} ").as_str(), &samples(n))
            );
        }
        assert_eq!(results[2][0].1, samples(1));
        let nothing = Response::default().finish().unwrap().concat();
        assert_eq!(snap::raw::Decoder::new().decompress_vec(&nothing).unwrap(), b"");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _either_way = request(&bytes);
        }
    }
}
