//! The connector's own folder: who may read it, who holds it, and how a file in it is replaced.
//!
//! The folder is 0700 and its files are 0600; where others could read them, the connector refuses to go on
//! rather than to use a key that may be known. A file is replaced whole (written aside, synced, renamed), so a
//! crash leaves the old or the new one. One process at a time holds the folder's lock.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _};
use flydex_domain::error::ErrorCode;
use flydex_domain::limits::STATE_FILE_BYTES_MAX;
use rustix::fs::OFlags;
use zeroize::Zeroizing;

const LOCK_FILE: &str = "lock";
pub(crate) const MACHINE_KEY_FILE: &str = "machine-key.pem";

/// The folder that holds the machine key, what pairing gave, the device list and the journal.
#[derive(Clone, Debug)]
pub struct StateDir {
    path: PathBuf,
}

/// Held by the one process that runs on a state folder; let go when it is dropped or the process ends.
#[derive(Debug)]
pub struct InstanceLock {
    _file: File,
}

/// Why the folder, or a file in it, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Neither `FLYDEX_HOME`, `XDG_STATE_HOME` nor `HOME` is set.
    #[error("there is no home folder to keep state in")]
    NoHome,
    /// Someone else could read or replace it.
    #[error("{} can be read or changed by other users", path.display())]
    Exposed {
        /// The folder or file.
        path: PathBuf,
        /// What makes it private again.
        repair: String,
    },
    /// Not what it should be: no folder, no regular file, no key.
    #[error("{} is {what}", path.display())]
    Unexpected {
        /// The folder or file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Another process holds the folder.
    #[error("another flydex runs on {}", path.display())]
    AlreadyRunning {
        /// The folder.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("cannot {verb} {}", path.display())]
    Io {
        /// What was tried.
        verb: &'static str,
        /// The folder or file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl StateError {
    /// What a peer or a script is told.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::AlreadyRunning { .. } => ErrorCode::AlreadyRunning,
            Self::NoHome | Self::Exposed { .. } | Self::Unexpected { .. } | Self::Io { .. } => ErrorCode::StateUnusable,
        }
    }

    /// What the person at the desk can do about it.
    #[must_use]
    pub fn next_step(&self) -> String {
        match self {
            Self::NoHome => "set FLYDEX_HOME to a folder of your own".to_owned(),
            Self::Exposed { repair, .. } => format!("make it yours alone: {repair}"),
            Self::Unexpected { path, .. } => format!("move {} away and run flydex connect again", path.display()),
            Self::AlreadyRunning { .. } => "use flydex status, or stop the other flydex first".to_owned(),
            Self::Io { .. } => "check the disk and the folder's owner, then try again".to_owned(),
        }
    }
}

impl StateDir {
    /// Where state is kept by default: `$FLYDEX_HOME`, else `$XDG_STATE_HOME/flydex`, else
    /// `~/.local/state/flydex`. `variable` reads the environment.
    ///
    /// # Errors
    /// [`StateError::NoHome`] when none of them is set.
    pub fn default_path(variable: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf, StateError> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        set("FLYDEX_HOME")
            .or_else(|| set("XDG_STATE_HOME").map(|path| path.join("flydex")))
            .or_else(|| set("HOME").map(|path| path.join(".local/state/flydex")))
            .ok_or(StateError::NoHome)
    }

    /// Opens the folder, making it when it is missing.
    ///
    /// # Errors
    /// [`StateError`] when it cannot be made, is not ours, or others can enter it.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io_error("make", path))?;
        let metadata = fs::metadata(path).map_err(io_error("look at", path))?;
        if !metadata.is_dir() {
            return Err(StateError::Unexpected { path: path.to_owned(), what: "not a folder" });
        }
        check_private(path, &metadata, "700")?;
        let path = path.canonicalize().map_err(io_error("look at", path))?;
        Ok(Self { path })
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file in the folder.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Checks every file in the folder, whatever wrote it.
    ///
    /// # Errors
    /// [`StateError::Exposed`] for the first one that others can read or change.
    pub fn check_files(&self) -> Result<(), StateError> {
        let entries = fs::read_dir(&self.path).map_err(io_error("list", &self.path))?;
        for entry in entries {
            let path = entry.map_err(io_error("list", &self.path))?.path();
            match fs::symlink_metadata(&path) {
                // A link's own mode says nothing, and none of our files is ever reached through one.
                Ok(metadata) if metadata.is_symlink() => {}
                Ok(metadata) => check_private(&path, &metadata, if metadata.is_dir() { "700" } else { "600" })?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(io_error("look at", &path)(error)),
            }
        }
        Ok(())
    }

    /// Takes the folder for this process.
    ///
    /// # Errors
    /// [`StateError::AlreadyRunning`] when another process holds it.
    pub fn lock(&self) -> Result<InstanceLock, StateError> {
        let path = self.file(LOCK_FILE);
        let file = private_options().create(true).truncate(false).open(&path).map_err(io_error("open", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(InstanceLock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(StateError::AlreadyRunning { path: self.path.clone() }),
            Err(TryLockError::Error(source)) => Err(io_error("lock", &path)(source)),
        }
    }

    /// Reads a file whole; `None` when there is none.
    ///
    /// # Errors
    /// [`StateError`] when it is not a private regular file of at most [`STATE_FILE_BYTES_MAX`].
    pub fn read(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, StateError> {
        let path = self.file(name);
        let opened = OpenOptions::new().read(true).custom_flags(no_follow()).open(&path);
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error("open", &path)(error)),
        };
        let metadata = file.metadata().map_err(io_error("look at", &path))?;
        if !metadata.is_file() {
            return Err(StateError::Unexpected { path, what: "not a file" });
        }
        check_private(&path, &metadata, "600")?;
        if metadata.len() > STATE_FILE_BYTES_MAX {
            return Err(StateError::Unexpected { path, what: "too large to be what it should be" });
        }
        let mut content = Zeroizing::new(Vec::new());
        file.take(STATE_FILE_BYTES_MAX).read_to_end(&mut content).map_err(io_error("read", &path))?;
        Ok(Some(content))
    }

    /// Replaces a file whole and durably, mode 0600.
    ///
    /// # Errors
    /// [`StateError::Io`] when the disk refuses; the old content is then still there.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<(), StateError> {
        let path = self.file(name);
        let aside = self.file(&format!(".{name}.{}", std::process::id()));
        let written = (|| {
            match fs::remove_file(&aside) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
            let mut file = private_options().create_new(true).open(&aside)?;
            file.write_all(content)?;
            file.sync_all()?;
            fs::rename(&aside, &path)?;
            File::open(&self.path)?.sync_all()
        })();
        written.map_err(|error| {
            // The half-written file is of no use; that it may stay behind changes nothing.
            let _ = fs::remove_file(&aside);
            io_error("write", &path)(error)
        })
    }

    /// Removes a file durably; it is no error when there is none.
    ///
    /// # Errors
    /// [`StateError::Io`] when the file system refuses.
    pub fn remove(&self, name: &str) -> Result<(), StateError> {
        let path = self.file(name);
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(io_error("remove", &path)(error)),
        }
        File::open(&self.path).and_then(|folder| folder.sync_all()).map_err(io_error("sync", &self.path))
    }

    /// The machine key, made from `seed` and stored at first use.
    ///
    /// # Errors
    /// [`StateError`] when the stored key is exposed or damaged, or cannot be written.
    ///
    /// # Panics
    /// Never: an Ed25519 key always has a PKCS#8 form.
    pub fn machine_key(&self, seed: impl FnOnce() -> Zeroizing<[u8; 32]>) -> Result<SigningKey, StateError> {
        if let Some(key) = self.existing_machine_key()? {
            return Ok(key);
        }
        let key = SigningKey::from_bytes(&seed());
        self.replace_machine_key(&key)?;
        Ok(key)
    }

    /// The machine key when there is one.
    ///
    /// # Errors
    /// [`StateError`] when it is exposed or damaged.
    pub fn existing_machine_key(&self) -> Result<Option<SigningKey>, StateError> {
        let Some(pem) = self.read(MACHINE_KEY_FILE)? else {
            return Ok(None);
        };
        let damaged = || StateError::Unexpected { path: self.file(MACHINE_KEY_FILE), what: "not a machine key" };
        let pem = std::str::from_utf8(&pem).map_err(|_| damaged())?;
        SigningKey::from_pkcs8_pem(pem).map(Some).map_err(|_| damaged())
    }

    /// Puts another machine key in the place of the present one.
    ///
    /// # Errors
    /// [`StateError::Io`] when the disk refuses; the present one is then still there.
    ///
    /// # Panics
    /// Never: an Ed25519 key always has a PKCS#8 form.
    pub fn replace_machine_key(&self, key: &SigningKey) -> Result<(), StateError> {
        let pem = key.to_pkcs8_pem(Default::default()).expect("an Ed25519 key has a PKCS#8 form");
        self.write(MACHINE_KEY_FILE, pem.as_bytes())
    }

    /// Forgets the machine key, so that the next pairing makes another.
    ///
    /// # Errors
    /// [`StateError::Io`] when the file system refuses.
    pub fn forget_machine_key(&self) -> Result<(), StateError> {
        self.remove(MACHINE_KEY_FILE)
    }
}

fn private_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600).custom_flags(no_follow());
    options
}

fn no_follow() -> i32 {
    // The flag is one low bit on every Unix.
    i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default()
}

fn check_private(path: &Path, metadata: &fs::Metadata, mode: &str) -> Result<(), StateError> {
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(StateError::Unexpected { path: path.to_owned(), what: "owned by another user" });
    }
    if metadata.mode() & 0o077 != 0 {
        let repair = format!("chmod {mode} '{}'", path.display());
        return Err(StateError::Exposed { path: path.to_owned(), repair });
    }
    Ok(())
}

fn io_error<'a>(verb: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> StateError + 'a {
    move |source| StateError::Io { verb, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests;
