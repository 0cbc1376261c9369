//! `cmiot-proxy audit export`: a month as CSV, JSON lines or Parquet, with a manifest of its rows, columns and hash.
//!
//! The lookups, the carrier calls and the manifest are written under temporary names; the file of the lookups gets its name
//! last, so that it never exists without the others.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::ValueEnum;
use cmiot_proxy::audit::render;
use cmiot_proxy::clock::Clock;
use cmiot_proxy::store::StoreError;
use cmiot_proxy::store::atomic_file::{self, AtomicFile, Existing};
use cmiot_proxy::store::audit::month::Month;
use cmiot_proxy::store::audit::query::{self, Exported, Field, ViewColumn};
use ring::digest::{Context as Digest, SHA256};

use super::{Folder, time_args, verify};

/// Export a month's lookups and carrier calls, with a manifest.
///
/// FILE has the lookups, FILE.calls the carrier calls, both in one state of the segment. FILE.manifest.json has the number
/// of rows, the first and the last, the columns and the SHA-256 of each, and the last row and the head of the chain:
/// `audit verify` and the anchors show whether that head is the chain's.
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
    fn begin(format: Format, columns: &[ViewColumn], file: File) -> io::Result<Self> {
        let mut to = Hashed { file: BufWriter::new(file), digest: Digest::new(&SHA256) };
        Ok(match format {
            Format::Csv => {
                writeln!(to, "{}", render::csv_head(columns))?;
                Self::Csv(to)
            }
            Format::Json => Self::Json(to),
            #[cfg(feature = "parquet")]
            Format::Parquet => {
                Self::Parquet(Box::new(cmiot_proxy::audit::parquet::ParquetWriter::begin(to, columns)?))
            }
        })
    }

    fn add(&mut self, columns: &[ViewColumn], row: &[Field]) -> io::Result<()> {
        match self {
            Self::Csv(to) => writeln!(to, "{}", render::csv_line(row)),
            Self::Json(to) => writeln!(to, "{}", render::json_line(columns, row)),
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

/// A file with all its rows, under its temporary name.
struct Written {
    file: AtomicFile,
    rows: u64,
    first: Option<i64>,
    last: Option<i64>,
    columns: Vec<&'static str>,
    hash: String,
}

/// Writes the rows of one kind.
fn write(from: &query::Export, what: Exported, format: Format, path: &Path) -> anyhow::Result<Written> {
    let name = path.display().to_string();
    let named = || name.clone();
    // Contains card numbers: readable by its owner only.
    let file = AtomicFile::create(path, 0o600).with_context(named)?;
    let columns = what.columns();
    let mut sink =
        file.file().try_clone().and_then(|file| Sink::begin(format, columns, file)).with_context(named)?;
    let bar = verify::bar();
    let (mut rows, mut first, mut last) = (0_u64, None, None);
    from.rows(what, |count, row| -> Result<(), Stopped> {
        sink.add(columns, row)?;
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
    Ok(Written { file, rows, first, last, columns: columns.iter().map(|column| column.name).collect(), hash })
}

impl Export {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let dir = self.folder.with_segments()?;
        let named = || self.file.display().to_string();
        if self.file.exists() {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists)).with_context(named);
        }
        let from = query::Export::open(&dir, self.month)?;
        let started = Clock::system().now();
        let lookups = write(&from, Exported::Lookups, self.format, &self.file)?;
        let calls_path = self.file.with_added_extension("calls");
        let calls = write(&from, Exported::Calls, self.format, &calls_path)?;
        let head =
            from.head()?.map(|(last, head)| serde_json::json!({ "last": last, "head": head.to_string() }));
        let manifest = serde_json::json!({
            "month": self.month.to_string(), "exported": started.to_string(), "rows": lookups.rows,
            "first": lookups.first, "last": lookups.last, "columns": lookups.columns, "sha256": lookups.hash,
            "calls": {
                "file": calls_path.file_name().map(|name| name.to_string_lossy()), "rows": calls.rows,
                "first": calls.first, "last": calls.last, "columns": calls.columns, "sha256": calls.hash,
            },
            "chain": head,
        });
        let beside = self.file.with_added_extension("manifest.json");
        // Files without that of the lookups were left by an interrupted command.
        calls.file.finish(Existing::Replace).with_context(|| calls_path.display().to_string())?;
        atomic_file::write(&beside, format!("{manifest:#}\n").as_bytes(), 0o600, Existing::Replace)
            .with_context(|| beside.display().to_string())?;
        lookups.file.finish(Existing::Keep).with_context(named)?;
        let (month, file) = (self.month, self.file.display());
        super::super::acts::note(
            &dir,
            "export",
            &format!("month={month} sha256={} file={file}", lookups.hash),
        );
        let (rows, hash) = (lookups.rows, lookups.hash);
        say!("{rows} lookups, SHA-256 {hash}", "{rows} 次查询，SHA-256 {hash}");
        let (rows, hash) = (calls.rows, calls.hash);
        say!("{rows} carrier calls, SHA-256 {hash}", "{rows} 次运营商调用，SHA-256 {hash}");
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
