//! A file that is appended to or replaced durably. Behind a trait, so that tests fill the disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// One file, as the journal, the fence, the device list and the audit spool use it. Calls block.
pub trait Storage: Send + 'static {
    /// The whole content; empty when there is no file.
    ///
    /// # Errors
    /// What the file system says.
    fn load(&mut self) -> io::Result<Vec<u8>>;

    /// Cuts the file to `bytes`.
    ///
    /// # Errors
    /// What the file system says.
    fn truncate(&mut self, bytes: u64) -> io::Result<()>;

    /// Appends, durably on return. After an error nothing of it is left behind, as far as the disk allows.
    ///
    /// # Errors
    /// What the file system says.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Replaces the whole content, durably on return; after an error the old content stands.
    ///
    /// # Errors
    /// What the file system says.
    fn replace(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Moves a damaged file out of the way, for people to look at.
    ///
    /// # Errors
    /// What the file system says.
    fn set_aside(&mut self) -> io::Result<()>;
}

/// A file of the state folder, mode 0600.
#[derive(Debug)]
pub struct FileStorage {
    path: PathBuf,
    file: Option<File>,
}

impl FileStorage {
    /// The file at `path`, opened when it is first used.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), file: None }
    }

    fn file(&mut self) -> io::Result<&mut File> {
        match &mut self.file {
            Some(file) => Ok(file),
            slot @ None => {
                let file = OpenOptions::new()
                    .read(true)
                    .write(true)
                    .create(true)
                    .truncate(false)
                    .mode(0o600)
                    .open(&self.path)?;
                sync_folder(&self.path)?;
                Ok(slot.insert(file))
            }
        }
    }
}

impl Storage for FileStorage {
    fn load(&mut self) -> io::Result<Vec<u8>> {
        let file = self.file()?;
        let mut content = Vec::new();
        file.seek(SeekFrom::Start(0))?;
        file.read_to_end(&mut content)?;
        Ok(content)
    }

    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        let file = self.file()?;
        file.set_len(bytes)?;
        file.sync_all()
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let file = self.file()?;
        let end = file.seek(SeekFrom::End(0))?;
        let written = file.write_all(bytes).and_then(|()| file.sync_data());
        if written.is_err() {
            // Half a record in the middle of the file would be damage; at worst it stays as a torn tail.
            let _ = file.set_len(end);
        }
        written
    }

    fn replace(&mut self, bytes: &[u8]) -> io::Result<()> {
        let aside = with_suffix(&self.path, "new");
        let written: io::Result<File> = (|| {
            let mut file =
                OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&aside, &self.path)?;
            sync_folder(&self.path)?;
            Ok(file)
        })();
        self.file = Some(written.inspect_err(|_| {
            let _ = fs::remove_file(&aside);
        })?);
        Ok(())
    }

    fn set_aside(&mut self) -> io::Result<()> {
        self.file = None;
        fs::rename(&self.path, with_suffix(&self.path, "damaged"))?;
        sync_folder(&self.path)
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(suffix);
    path.with_file_name(name)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
pub(crate) mod memory;
#[cfg(test)]
mod tests;
