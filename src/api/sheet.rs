//! Readings as a client wants them: JSON, CSV or Arrow, written point by point.

use std::io::Write;

use hyper::header::{ACCEPT, HeaderMap};

use crate::model::metric::Metric;
use crate::model::time::{Span, Stamp};
use crate::series::window::Aggregate;
use crate::wire::series::{ManyBody, OneBody, PointBody, PointValue, SeriesBody};

use super::arrow::Table;
use super::stream::{Stopped, internal};

/// How readings are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One object.
    Json,
    /// A line a point (RFC 4180).
    Csv,
    /// An Arrow IPC stream.
    Arrow,
}

impl Form {
    /// What `Accept` asks for; JSON unless it names another.
    pub fn wanted(headers: &HeaderMap) -> Self {
        let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
        let named = |form: &Form| accept.contains(form.kind().split(';').next().unwrap_or(""));
        [Form::Csv, Form::Arrow].into_iter().find(named).unwrap_or(Form::Json)
    }

    /// Its media type.
    pub fn kind(self) -> &'static str {
        match self {
            Form::Json => "application/json",
            Form::Csv => "text/csv; charset=utf-8",
            Form::Arrow => "application/vnd.apache.arrow.stream",
        }
    }
}

/// What an answer says of itself.
#[derive(Debug, Clone)]
pub struct Head {
    /// The target, if it is about one only.
    pub target: Option<String>,
    /// What was read.
    pub metric: Metric,
    /// From when.
    pub start: Stamp,
    /// Until before when.
    pub end: Stamp,
    /// How wide a step is and what it says; without, readings as they came.
    pub step: Option<(Span, Aggregate)>,
    /// What several series become, and what is folded together.
    pub fold: Option<(&'static str, &'static str)>,
}

/// One reading or step.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// When it was read, or when the step begins.
    pub at: Stamp,
    /// What it says.
    pub value: PointValue,
    /// `good`, or why there is no value.
    pub quality: &'static str,
}

/// An answer that is being written.
pub enum Sheet<W: Write> {
    /// As JSON: whether something stands in the list of series, and in the list of points.
    Json { out: W, is_one: bool, series: usize, points: usize },
    /// As CSV: the target of the lines, where there are several.
    Csv { out: W, is_one: bool, target: String },
    /// As Arrow.
    Arrow(Box<Table<W>>),
}

impl<W: Write> Sheet<W> {
    /// Begins an answer.
    pub fn begin(mut out: W, form: Form, head: &Head) -> Result<Self, Stopped> {
        let is_one = head.target.is_some();
        match form {
            Form::Json => {
                out.write_all(&opening(&match &head.target {
                    Some(target) => json(&one(head, target)),
                    None => json(&many(head)),
                }?)?)?;
                Ok(Sheet::Json { out, is_one, series: 0, points: 0 })
            }
            Form::Csv => {
                let first = if is_one { "" } else { "target," };
                write!(out, "{first}at,{},quality\r\n", head.metric.key())?;
                Ok(Sheet::Csv { out, is_one, target: String::new() })
            }
            Form::Arrow => Ok(Sheet::Arrow(Box::new(Table::begin(out, head)?))),
        }
    }

    /// The points that follow are of this target or group.
    pub fn series(&mut self, target: &str) -> Result<(), Stopped> {
        match self {
            Sheet::Json { is_one: true, .. } => {}
            Sheet::Json { out, series, points, .. } => {
                out.write_all(match series {
                    0 => b"",
                    _ => b"]},",
                })?;
                let body = OneBody { target: target.to_owned(), points: Vec::new() };
                out.write_all(&opening(&json(&body)?)?)?;
                (*series, *points) = (*series + 1, 0);
            }
            Sheet::Csv { target: known, .. } => target.clone_into(known),
            Sheet::Arrow(table) => table.series(target),
        }
        Ok(())
    }

    /// The next point.
    pub fn point(&mut self, point: Point) -> Result<(), Stopped> {
        let Point { at, value, quality } = point;
        match self {
            Sheet::Json { out, points, .. } => {
                if *points > 0 {
                    out.write_all(b",")?;
                }
                *points += 1;
                out.write_all(&json(&PointBody { at: at.to_string(), value, quality })?)?;
            }
            Sheet::Csv { out, is_one, target } => {
                if !*is_one {
                    write!(out, "{target},")?;
                }
                match value {
                    PointValue::Number(number) => write!(out, "{at},{number},{quality}\r\n"),
                    PointValue::Word(word) => write!(out, "{at},{word},{quality}\r\n"),
                    PointValue::Nothing(()) => write!(out, "{at},,{quality}\r\n"),
                }?;
            }
            Sheet::Arrow(table) => table.point(at, &value, quality)?,
        }
        Ok(())
    }

    /// Ends the answer: only now is it whole.
    pub fn end(self) -> Result<(), Stopped> {
        match self {
            Sheet::Json { mut out, is_one, series, .. } => {
                if !is_one && series > 0 {
                    out.write_all(b"]}")?;
                }
                out.write_all(b"]}")?;
            }
            Sheet::Csv { .. } => {}
            Sheet::Arrow(table) => table.end()?,
        }
        Ok(())
    }
}

fn json(body: &impl serde::Serialize) -> Result<Vec<u8>, Stopped> {
    serde_json::to_vec(body).map_err(|error| Stopped::from(internal(&error)))
}

/// A body whose list comes last and is empty, without the list's end: what was made of the body's own type cannot
/// look different from it.
fn opening(body: &[u8]) -> Result<Vec<u8>, Stopped> {
    let open = body.strip_suffix(b"]}").map(<[u8]>::to_vec);
    open.ok_or_else(|| Stopped::from(internal(&"the body of a series does not end with a list")))
}

fn one(head: &Head, target: &str) -> SeriesBody {
    SeriesBody {
        target: target.to_owned(),
        metric: head.metric.key().to_owned(),
        start: head.start.to_string(),
        end: head.end.to_string(),
        step_ms: head.step.map(|(step, _)| step.0),
        agg: head.step.map(|(_, how)| how.word()),
        points: Vec::new(),
    }
}

fn many(head: &Head) -> ManyBody {
    ManyBody {
        metric: head.metric.key().to_owned(),
        start: head.start.to_string(),
        end: head.end.to_string(),
        step_ms: head.step.map(|(step, _)| step.0),
        agg: head.step.map(|(_, how)| how.word()),
        fold: head.fold.map(|(fold, _)| fold),
        by: head.fold.map(|(_, by)| by),
        series: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(target: Option<&str>) -> Head {
        Head {
            target: target.map(str::to_owned),
            metric: Metric::Power,
            start: Stamp(0),
            end: Stamp(60_000),
            step: Some((Span(1_000), Aggregate::Max)),
            fold: None,
        }
    }

    fn points() -> [Point; 2] {
        let point = |at, value, quality| Point { at: Stamp(at), value, quality };
        [
            point(1_000, PointValue::Number(12.5), "good"),
            point(2_000, PointValue::Nothing(()), "timeout"),
        ]
    }

    fn written(form: Form, target: Option<&str>, series: &[&str]) -> String {
        let mut out = Vec::new();
        let mut sheet = Sheet::begin(&mut out, form, &head(target)).unwrap();
        for series in series {
            sheet.series(series).unwrap();
            points().into_iter().for_each(|point| sheet.point(point).unwrap());
        }
        sheet.end().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn json_written_piece_by_piece_is_the_body_written_at_once() {
        let all = || -> Vec<PointBody> {
            let body =
                |p: Point| PointBody { at: p.at.to_string(), value: p.value, quality: p.quality };
            points().into_iter().map(body).collect()
        };
        fn text(body: &impl serde::Serialize) -> String {
            serde_json::to_string(body).unwrap()
        }
        let mut body = one(&head(Some("pdu-a/7")), "pdu-a/7");
        body.points = all();
        assert_eq!(written(Form::Json, Some("pdu-a/7"), &["pdu-a/7"]), text(&body));
        let mut body = many(&head(None));
        assert_eq!(written(Form::Json, None, &[]), text(&body));
        for target in ["pdu-a/1", "pdu-a/2"] {
            body.series.push(OneBody { target: target.to_owned(), points: all() });
        }
        assert_eq!(written(Form::Json, None, &["pdu-a/1", "pdu-a/2"]), text(&body));
    }

    #[test]
    fn csv_has_a_line_a_point_and_names_the_target_where_there_are_several() {
        assert_eq!(
            written(Form::Csv, Some("pdu-a/7"), &["pdu-a/7"]).lines().collect::<Vec<_>>(),
            [
                "at,power_w,quality",
                "1970-01-01T00:00:01.000Z,12.5,good",
                "1970-01-01T00:00:02.000Z,,timeout"
            ]
        );
        let many = written(Form::Csv, None, &["pdu-a/1", "pdu-a/2"]);
        let lines: Vec<&str> = many.lines().collect();
        assert_eq!((lines.len(), lines[0]), (5, "target,at,power_w,quality"));
        assert_eq!(lines[3], "pdu-a/2,1970-01-01T00:00:01.000Z,12.5,good");
    }

    #[test]
    fn accept_chooses_the_form() {
        let wanted =
            |accept: &str| Form::wanted(&HeaderMap::from_iter([(ACCEPT, accept.parse().unwrap())]));
        assert_eq!(wanted("*/*"), Form::Json);
        assert_eq!(wanted("text/csv"), Form::Csv);
        assert_eq!(wanted("application/vnd.apache.arrow.stream"), Form::Arrow);
    }
}
