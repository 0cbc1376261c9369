//! `admin.token` in the store's folder: the token of the admin listener where the configuration names none.
//!
//! 32 hex digits, readable for the folder's owner alone. The proxy makes it at its first start; the commands read it
//! there.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use super::error::{self, ConfigError, Location};
use super::reader::{Contents, refuse_others};
use crate::language::{Text, text};
use crate::plain_file;
use crate::units::Secret;

/// Its name.
pub const FILE: &str = "admin.token";

/// The hex digits of a token that the proxy makes.
const LENGTH: usize = 32;

/// The problem of a token that has not the form of one.
pub(super) fn form() -> Text {
    text!(
        "needs at least 16 printable ASCII characters without blanks",
        "需要至少 16 个可打印的 ASCII 字符，不含空格"
    )
}

/// A token from the bytes of its file.
pub(super) fn parse(bytes: &[u8]) -> Option<Secret> {
    let text = std::str::from_utf8(bytes).ok()?;
    (text.len() >= 16 && text.bytes().all(|b| b.is_ascii_graphic())).then(|| Secret::new(text))
}

/// The token of a store's folder; none where none was made.
///
/// # Errors
/// [`ConfigError`] with the file and the remedy.
pub fn read(dir: &Path) -> Result<Option<Secret>, ConfigError> {
    let path = dir.join(FILE);
    let wrong = |problem: Text| ConfigError::of_file(&path, problem);
    let found = match fs::symlink_metadata(&path) {
        Ok(found) => found,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(wrong(error::cannot_be_read(&e))),
    };
    if !found.is_file() {
        let error = wrong(text!("is not a plain file", "不是普通文件"));
        return Err(
            error.remedy(text!("remove it, and the proxy makes a new one", "请删除它，代理会生成新的文件"))
        );
    }
    refuse_others(&path, &found, Contents::Secret).map_err(|e| e.at(Location::file(&path)))?;
    let bytes = Zeroizing::new(plain_file::read(&path).map_err(|e| wrong(error::cannot_be_read(&e)))?);
    let token = parse(bytes.trim_ascii_end());
    // One that was cut off may be long enough for a configured token, and easier to guess than the one that was made.
    let is_cut_off = |text: &[u8]| text.len() < LENGTH && text.iter().all(u8::is_ascii_hexdigit);
    token.filter(|_| !is_cut_off(bytes.trim_ascii_end())).map(Some).ok_or_else(|| {
        let Text { english, chinese } = form();
        let problem = Text {
            english: format!(
                "holds no whole token: the proxy makes one of {LENGTH} hex digits; another {english}"
            ),
            chinese: format!("没有完整的令牌：代理生成的令牌为 {LENGTH} 位十六进制数字；其他令牌{chinese}"),
        };
        wrong(problem).remedy(text!(
            "remove it, and the proxy makes a new one at its next start",
            "请删除它，代理会在下次启动时生成新的令牌"
        ))
    })
}

/// The token of a store's folder, which is made where there is none; says whether it was.
///
/// # Errors
/// [`ConfigError`] with the file and the remedy.
pub fn read_or_make(dir: &Path) -> Result<(Secret, bool), ConfigError> {
    if let Some(token) = read(dir)? {
        return Ok((token, false));
    }
    let path = dir.join(FILE);
    let wrong = |e: io::Error| ConfigError::of_file(&path, error::cannot_be_written(&e));
    let mut bytes = Zeroizing::new([0; LENGTH / 2]);
    SystemRandom::new().fill(bytes.as_mut()).map_err(|_| wrong(io::Error::other("no random numbers")))?;
    let text = Zeroizing::new(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    // Written next to it and renamed, so that a crash never leaves half a token.
    let temporary = dir.join(format!("{FILE}.new"));
    let _ = fs::remove_file(&temporary); // of a start that was cut off
    let owner = fs::metadata(dir).map_err(wrong)?.uid();
    let mut options = OpenOptions::new();
    let made = options.write(true).create_new(true).mode(0o600).open(&temporary).and_then(|mut file| {
        if file.metadata()?.uid() != owner {
            std::os::unix::fs::fchown(&file, Some(owner), None)?;
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        fs::File::open(dir)?.sync_all()
    });
    made.map_err(wrong)?;
    Ok((Secret::new(&text), true))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_is_made_once_for_the_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(dir.path()).unwrap().is_none());
        let (made, new) = read_or_make(dir.path()).unwrap();
        assert!(new && made.expose().len() == 32 && made.expose().iter().all(u8::is_ascii_hexdigit));
        let path = dir.path().join(FILE);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(read_or_make(dir.path()).unwrap(), (made, false));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no other file is left");
    }

    #[test]
    fn one_that_others_can_read_a_link_and_a_short_one_are_refused_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        fs::write(&path, "0123456789abcdef0123456789abcdef").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(read(dir.path()).unwrap_err().to_string().contains("chmod o= "));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(read(dir.path()).unwrap().is_some());
        for cut_off in ["", "short", "0123456789abcdef", "0123456789abcdef0123456789abcde"] {
            fs::write(&path, cut_off).unwrap();
            let error = read(dir.path()).unwrap_err().to_string();
            for part in [FILE, "no whole token", "remove it"] {
                assert!(error.contains(part), "{cut_off}: {error}");
            }
        }
        fs::write(&path, "an-operators-own-token").unwrap();
        assert!(read(dir.path()).unwrap().is_some());
        fs::rename(&path, dir.path().join("elsewhere")).unwrap();
        std::os::unix::fs::symlink("elsewhere", &path).unwrap();
        assert!(read_or_make(dir.path()).unwrap_err().to_string().contains("not a plain file"));
    }
}
