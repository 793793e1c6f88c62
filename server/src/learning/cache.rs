//! Loaded models and training rows, kept up to a number of bytes. The least recently used go first; what is in use
//! lives on through its `Arc` until its last user is done.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use thanosql_ml::Model;
use thanosql_protocol::SqlError;

use super::model::TrainingRows;
use super::reference::Reference;

/// What is kept of a model: which one (object id and version) and which side of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CacheKey {
    pub(crate) oid: u32,
    pub(crate) version: u64,
    pub(crate) part: CachePart,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum CachePart {
    /// The encoder on the device of this name.
    Encoder { device: String },
    /// The training rows.
    Rows,
    /// The labelled vectors.
    Reference,
}

#[derive(Clone, Debug)]
pub(crate) enum Cached {
    Encoder(Arc<Model>),
    Rows(Arc<TrainingRows>),
    Reference(Arc<Reference>),
}

struct Slot {
    value: Cached,
    bytes: u64,
    last_use: u64,
}

#[derive(Default)]
struct Slots {
    by_key: HashMap<CacheKey, Slot>,
    bytes: u64,
    clock: u64,
}

/// The lock is held while a model is loaded, so that ten statements which start together load it once; a load takes
/// some tens of milliseconds and happens on blocking threads only.
pub(crate) struct ModelCache {
    limit_bytes: u64,
    slots: Mutex<Slots>,
}

impl ModelCache {
    pub(crate) fn new(limit_bytes: u64) -> ModelCache {
        ModelCache { limit_bytes, slots: Mutex::default() }
    }

    /// The value of `key`, or what `load` gives together with its size in bytes.
    pub(crate) fn get_or_load(
        &self,
        key: &CacheKey,
        load: impl FnOnce() -> Result<(Cached, u64), SqlError>,
    ) -> Result<Cached, SqlError> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.clock += 1;
        let now = slots.clock;
        if let Some(slot) = slots.by_key.get_mut(key) {
            slot.last_use = now;
            return Ok(slot.value.clone());
        }
        let (value, bytes) = load()?;
        slots.bytes += bytes;
        slots.by_key.insert(key.clone(), Slot { value: value.clone(), bytes, last_use: now });
        // The newest stays even if it is over the limit alone: its user has it in memory anyway.
        while slots.bytes > self.limit_bytes && slots.by_key.len() > 1 {
            let Some(oldest) = slots
                .by_key
                .iter()
                .min_by_key(|(_, slot)| slot.last_use)
                .map(|(key, _)| key.clone())
            else {
                break;
            };
            if let Some(slot) = slots.by_key.remove(&oldest) {
                slots.bytes -= slot.bytes;
            }
        }
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::KeptRow;
    use super::*;

    fn rows() -> Cached {
        let bytes =
            TrainingRows::to_ipc(&[KeptRow { path: Some("a"), filename: None, target: None }])
                .unwrap();
        Cached::Rows(Arc::new(TrainingRows::for_tests(bytes)))
    }

    fn key(oid: u32) -> CacheKey {
        CacheKey { oid, version: 1, part: CachePart::Rows }
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let cache = ModelCache::new(100);
        let mut loads = Vec::new();
        let mut get = |oid: u32| {
            cache
                .get_or_load(&key(oid), || {
                    loads.push(oid);
                    Ok((rows(), 40))
                })
                .unwrap();
        };
        for oid in [1, 2, 1, 3, 1, 2] {
            get(oid);
        }
        // 3 pushed out 2, the least recently used then; 1 was never loaded again.
        assert_eq!(loads, [1, 2, 3, 2]);
    }

    #[test]
    fn what_is_too_large_is_kept_alone() {
        let cache = ModelCache::new(10);
        cache.get_or_load(&key(1), || Ok((rows(), 40))).unwrap();
        cache.get_or_load(&key(1), || panic!("is loaded already")).unwrap();
    }

    #[test]
    fn a_failed_load_leaves_nothing() {
        let cache = ModelCache::new(10);
        assert!(cache.get_or_load(&key(1), || Err(crate::error::cancelled())).is_err());
        cache.get_or_load(&key(1), || Ok((rows(), 1))).unwrap();
    }
}
