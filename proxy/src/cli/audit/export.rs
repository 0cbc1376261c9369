//! `cmiot-proxy audit export`: a month as CSV or JSON lines, beside a manifest that says what the file must be.

use std::fs::OpenOptions;
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::ValueEnum;
use cmiot_proxy::audit::render;
use cmiot_proxy::clock::Clock;
use cmiot_proxy::store::StoreError;
use cmiot_proxy::store::audit::query::{Field, LOOKUP, every};
use cmiot_proxy::store::audit::segment::Month;
use ring::digest::{Context as Digest, SHA256};

use super::{Folder, span, verify};

/// Export a month's look-ups, with a manifest (FILE.manifest.json: rows, first and last, SHA-256).
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  cmiot-proxy audit export --dir data --month 2026-01 --format csv 2026-01.csv"
)]
pub(super) struct Export {
    #[command(flatten)]
    folder: Folder,
    /// The month, such as 2026-01
    #[arg(long, value_parser = span::month)]
    month: Month,
    /// In which form
    #[arg(long, value_enum, default_value = "csv")]
    format: Format,
    /// The file to write, which must not exist
    file: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// RFC 4180, a line of names first
    Csv,
    /// One JSON object a line
    Json,
}

/// Writes lines and knows their hash.
struct Sink {
    file: BufWriter<std::fs::File>,
    digest: Digest,
}

impl Sink {
    fn line(&mut self, mut line: String) -> std::io::Result<()> {
        line.push('\n');
        self.digest.update(line.as_bytes());
        self.file.write_all(line.as_bytes())
    }
}

impl Export {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let dir = self.folder.path()?;
        let mut sink = Sink { file: BufWriter::new(create(&self.file)?), digest: Digest::new(&SHA256) };
        let bar = verify::bar();
        let (mut rows, mut first, mut last) = (0_u64, None, None);
        let started = Clock::system().now();
        if matches!(self.format, Format::Csv) {
            sink.line(render::csv_head(&LOOKUP))?;
        }
        every(&dir, self.month, |count, row| -> Result<(), Stopped> {
            let line = match self.format {
                Format::Csv => render::csv_line(row),
                Format::Json => render::json_line(&LOOKUP, row),
            };
            sink.line(line)?;
            if let Field::Int(id) = row[0] {
                first.get_or_insert(id);
                last = Some(id);
            }
            rows += 1;
            if rows.is_multiple_of(10_000) {
                bar.set_length(count);
                bar.set_position(rows);
            }
            Ok(())
        })
        .map_err(|stopped| match stopped {
            Stopped::Store(error) => anyhow::Error::new(error),
            Stopped::Io(error) => anyhow::Error::new(error).context(self.file.display().to_string()),
        })?;
        bar.finish_and_clear();
        let file = sink.file.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        file.sync_all()?;
        let hash: String = sink.digest.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let manifest = serde_json::json!({
            "month": self.month.to_string(), "exported": started.to_string(), "rows": rows,
            "first": first, "last": last, "columns": LOOKUP, "sha256": hash,
        });
        let beside = PathBuf::from(format!("{}.manifest.json", self.file.display()));
        create(&beside)?.write_all(format!("{manifest:#}\n").as_bytes())?;
        out!("{rows} look-ups, SHA-256 {hash}");
        Ok(ExitCode::SUCCESS)
    }
}

/// Why an export ended early.
enum Stopped {
    Store(StoreError),
    Io(std::io::Error),
}

impl From<StoreError> for Stopped {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<std::io::Error> for Stopped {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

/// Card numbers are in it: for its owner alone.
fn create(path: &Path) -> anyhow::Result<std::fs::File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| path.display().to_string())
}
