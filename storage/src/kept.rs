//! Large values under one key, durable at once and outside transactions: jobs' requests and checkpoints, indexes' data.
//!
//! Each is a unit of its own that takes the place of the earlier one in one step, so after a crash there is one whole value, the
//! old or the new.

use std::sync::PoisonError;

use crate::StoreInner;
use crate::error::Result;
use crate::keys::Key;
use crate::kv::Changes;
use crate::manifest::{self, KeptRecord};
use crate::piece::Unit;

impl StoreInner {
    /// Sets a value in place of the earlier one; durable on return.
    pub(crate) fn put_kept(&self, key: &Key, bytes: &[u8]) -> Result<()> {
        let unit = Unit::create(&self.core)?;
        unit.write_part(0, bytes)?;
        let record = KeptRecord { unit: unit.id(), bytes: bytes.len() as u64 };
        self.swap_kept(key, Some((&unit, record)))
    }

    /// A value.
    pub(crate) fn kept(&self, key: &Key) -> Result<Option<Vec<u8>>> {
        // Held while reading, so that a put or a removal does not delete the pieces meanwhile.
        let _order = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        match self.kept_record(key)? {
            None => Ok(None),
            Some(record) => {
                let unit = Unit::existing(&self.core, record.unit);
                Ok(Some(unit.read_part(0, record.bytes)?.to_vec()))
            }
        }
    }

    /// Sets or removes a value; durable on return.
    pub(crate) fn swap_kept(&self, key: &Key, new: Option<(&Unit, KeptRecord)>) -> Result<()> {
        let core = &self.core;
        let old = {
            let _order = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
            let old = self.kept_record(key)?;
            let mut changes = Changes::default();
            match &new {
                Some((unit, record)) => {
                    changes.put(key, &manifest::encode(record));
                    changes.remove(&Key::Garbage(unit.id()));
                }
                None if old.is_none() => return Ok(()),
                None => changes.remove(key),
            }
            if let Some(old) = &old {
                changes.put(&Key::Garbage(old.unit), &[]);
            }
            core.kv.apply(changes)?;
            if let Some((unit, _)) = new {
                unit.set_garbage(false);
            }
            old
        };
        if let Some(old) = old {
            core.sweeper.sweep(old.unit);
        }
        self.flush()
    }

    /// Where a value is.
    pub(crate) fn kept_record(&self, key: &Key) -> Result<Option<KeptRecord>> {
        match self.core.kv.get(key)? {
            None => Ok(None),
            Some(bytes) => Ok(Some(manifest::decode(&bytes, || format!("{key:?}"))?)),
        }
    }
}
