//! The store's format version.
//!
//! One number for the whole store, written when it is made and read before anything else: a program that does not know
//! the number touches nothing. Each kind of record also starts with a byte for its own version, so that one kind can
//! change its form without a new store; see [`crate::manifest`].

use crate::error::{Result, StorageError};
use crate::keys::{Family, Key};
use crate::kv::Kv;

/// The format that this program reads and writes.
pub(crate) const FORMAT_VERSION: u64 = 1;

/// Checks the version of an opened store, or writes it down in a new one.
pub(crate) fn check(kv: &Kv) -> Result<()> {
    match kv.get(&Key::Format)? {
        Some(record) => {
            let bytes = <[u8; 8]>::try_from(&*record)
                .map_err(|_| StorageError::corrupt("the format version is not a number"))?;
            match u64::from_le_bytes(bytes) {
                FORMAT_VERSION => Ok(()),
                found => Err(StorageError::UnknownFormat { found, supported: FORMAT_VERSION }),
            }
        }
        None if kv.scan(Family::Manifests)?.is_empty() => {
            kv.put(&Key::Format, &FORMAT_VERSION.to_le_bytes())?;
            kv.flush()
        }
        None => Err(StorageError::corrupt("the store has tables but no format version")),
    }
}
