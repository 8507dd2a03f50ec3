//! The shared daemon's socket: whether it may be trusted, and who is behind it.
//!
//! Whoever answers here sees every prompt, so the socket, its folder and the process behind it must belong
//! to this user, and nobody else may be able to reach or replace them.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use tokio::net::UnixStream;

/// Where the daemon listens below Codex's home.
const SOCKET: &str = "app-server-control/app-server-control.sock";

/// Why the daemon is not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// Nobody listens there.
    #[error("no daemon is listening")]
    Absent,
    /// Somebody could be listening who must not.
    #[error("the daemon's socket is not safe: {0}")]
    Unsafe(&'static str),
    /// The socket cannot be looked at or opened.
    #[error("open the daemon's socket")]
    Io(#[source] io::Error),
}

/// A connected socket.
pub(super) struct Attached {
    /// The connection.
    pub(super) stream: UnixStream,
    /// The process behind it, where the system tells.
    pub(super) pid: Option<u32>,
}

/// The socket below that home.
pub(super) fn path(codex_home: &Path) -> PathBuf {
    codex_home.join(SOCKET)
}

/// Connects, after checking the socket that the path leads to, its folder and its peer.
pub(super) async fn attach(path: &Path) -> Result<Attached, Error> {
    let user = rustix::process::geteuid().as_raw();
    let resolved = std::fs::canonicalize(path).map_err(absent_or_io)?;
    check(&resolved, user)?;
    let stream = UnixStream::connect(&resolved).await.map_err(absent_or_io)?;
    let peer = stream.peer_cred().map_err(Error::Io)?;
    if peer.uid() != user {
        return Err(Error::Unsafe("another user listens"));
    }
    let pid = peer.pid().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0);
    Ok(Attached { stream, pid })
}

fn check(socket: &Path, user: u32) -> Result<(), Error> {
    let metadata = std::fs::symlink_metadata(socket).map_err(absent_or_io)?;
    if !metadata.file_type().is_socket() {
        return Err(Error::Unsafe("it is not a socket"));
    }
    if metadata.uid() != user {
        return Err(Error::Unsafe("the socket belongs to another user"));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(Error::Unsafe("others may connect to the socket"));
    }
    let folder = socket.parent().ok_or(Error::Unsafe("the socket has no folder"))?;
    let metadata = std::fs::symlink_metadata(folder).map_err(absent_or_io)?;
    if metadata.uid() != user {
        return Err(Error::Unsafe("the socket's folder belongs to another user"));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(Error::Unsafe("others may write to the socket's folder"));
    }
    Ok(())
}

fn absent_or_io(error: io::Error) -> Error {
    let absent = [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused];
    if absent.contains(&error.kind()) { Error::Absent } else { Error::Io(error) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use tokio::net::UnixListener;

    use super::*;

    fn set_mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("set the mode");
    }

    fn listener() -> (tempfile::TempDir, PathBuf, UnixListener) {
        let folder = tempfile::tempdir().expect("a folder");
        set_mode(folder.path(), 0o700);
        let socket = folder.path().join("s");
        let listener = UnixListener::bind(&socket).expect("a listener");
        set_mode(&socket, 0o600);
        (folder, socket, listener)
    }

    #[tokio::test]
    async fn the_own_users_socket_is_used_and_names_its_process() {
        let (folder, socket, _listener) = listener();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&socket, &link).expect("a link");
        let attached = attach(&link).await.expect("safe");
        assert_eq!(attached.pid, Some(std::process::id()));
    }

    #[tokio::test]
    async fn a_socket_or_folder_that_others_may_write_is_refused() {
        let (folder, socket, _listener) = listener();
        set_mode(&socket, 0o666);
        assert!(matches!(attach(&socket).await, Err(Error::Unsafe(_))));
        set_mode(&socket, 0o600);
        set_mode(folder.path(), 0o777);
        assert!(matches!(attach(&socket).await, Err(Error::Unsafe(_))));
    }

    #[tokio::test]
    async fn a_plain_file_is_refused_and_a_missing_or_dead_socket_is_absent() {
        let (folder, socket, listener) = listener();
        let file = folder.path().join("file");
        std::fs::write(&file, "").expect("a file");
        assert!(matches!(attach(&file).await, Err(Error::Unsafe(_))));
        assert!(matches!(attach(&folder.path().join("none")).await, Err(Error::Absent)));
        drop(listener);
        assert!(matches!(attach(&socket).await, Err(Error::Absent)));
    }
}
