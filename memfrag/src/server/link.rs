//! The page's address with the token, where only the user can find it.

use super::listen::Listening;
use super::token::Token;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The address that opens the page. What follows `#` is not sent by browsers.
pub fn url(listening: &Listening, token: &Token) -> String {
    format!("{}#token={}", listening.url(), token.reveal())
}

/// A file with the address, for programs of the same user. It goes with this.
#[derive(Debug)]
pub struct LinkFile(PathBuf);

impl LinkFile {
    /// Writes `memfrag-PORT.url` into the user's runtime directory; `None` when the user has none.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(port: u16, url: &str) -> io::Result<Option<Self>> {
        let variable = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        // SAFETY: takes no pointers.
        let uid = unsafe { libc::geteuid() };
        let usual = PathBuf::from(format!("/run/user/{uid}"));
        // Under sudo the variable may be another user's.
        let Some(folder) = variable.into_iter().chain([usual]).find(|folder| is_private(folder, uid)) else {
            return Ok(None);
        };
        Self::write_in(&folder, port, url).map(Some)
    }

    fn write_in(folder: &Path, port: u16, url: &str) -> io::Result<Self> {
        let path = folder.join(format!("memfrag-{port}.url"));
        // One left over from a server that was killed: nobody else listens on that port.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        writeln!(file, "{url}")?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for LinkFile {
    fn drop(&mut self) {
        // Without it nothing is worse: the token has ended with the server.
        let _ = fs::remove_file(&self.0);
    }
}

/// Whether a folder is the user's and nobody else can enter it.
fn is_private(folder: &Path, uid: u32) -> bool {
    /// Permissions of the group and of others.
    const OTHERS: u32 = 0o77;
    let alone = |about: fs::Metadata| about.is_dir() && about.uid() == uid && about.mode() & OTHERS == 0;
    folder.is_absolute() && fs::symlink_metadata(folder).is_ok_and(alone)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn only_the_user_can_read_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("memfrag-7170.url");
        // What lies in the way is replaced and not written through.
        let elsewhere = folder.path().join("elsewhere");
        fs::write(&elsewhere, "kept").unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        let link = LinkFile::write_in(folder.path(), 7170, "http://127.0.0.1:7170/#token=0").unwrap();
        assert_eq!(link.path(), path);
        assert_eq!(fs::read_to_string(&path).unwrap(), "http://127.0.0.1:7170/#token=0\n");
        assert_eq!(fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "kept");
        drop(link);
        assert!(!path.exists());
    }

    #[test]
    fn only_folders_of_the_user_alone_will_do() {
        let folder = tempfile::tempdir().unwrap();
        let uid = fs::metadata(folder.path()).unwrap().uid();
        let allow = |mode| fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
        allow(0o700);
        assert!(is_private(folder.path(), uid) && !is_private(folder.path(), uid + 1));
        allow(0o755);
        assert!(!is_private(folder.path(), uid));
        assert!(!is_private(Path::new("relative"), uid) && !is_private(Path::new("/nowhere"), uid));
    }
}
