//! How far the store had come, written down beside the engine.
//!
//! The engine cannot tell a log that a crash cut short from one in which a byte was changed: in both it keeps what lies
//! before and forgets the rest, commits that were acknowledged included. So each flush also writes its number here, once
//! the log is on disk. After a crash the log is at that number or beyond it. When it is behind, acknowledged
//! commits are missing, and that is an error to be told and not a state to be served.
//!
//! The file is 12 bytes, number and checksum, overwritten in place: smaller than any sector, so never half old. A store
//! whose file is empty (it was made by a process that died before its first flush ended) is taken as it is.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::error::{Result, StorageError};

/// The open file.
pub(crate) struct Witness {
    file: File,
    path: PathBuf,
}

impl Witness {
    /// Opens or makes the file in a store's folder.
    pub(crate) fn open(folder: &Path) -> Result<Witness> {
        let path = folder.join("flushed");
        let file =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
        match file {
            Ok(file) => Ok(Witness { file, path }),
            Err(source) => Err(StorageError::Io { action: "open", path, source }),
        }
    }

    /// Compares with the number of the last flush that the log knows.
    pub(crate) fn check(&self, in_log: u64) -> Result<()> {
        let io_error =
            |source| StorageError::Io { action: "read", path: self.path.clone(), source };
        if self.file.metadata().map_err(io_error)?.len() == 0 {
            return Ok(());
        }
        let mut bytes = [0; 12];
        self.file.read_exact_at(&mut bytes, 0).map_err(io_error)?;
        let (number, checksum) = bytes.split_at(8);
        if crc32fast::hash(number).to_le_bytes() != checksum {
            return Err(StorageError::corrupt(format!(
                "{} has a wrong checksum",
                self.path.display()
            )));
        }
        let number = number.try_into().map_or(0, u64::from_le_bytes);
        if in_log < number {
            return Err(StorageError::corrupt(format!(
                "the log ends at flush {in_log}, but flush {number} was acknowledged"
            )));
        }
        Ok(())
    }

    /// Notes a flush that is done.
    pub(crate) fn write(&self, number: u64) -> Result<()> {
        let mut bytes = [0; 12];
        let (low, high) = bytes.split_at_mut(8);
        low.copy_from_slice(&number.to_le_bytes());
        high.copy_from_slice(&crc32fast::hash(low).to_le_bytes());
        self.file.write_all_at(&bytes, 0).map_err(|source| StorageError::Io {
            action: "write",
            path: self.path.clone(),
            source,
        })
    }
}
