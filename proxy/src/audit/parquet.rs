//! Lookups and carrier calls as Parquet, for many queries of one month: typed columns, compressed, a few megabytes in memory.
//!
//! The columns are those of the other exports; `time` is a timestamp in milliseconds, `authenticated` a boolean. Only `id`
//! is never null.

use std::io::{self, Write};
use std::sync::Arc;

use jiff::Timestamp;
use parquet::basic::Compression;
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use crate::store::audit::query::{Field, ViewColumn, ViewKind};

/// Rows per row group. Memory holds one group: some 30 MiB at most.
const ROW_GROUP: usize = 65_536;

/// Writes rows into a file.
pub struct ParquetWriter<W: Write + Send> {
    file: SerializedFileWriter<W>,
    columns: Vec<Column>,
    rows: usize,
}

/// The values of a column in a group, without its nulls.
struct Column {
    values: Values,
    /// 1 where there is a value; not kept for the column that has no nulls.
    def_levels: Vec<i16>,
}

enum Values {
    Ints(Vec<i64>),
    Flags(Vec<bool>),
    Reals(Vec<f64>),
    Texts(Vec<ByteArray>),
}

impl<W: Write + Send> ParquetWriter<W> {
    /// Begins a file of rows with these columns.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn begin(to: W, shown: &[ViewColumn]) -> io::Result<Self> {
        let fields = shown.iter().map(|&ViewColumn { name, kind, .. }| match kind {
            ViewKind::Id => format!("REQUIRED INT64 {name};"),
            ViewKind::Number => format!("OPTIONAL INT64 {name};"),
            ViewKind::Time => format!("OPTIONAL INT64 {name} (TIMESTAMP(MILLIS,true));"),
            ViewKind::Flag => format!("OPTIONAL BOOLEAN {name};"),
            ViewKind::Real => format!("OPTIONAL DOUBLE {name};"),
            ViewKind::Text => format!("OPTIONAL BYTE_ARRAY {name} (UTF8);"),
        });
        let schema = parse_message_type(&format!("message look_up {{ {} }}", fields.collect::<String>()));
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let file = SerializedFileWriter::new(to, Arc::new(schema.map_err(other)?), Arc::new(properties));
        let columns = shown.iter().map(|column| Column {
            values: match column.kind {
                ViewKind::Id | ViewKind::Number | ViewKind::Time => Values::Ints(Vec::new()),
                ViewKind::Flag => Values::Flags(Vec::new()),
                ViewKind::Real => Values::Reals(Vec::new()),
                ViewKind::Text => Values::Texts(Vec::new()),
            },
            def_levels: Vec::new(),
        });
        Ok(Self { file: file.map_err(other)?, columns: columns.collect(), rows: 0 })
    }

    /// Adds a row, its fields in the order of the columns.
    ///
    /// # Errors
    /// When a full group cannot be written, or a field has another type than its column.
    pub fn add(&mut self, row: &[Field]) -> io::Result<()> {
        for (column, field) in self.columns.iter_mut().zip(row) {
            column.add(field)?;
        }
        self.rows += 1;
        if self.rows == ROW_GROUP { self.write_group() } else { Ok(()) }
    }

    /// Writes the rest and returns the writer.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self) -> io::Result<W> {
        if self.rows > 0 {
            self.write_group()?;
        }
        self.file.into_inner().map_err(other)
    }

    fn write_group(&mut self) -> io::Result<()> {
        let mut write = || -> Result<(), ParquetError> {
            let mut group = self.file.next_row_group()?;
            for Column { values, def_levels: present } in &mut self.columns {
                let Some(mut column) = group.next_column()? else { break };
                // A REQUIRED column takes no levels.
                let levels = |required: bool| (!required).then_some(present.as_slice());
                match (values, column.untyped()) {
                    (Values::Ints(values), ColumnWriter::Int64ColumnWriter(to)) => {
                        let required = to.get_descriptor().max_def_level() == 0;
                        to.write_batch(values, levels(required), None)?;
                        values.clear();
                    }
                    (Values::Flags(values), ColumnWriter::BoolColumnWriter(to)) => {
                        to.write_batch(values, levels(false), None)?;
                        values.clear();
                    }
                    (Values::Reals(values), ColumnWriter::DoubleColumnWriter(to)) => {
                        to.write_batch(values, levels(false), None)?;
                        values.clear();
                    }
                    (Values::Texts(values), ColumnWriter::ByteArrayColumnWriter(to)) => {
                        to.write_batch(values, levels(false), None)?;
                        values.clear();
                    }
                    _ => return Err(ParquetError::General("a column of another type".to_owned())),
                }
                present.clear();
                column.close()?;
            }
            group.close().map(|_| ())
        };
        write().map_err(other)?;
        self.rows = 0;
        Ok(())
    }
}

impl Column {
    fn add(&mut self, field: &Field) -> io::Result<()> {
        match (&mut self.values, field) {
            (_, Field::Null) => {
                self.def_levels.push(0);
                return Ok(());
            }
            (Values::Ints(values), Field::Int(number)) => values.push(*number),
            (Values::Ints(values), Field::Text(time)) => {
                let time: Timestamp = time.parse().map_err(io::Error::other)?;
                values.push(time.as_millisecond());
            }
            (Values::Flags(values), Field::Int(flag)) => values.push(*flag != 0),
            (Values::Reals(values), Field::Real(number)) => values.push(*number),
            (Values::Texts(values), Field::Text(text)) => values.push(ByteArray::from(text.as_str())),
            (_, field) => return Err(io::Error::other(format!("{field:?} in a column of another type"))),
        }
        self.def_levels.push(1);
        Ok(())
    }
}

fn other(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(cause) => match cause.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(cause) => io::Error::other(cause),
        },
        error => io::Error::other(error),
    }
}

#[cfg(test)]
mod tests {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::Field as Cell;

    use super::*;
    use crate::store::audit::query::{CALL, LOOKUP};

    fn row(id: i64) -> Vec<Field> {
        let field = |column: &ViewColumn| match column.kind {
            ViewKind::Id => Field::Int(id),
            ViewKind::Number => Field::Int(7),
            ViewKind::Time => Field::Text("2026-01-15T12:00:00.007+08:00".into()),
            ViewKind::Flag => Field::Int(1),
            ViewKind::Real if column.name == "age_s" => Field::Null,
            ViewKind::Real => Field::Real(1.25),
            ViewKind::Text if column.name == "reason" && id % 2 == 0 => Field::Null,
            ViewKind::Text => Field::Text(format!("{} {}", column.name, id % 3)),
        };
        LOOKUP.iter().map(field).collect()
    }

    #[test]
    fn carrier_calls_are_written_too() {
        let mut writer = ParquetWriter::begin(Vec::new(), CALL).unwrap();
        let call: Vec<Field> = CALL
            .iter()
            .map(|column| match column.kind {
                ViewKind::Id | ViewKind::Number => Field::Int(1),
                ViewKind::Time => Field::Text("2026-01-15T12:00:00.007+08:00".into()),
                _ => Field::Null,
            })
            .collect();
        writer.add(&call).unwrap();
        let bytes = bytes::Bytes::from(writer.finish().unwrap());
        assert_eq!(SerializedFileReader::new(bytes).unwrap().metadata().file_metadata().num_rows(), 1);
    }

    #[test]
    fn what_was_added_is_read_back_over_the_end_of_a_group() {
        let rows = ROW_GROUP as i64 + 3;
        let mut writer = ParquetWriter::begin(Vec::new(), LOOKUP).unwrap();
        (0..rows).for_each(|id| writer.add(&row(id)).unwrap());
        let bytes = bytes::Bytes::from(writer.finish().unwrap());
        let reader = SerializedFileReader::new(bytes).unwrap();
        assert_eq!(reader.metadata().num_row_groups(), 2);
        for (id, read) in (0..).zip(reader.get_row_iter(None).unwrap()) {
            for ((name, cell), wrote) in read.unwrap().get_column_iter().zip(row(id)) {
                let same = match (cell, &wrote) {
                    (Cell::Null, Field::Null) => true,
                    (Cell::Long(number), Field::Int(wrote)) => number == wrote,
                    (Cell::Bool(flag), Field::Int(wrote)) => i64::from(*flag) == *wrote,
                    (Cell::Double(number), Field::Real(wrote)) => number == wrote,
                    (Cell::Str(text), Field::Text(wrote)) => text == wrote,
                    // 2026-01-15T12:00:00.007+08:00
                    (Cell::TimestampMillis(at), Field::Text(_)) => *at == 1_768_449_600_007,
                    _ => false,
                };
                assert!(same, "{id} {name}: {cell} and {wrote:?}");
            }
            assert!(id < rows);
        }
        assert_eq!(reader.metadata().file_metadata().num_rows(), rows);
    }

    #[test]
    fn a_field_of_another_type_is_an_error() {
        let mut writer = ParquetWriter::begin(Vec::new(), LOOKUP).unwrap();
        let mut wrong = row(1);
        wrong[2] = Field::Real(1.0);
        assert!(writer.add(&wrong).is_err());
    }
}
