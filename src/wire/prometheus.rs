//! Prometheus' remote read, as protobuf (prometheus/prometheus, prompb/remote.proto and types.proto): what is asked,
//! and the answer in samples.

use std::io::{self, Write};

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

/// How long that is, bytes.
fn series_length(labels: &[(&str, String)], samples: &[(i64, f64)]) -> u64 {
    let with_head = |inner: usize| 1 + varint_length(inner as u64) + inner;
    let of_labels = labels
        .iter()
        .map(|(name, value)| with_head(with_head(name.len()) + with_head(value.len())));
    let of_samples = samples.iter().map(|(at, _)| 12 + varint_length(*at as u64));
    (of_labels.sum::<usize>() + of_samples.sum::<usize>()) as u64
}

fn varint_length(value: u64) -> usize {
    value.checked_ilog2().unwrap_or(0) as usize / 7 + 1
}

/// The bytes before so many of a field.
fn head(number: u64, length: u64) -> Vec<u8> {
    let mut head = Vec::new();
    varint::push(&mut head, number << 3 | 2);
    varint::push(&mut head, length);
    head
}

/// How much is compressed at once. What a snappy block refers back to is never further away than that (google/snappy,
/// format_description.txt), so pieces that were compressed by themselves make one block when they follow each other.
const PIECE: usize = 64 * 1024;
/// A ReadResponse before it is sent. Its length is at its beginning, and that of each result at that one's: so all of it
/// is gone through once before the first byte is sent. One that is too long to be kept is made again while it is sent.
pub struct Draft {
    results: Vec<OneResult>,
    kept: usize,
    most: usize,
}

/// A QueryResult.
#[derive(Default)]
struct OneResult {
    packed: Packed,
    pieces: Pieces,
}

/// What a draft comes to.
pub enum Drafted {
    /// The answer.
    Whole(Vec<Vec<u8>>),
    /// It is long: make it with this.
    Long(Vec<u64>),
}

impl Draft {
    /// One of which so many compressed bytes are kept.
    pub fn keeping(most: usize) -> Self {
        Self { results: Vec::new(), kept: 0, most }
    }

    /// Begins the QueryResult of the next query.
    pub fn begin(&mut self) {
        self.results.push(OneResult::default());
    }

    /// Puts a series into it: labels sorted by name, samples by time (ms since 1970).
    pub fn series(&mut self, labels: &[(&str, String)], samples: &[(i64, f64)]) -> io::Result<()> {
        let is_long = self.is_long();
        let Some(OneResult { packed, pieces }) = self.results.last_mut() else { return Ok(()) };
        if is_long {
            let length = series_length(labels, samples);
            packed.length += length + head(1, length).len() as u64;
            return Ok(());
        }
        let before = pieces.bytes + packed.open.len();
        packed.series(labels, samples, pieces)?;
        self.kept = self.kept + pieces.bytes + packed.open.len() - before;
        if self.is_long() {
            for result in &mut self.results {
                result.pieces = Pieces::default();
                result.packed.open = Vec::new();
            }
        }
        Ok(())
    }

    /// Whether it is longer than what is kept.
    pub fn is_long(&self) -> bool {
        self.kept > self.most
    }

    /// All of it.
    pub fn finish(self) -> io::Result<Drafted> {
        let lengths: Vec<u64> = self.results.iter().map(|result| result.packed.length).collect();
        if self.is_long() {
            return Ok(Drafted::Long(lengths));
        }
        let mut all = Pieces::default();
        all.write_all(&preamble(&lengths))?;
        for (mut result, length) in self.results.into_iter().zip(lengths) {
            let mut before = Packed::default();
            before.push(&head(1, length), &mut all)?;
            before.close(&mut all)?;
            result.packed.close(&mut result.pieces)?;
            all.pieces.append(&mut result.pieces.pieces);
        }
        Ok(Drafted::Whole(all.pieces))
    }
}

/// The length of a ReadResponse of results that are so long, before all of it.
fn preamble(lengths: &[u64]) -> Vec<u8> {
    let length = lengths.iter().map(|length| head(1, *length).len() as u64 + length).sum();
    let mut bytes = Vec::new();
    varint::push(&mut bytes, length);
    bytes
}

/// A long ReadResponse, as it is sent.
pub struct Sending<W> {
    lengths: std::vec::IntoIter<u64>,
    /// Bytes that the result under way has yet to have.
    left: u64,
    packed: Packed,
    out: W,
}

impl<W: Write> Sending<W> {
    /// Begins one whose results are so long.
    pub fn new(lengths: Vec<u64>, mut out: W) -> io::Result<Self> {
        out.write_all(&preamble(&lengths))?;
        let (lengths, packed) = (lengths.into_iter(), Packed::default());
        Ok(Self { lengths, left: 0, packed, out })
    }

    /// Begins the next result.
    pub fn begin(&mut self) -> io::Result<()> {
        let next = self.lengths.next();
        let Some(length) = next.filter(|_| self.left == 0) else { return Err(changed()) };
        self.left = length;
        self.packed.push(&head(1, length), &mut self.out)
    }

    /// Puts a series into it, as [`Draft::series`].
    pub fn series(&mut self, labels: &[(&str, String)], samples: &[(i64, f64)]) -> io::Result<()> {
        let before = self.packed.length;
        self.packed.series(labels, samples, &mut self.out)?;
        let taken = self.packed.length - before;
        self.left = self.left.checked_sub(taken).ok_or_else(changed)?;
        Ok(())
    }

    /// Ends it. Fails if it is not as long as was said at its beginning.
    pub fn finish(mut self) -> io::Result<()> {
        if self.left > 0 || self.lengths.next().is_some() {
            return Err(changed());
        }
        self.packed.close(&mut self.out)
    }
}

/// What was read changed between the two times that it was read.
#[derive(Debug, thiserror::Error)]
#[error("what was read changed meanwhile")]
pub struct Changed;

fn changed() -> io::Error {
    io::Error::other(Changed)
}

/// Pieces that are kept.
#[derive(Default)]
struct Pieces {
    pieces: Vec<Vec<u8>>,
    bytes: usize,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.pieces.push(bytes.to_vec());
        self.bytes += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes that are compressed piece by piece.
#[derive(Default)]
struct Packed {
    open: Vec<u8>,
    /// Bytes before they were compressed.
    length: u64,
}

impl Packed {
    fn series(
        &mut self,
        labels: &[(&str, String)],
        samples: &[(i64, f64)],
        out: &mut impl Write,
    ) -> io::Result<()> {
        let inner = series(labels, samples);
        self.push(&head(1, inner.len() as u64), out)?;
        self.push(&inner, out)
    }

    fn push(&mut self, mut bytes: &[u8], out: &mut impl Write) -> io::Result<()> {
        self.length += bytes.len() as u64;
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(PIECE - self.open.len()));
            self.open.extend_from_slice(now);
            bytes = later;
            if self.open.len() == PIECE {
                self.close(out)?;
            }
        }
        Ok(())
    }

    /// Compresses what is open. Each piece comes with its length before it, which is in the answer once for all.
    fn close(&mut self, out: &mut impl Write) -> io::Result<()> {
        if !self.open.is_empty() {
            let piece = snap::raw::Encoder::new().compress_vec(&self.open)?;
            let mut rest = piece.as_slice();
            if varint::pull(&mut rest).is_some() {
                out.write_all(rest)?;
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
        let answer = |draft: &mut Draft, most: i64| {
            draft.begin();
            for n in 0..most {
                draft.series(&labels(n), &samples(n)).unwrap();
            }
            draft.begin();
            draft.begin();
            draft.series(&labels(40), &samples(1)).unwrap();
        };
        let check = |packed: &[u8], most: i64| {
            let raw = snap::raw::Decoder::new().decompress_vec(packed).unwrap();
            assert!(raw.len() > 10 * PIECE && packed.len() < raw.len());
            let results = opened(&raw);
            let counts: Vec<usize> = results.iter().map(Vec::len).collect();
            assert_eq!(counts, [most as usize, 0, 1]);
            for n in 0..most {
                let (text, found) = &results[0][n as usize];
                assert_eq!(
                    (text.as_str(), found),
                    (format!("__name__ pdu_x outlet {n} ").as_str(), &samples(n))
                );
            }
            assert_eq!(results[2][0].1, samples(1));
        };
        let mut draft = Draft::keeping(4 << 20);
        answer(&mut draft, 12);
        let Drafted::Whole(pieces) = draft.finish().unwrap() else { panic!("it is short") };
        check(&pieces.concat(), 12);
        let mut draft = Draft::keeping(4 << 20);
        answer(&mut draft, 40);
        let Drafted::Long(lengths) = draft.finish().unwrap() else { panic!("it is long") };
        let mut packed = Vec::new();
        let mut sending = Sending::new(lengths.clone(), &mut packed).unwrap();
        sending.begin().unwrap();
        for n in 0..40 {
            sending.series(&labels(n), &samples(n)).unwrap();
        }
        sending.begin().unwrap();
        sending.begin().unwrap();
        sending.series(&labels(40), &samples(1)).unwrap();
        sending.finish().unwrap();
        check(&packed, 40);
        // What became another meanwhile is not made to look whole.
        let mut sending = Sending::new(lengths.clone(), Vec::new()).unwrap();
        sending.begin().unwrap();
        sending.series(&labels(39), &samples(39)).unwrap();
        assert!(sending.begin().is_err() && sending.finish().is_err());
        let mut sending = Sending::new(vec![20], Vec::new()).unwrap();
        sending.begin().unwrap();
        assert!(sending.series(&labels(1), &samples(1)).is_err());
        let Drafted::Whole(nothing) = Draft::keeping(0).finish().unwrap() else { panic!() };
        assert_eq!(snap::raw::Decoder::new().decompress_vec(&nothing.concat()).unwrap(), b"");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _either_way = request(&bytes);
        }
    }
}
