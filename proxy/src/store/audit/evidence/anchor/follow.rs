//! The anchors of a folder that were written since the last look.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::{Anchor, LOG};
use crate::store::StoreError;

/// `anchors.log`, and the place up to which it is read.
#[derive(Clone, Debug)]
pub(crate) struct AnchorLog {
    path: PathBuf,
    offset: u64,
}

impl AnchorLog {
    /// The log of a folder, from its begin on.
    pub(crate) fn of(dir: &Path) -> Self {
        Self { path: dir.join(LOG), offset: 0 }
    }

    /// The next anchors, at most `most`, and the place after them, for [`Self::go_to`]. Lines that are no anchor are skipped,
    /// and a torn last line waits for its end.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn next(&self, most: usize) -> Result<(Vec<Anchor>, u64), StoreError> {
        let io = StoreError::io(&self.path);
        let mut file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), 0)),
            file => file.map_err(io)?,
        };
        // A shorter file is another one: it is read from its begin.
        let length = file.metadata().map_err(io)?.len();
        let mut offset = if length < self.offset { 0 } else { self.offset };
        file.seek(SeekFrom::Start(offset)).map_err(io)?;
        let (mut file, mut found, mut line) = (BufReader::new(file), Vec::new(), Vec::new());
        while found.len() < most {
            line.clear();
            let read = file.read_until(b'\n', &mut line).map_err(io)?;
            if !line.ends_with(b"\n") {
                break;
            }
            offset += read as u64;
            let anchor = serde_json::from_slice::<Anchor>(&line).ok();
            found.extend(anchor.filter(Anchor::is_well_formed));
        }
        Ok((found, offset))
    }

    /// Goes to a place that [`Self::next`] returned.
    pub(crate) fn go_to(&mut self, offset: u64) {
        self.offset = offset;
    }

    /// Goes behind an anchor, if the log has it; else to its begin.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn go_behind(&mut self, at: i64, segment: &str, last: i64) -> Result<(), StoreError> {
        self.offset = 0;
        loop {
            let (found, offset) = self.next(1)?;
            let Some(anchor) = found.first() else { break };
            self.offset = offset;
            if (anchor.at, anchor.segment.as_str(), anchor.last) == (at, segment, last) {
                return Ok(());
            }
        }
        self.offset = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn line(last: i64) -> String {
        let anchor = Anchor {
            at: last,
            time: "2026-01-15T12:00:00.000+08:00".into(),
            segment: "2026-01".into(),
            last,
            head: "0".repeat(64),
            signature: "a".repeat(128),
        };
        format!("{}\n", serde_json::to_string(&anchor).unwrap())
    }

    fn rows(log: &mut AnchorLog) -> Vec<i64> {
        let (found, offset) = log.next(100).unwrap();
        log.go_to(offset);
        found.iter().map(|anchor| anchor.last).collect()
    }

    #[test]
    fn each_anchor_is_read_once_and_a_torn_one_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = AnchorLog::of(dir.path());
        assert_eq!(rows(&mut log), [0; 0], "without a file");
        let mut file = File::create(dir.path().join(LOG)).unwrap();
        write!(file, "{}other\n{}", line(1), line(2)).unwrap();
        assert_eq!(rows(&mut log), [1, 2]);
        let third = line(3);
        write!(file, "{}", &third[..20]).unwrap();
        assert_eq!(rows(&mut log), [0; 0]);
        write!(file, "{}", &third[20..]).unwrap();
        assert_eq!(rows(&mut log), [3]);
        log.go_behind(2, "2026-01", 2).unwrap();
        assert_eq!(rows(&mut log), [3]);
        log.go_behind(9, "2026-01", 9).unwrap();
        assert_eq!(rows(&mut log), [1, 2, 3], "one that is not there: from the begin on");
        std::fs::write(dir.path().join(LOG), line(4)).unwrap();
        assert_eq!(rows(&mut log), [4], "another file");
    }
}
