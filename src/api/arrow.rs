//! Readings as an Arrow IPC stream, which `pyarrow`, pandas, Polars, DuckDB and R read: the columns of the CSV, in
//! batches. A stream that broke off has no end mark.

use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;

use arrow_array::builder::{Float64Builder, StringBuilder, TimestampMillisecondBuilder};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef, TimeUnit};

use crate::model::time::Stamp;
use crate::wire::series::PointValue;

use super::sheet::Head;
use super::stream::{Stopped, internal};

/// Rows in one batch, some 200 KB of memory.
const BATCH: usize = 4_096;
const UTC: &str = "UTC";

/// A table that is being written.
pub struct Table<W: Write> {
    out: StreamWriter<W>,
    schema: SchemaRef,
    /// The target of the rows that follow, where there are several.
    of: Option<String>,
    targets: StringBuilder,
    at: TimestampMillisecondBuilder,
    values: Values,
    quality: StringBuilder,
    rows: usize,
}

enum Values {
    Numbers(Float64Builder),
    Words(StringBuilder),
}

fn failed(error: ArrowError) -> Stopped {
    match error {
        ArrowError::IoError(_, error) => error.into(),
        error => internal(&error).into(),
    }
}

impl<W: Write> Table<W> {
    /// Begins a table: its schema says what the JSON's head says.
    pub fn begin(out: W, head: &Head) -> Result<Self, Stopped> {
        let is_number = head.metric.unit().is_some();
        let kind = if is_number { DataType::Float64 } else { DataType::Utf8 };
        let time = DataType::Timestamp(TimeUnit::Millisecond, Some(UTC.into()));
        let mut fields = vec![
            Field::new("at", time, false),
            Field::new(head.metric.key(), kind, true),
            Field::new("quality", DataType::Utf8, false),
        ];
        if head.target.is_none() {
            fields.insert(0, Field::new("target", DataType::Utf8, false));
        }
        let schema = Arc::new(Schema::new_with_metadata(fields, metadata(head)));
        let values = if is_number {
            Values::Numbers(Float64Builder::new())
        } else {
            Values::Words(StringBuilder::new())
        };
        Ok(Self {
            out: StreamWriter::try_new(out, &schema).map_err(failed)?,
            schema,
            of: head.target.is_none().then(String::new),
            targets: StringBuilder::new(),
            at: TimestampMillisecondBuilder::new().with_timezone(UTC),
            values,
            quality: StringBuilder::new(),
            rows: 0,
        })
    }

    /// The rows that follow are of this target.
    pub fn series(&mut self, target: &str) {
        if let Some(of) = &mut self.of {
            target.clone_into(of);
        }
    }

    /// The next row.
    pub fn point(
        &mut self,
        at: Stamp,
        value: &PointValue,
        quality: &'static str,
    ) -> Result<(), Stopped> {
        if let Some(of) = &self.of {
            self.targets.append_value(of);
        }
        self.at.append_value(at.0);
        match (&mut self.values, value) {
            (Values::Numbers(numbers), PointValue::Number(number)) => numbers.append_value(*number),
            (Values::Words(words), PointValue::Word(word)) => words.append_value(word),
            (Values::Numbers(numbers), _) => numbers.append_null(),
            (Values::Words(words), _) => words.append_null(),
        }
        self.quality.append_value(quality);
        self.rows += 1;
        if self.rows == BATCH { self.batch() } else { Ok(()) }
    }

    fn batch(&mut self) -> Result<(), Stopped> {
        let values: ArrayRef = match &mut self.values {
            Values::Numbers(numbers) => Arc::new(numbers.finish()),
            Values::Words(words) => Arc::new(words.finish()),
        };
        let mut columns: Vec<ArrayRef> =
            vec![Arc::new(self.at.finish()), values, Arc::new(self.quality.finish())];
        if self.of.is_some() {
            columns.insert(0, Arc::new(self.targets.finish()));
        }
        self.rows = 0;
        let batch = RecordBatch::try_new(self.schema.clone(), columns).map_err(failed)?;
        self.out.write(&batch).map_err(failed)
    }

    /// Writes what is left, and the end mark.
    pub fn end(mut self) -> Result<(), Stopped> {
        if self.rows > 0 {
            self.batch()?;
        }
        self.out.finish().map_err(failed)
    }
}

fn metadata(head: &Head) -> HashMap<String, String> {
    let mut about = vec![
        ("metric", head.metric.key().to_owned()),
        ("start", head.start.to_string()),
        ("end", head.end.to_string()),
    ];
    about.extend(head.target.clone().map(|target| ("target", target)));
    if let Some((step, how)) = head.step {
        about.extend([("step_ms", step.0.to_string()), ("agg", how.word().to_owned())]);
    }
    if let Some((fold, by)) = head.fold {
        about.extend([("fold", fold.to_owned()), ("by", by.to_owned())]);
    }
    about.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}
