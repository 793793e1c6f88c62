//! Decoded columns in memory, up to a limit in bytes.
//!
//! A second scan or search reads its columns here, at memory speed, without the engine, checksums or decoding. Units are
//! immutable and their ids are never reused, so an entry can be forgotten but never be wrong: there is nothing to
//! invalidate when a table changes. Least recently used entries make room. An entry larger than the whole limit is not kept.
//!
//! One mutex guards the map. It is held for a lookup of some tens of nanoseconds, against milliseconds that reading a
//! column takes; decoding happens outside it, so two readers may now and then decode the same column.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::keys::UnitId;

/// A cache from (unit, part) to decoded values.
pub(crate) struct ColumnCache<V> {
    limit_bytes: u64,
    state: Mutex<State<V>>,
}

struct State<V> {
    entries: BTreeMap<(UnitId, u32), Entry<V>>,
    /// Entries by when they were last used; ticks are unique.
    order: BTreeMap<u64, (UnitId, u32)>,
    tick: u64,
    bytes: u64,
}

struct Entry<V> {
    value: V,
    bytes: u64,
    tick: u64,
}

impl<V: Clone> ColumnCache<V> {
    /// An empty cache that keeps at most `limit_bytes`.
    pub(crate) fn new(limit_bytes: u64) -> ColumnCache<V> {
        ColumnCache {
            limit_bytes,
            state: Mutex::new(State {
                entries: BTreeMap::new(),
                order: BTreeMap::new(),
                tick: 0,
                bytes: 0,
            }),
        }
    }

    /// The value, which is now the most recently used.
    pub(crate) fn get(&self, unit: UnitId, part: u32) -> Option<V> {
        let mut state = self.lock();
        let state = &mut *state;
        let entry = state.entries.get_mut(&(unit, part))?;
        state.order.remove(&entry.tick);
        state.tick += 1;
        entry.tick = state.tick;
        state.order.insert(entry.tick, (unit, part));
        Some(entry.value.clone())
    }

    /// Keeps a value that weighs `bytes`.
    pub(crate) fn insert(&self, unit: UnitId, part: u32, value: V, bytes: u64) {
        if bytes > self.limit_bytes {
            return;
        }
        let mut state = self.lock();
        state.remove((unit, part));
        while state.bytes + bytes > self.limit_bytes {
            let Some((_, oldest)) = state.order.first_key_value() else { break };
            let oldest = *oldest;
            state.remove(oldest);
        }
        state.tick += 1;
        let tick = state.tick;
        state.order.insert(tick, (unit, part));
        state.entries.insert((unit, part), Entry { value, bytes, tick });
        state.bytes += bytes;
    }

    /// Drops all parts of a unit that is going away.
    pub(crate) fn forget(&self, unit: UnitId) {
        let mut state = self.lock();
        let parts: Vec<_> =
            state.entries.range((unit, 0)..=(unit, u32::MAX)).map(|(key, _)| *key).collect();
        for part in parts {
            state.remove(part);
        }
    }

    /// Bytes kept now.
    pub(crate) fn bytes(&self) -> u64 {
        self.lock().bytes
    }

    fn lock(&self) -> MutexGuard<'_, State<V>> {
        // A panic while the lock is held cannot leave a wrong value behind, at worst a wrong weight.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V> State<V> {
    fn remove(&mut self, key: (UnitId, u32)) {
        if let Some(entry) = self.entries.remove(&key) {
            self.order.remove(&entry.tick);
            self.bytes -= entry.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_entry_makes_room() {
        let cache = ColumnCache::new(100);
        cache.insert(1, 0, 'a', 40);
        cache.insert(2, 0, 'b', 40);
        assert_eq!(cache.get(1, 0), Some('a'));
        cache.insert(3, 0, 'c', 40);
        assert_eq!(cache.get(2, 0), None);
        assert_eq!(cache.get(1, 0), Some('a'));
        assert_eq!(cache.get(3, 0), Some('c'));
        assert_eq!(cache.bytes(), 80);
    }

    #[test]
    fn an_entry_larger_than_the_limit_is_not_kept_and_evicts_nothing() {
        let cache = ColumnCache::new(100);
        cache.insert(1, 0, 'a', 100);
        cache.insert(2, 0, 'b', 101);
        assert_eq!(cache.get(1, 0), Some('a'));
        assert_eq!(cache.get(2, 0), None);
    }

    #[test]
    fn a_replaced_entry_is_counted_once_and_a_forgotten_unit_not_at_all() {
        let cache = ColumnCache::new(100);
        cache.insert(1, 0, 'a', 60);
        cache.insert(1, 0, 'b', 50);
        cache.insert(1, 1, 'c', 10);
        cache.insert(2, 1, 'd', 5);
        assert_eq!(cache.bytes(), 65);
        cache.forget(1);
        assert_eq!(cache.bytes(), 5);
        assert_eq!(cache.get(2, 1), Some('d'));
    }
}
