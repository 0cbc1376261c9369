//! `cmiot-proxy audit export`: a month as CSV, JSON lines or Parquet, with a manifest of its rows, columns and hash.
//!
//! Both are written under temporary names; the export gets its name last, so that it never exists without its manifest.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::ValueEnum;
use cmiot_proxy::audit::render;
use cmiot_proxy::clock::Clock;
use cmiot_proxy::store::StoreError;
use cmiot_proxy::store::atomic_file::{self, AtomicFile, Existing};
use cmiot_proxy::store::audit::month::{self, Month};
use cmiot_proxy::store::audit::query::{self, Field, LOOKUP};
use ring::digest::{Context as Digest, SHA256};

use super::{Folder, time_args, verify};

/// Export a month's lookups, with a manifest (FILE.manifest.json: rows, first and last, SHA-256).
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  cmiot-proxy audit export --dir data --month 2026-01 --format csv 2026-01.csv"
)]
pub(super) struct Export {
    #[command(flatten)]
    folder: Folder,
    /// Month, such as 2026-01
    #[arg(long, value_parser = time_args::month)]
    month: Month,
    /// Output format
    #[arg(long, value_enum, default_value = "csv")]
    format: Format,
    /// File to write; it must not exist
    file: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// CSV (RFC 4180), a header line first
    Csv,
    /// One JSON object per line
    Json,
    /// Apache Parquet, typed columns
    #[cfg(feature = "parquet")]
    Parquet,
}

/// A file and the hash of its content.
struct Hashed {
    file: BufWriter<File>,
    digest: Digest,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.digest.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// The writer of a format.
enum Sink {
    Csv(Hashed),
    Json(Hashed),
    #[cfg(feature = "parquet")]
    Parquet(Box<cmiot_proxy::audit::parquet::ParquetWriter<Hashed>>),
}

impl Sink {
    fn begin(format: Format, file: File) -> io::Result<Self> {
        let mut to = Hashed { file: BufWriter::new(file), digest: Digest::new(&SHA256) };
        Ok(match format {
            Format::Csv => {
                writeln!(to, "{}", render::csv_head(LOOKUP))?;
                Self::Csv(to)
            }
            Format::Json => Self::Json(to),
            #[cfg(feature = "parquet")]
            Format::Parquet => {
                Self::Parquet(Box::new(cmiot_proxy::audit::parquet::ParquetWriter::begin(to)?))
            }
        })
    }

    fn add(&mut self, row: &[Field]) -> io::Result<()> {
        match self {
            Self::Csv(to) => writeln!(to, "{}", render::csv_line(row)),
            Self::Json(to) => writeln!(to, "{}", render::json_line(LOOKUP, row)),
            #[cfg(feature = "parquet")]
            Self::Parquet(sheet) => sheet.add(row),
        }
    }

    /// Writes the rest and syncs; returns the hash of the file in hex.
    fn finish(self) -> io::Result<String> {
        let Hashed { file, digest } = match self {
            Self::Csv(to) | Self::Json(to) => to,
            #[cfg(feature = "parquet")]
            Self::Parquet(sheet) => sheet.finish()?,
        };
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        Ok(digest.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

impl Export {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let dir = self.folder.with_segments()?;
        let name = self.file.display().to_string();
        let named = || name.clone();
        if self.file.exists() {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists)).with_context(named);
        }
        month::of_month(&dir, self.month)?;
        // Contains card numbers: readable by its owner only.
        let file = AtomicFile::create(&self.file, 0o600).with_context(named)?;
        let mut sink =
            file.file().try_clone().and_then(|file| Sink::begin(self.format, file)).with_context(named)?;
        let bar = verify::bar();
        let (mut rows, mut first, mut last) = (0_u64, None, None);
        let started = Clock::system().now();
        query::export_rows(&dir, self.month, |count, row| -> Result<(), Stopped> {
            sink.add(row)?;
            let id = query::id(row);
            first = first.or(id);
            last = id.or(last);
            rows += 1;
            if rows.is_multiple_of(10_000) {
                bar.set_length(count);
                bar.set_position(rows);
            }
            Ok(())
        })
        .map_err(|stopped| match stopped {
            Stopped::Store(error) => anyhow::Error::new(error),
            Stopped::Io(error) => anyhow::Error::new(error).context(name.clone()),
        })?;
        bar.finish_and_clear();
        let hash = sink.finish().with_context(named)?;
        let columns: Vec<&str> = LOOKUP.iter().map(|column| column.name).collect();
        let manifest = serde_json::json!({
            "month": self.month.to_string(), "exported": started.to_string(), "rows": rows,
            "first": first, "last": last, "columns": columns, "sha256": hash,
        });
        let beside = self.file.with_added_extension("manifest.json");
        // A manifest without an export was left by an interrupted command.
        atomic_file::write(&beside, format!("{manifest:#}\n").as_bytes(), 0o600, Existing::Replace)
            .with_context(|| beside.display().to_string())?;
        file.finish(Existing::Keep).with_context(named)?;
        out!("{rows} lookups, SHA-256 {hash}");
        Ok(ExitCode::SUCCESS)
    }
}

/// The reason for an incomplete export.
enum Stopped {
    Store(StoreError),
    Io(io::Error),
}

impl From<StoreError> for Stopped {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}
