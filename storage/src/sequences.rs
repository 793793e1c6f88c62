//! Sequences: numbers that are given out once, whatever becomes of the transaction that asked.
//!
//! A sequence is a number under an OID; what its first value, step and bounds are is the caller's. Values are reserved on
//! disk in blocks before they are given out. The engine keeps writes in order, so a commit that holds a value is never on
//! disk without the reservation; where nothing is committed, [`Store::flush_sequences`] makes sure of it. A crash skips at most the rest
//! of a block, an orderly close nothing.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use crate::Store;
use crate::error::{Result, StorageError};
use crate::keys::{Family, Key};
use crate::kv::Kv;
use crate::manifest;

/// Values that one write pays for.
const RESERVED_VALUES: i64 = 32;

/// How a sequence goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequenceRules {
    /// The first value.
    pub start: i64,
    /// From one value to the next; not 0.
    pub increment: i64,
    /// The least value.
    pub min: i64,
    /// The greatest value.
    pub max: i64,
    /// Whether it starts again at its other end.
    pub cycle: bool,
}

/// Where a sequence is, in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sequence {
    /// The next value; `None` when there is none any more.
    next: Option<i64>,
    /// What is on disk as the next value.
    on_disk: Option<i64>,
    /// How many values may be given out before the disk must hear of it.
    reserved: i64,
}

#[derive(Serialize, Deserialize)]
struct SequenceRecord {
    next: Option<i64>,
}

impl SequenceRules {
    /// The value after `value`, so many steps on; `None` at the end.
    pub fn after(&self, value: i64, steps: i64) -> Option<i64> {
        let next = self.increment.checked_mul(steps).and_then(|far| value.checked_add(far));
        match next.filter(|next| (self.min..=self.max).contains(next)) {
            None if self.cycle => Some(if self.increment > 0 { self.min } else { self.max }),
            next => next,
        }
    }
}

impl Store {
    /// The next value of a sequence; `None` when it has come to its end.
    pub fn next_value(&self, oid: u32, rules: &SequenceRules) -> Result<Option<i64>> {
        let mut sequences = self.inner.sequences.lock().unwrap_or_else(PoisonError::into_inner);
        let sequence = match sequences.get_mut(&oid) {
            Some(sequence) => sequence,
            None => {
                let next = match read(&self.inner.core.kv, oid)? {
                    Some(record) => record.next,
                    None => Some(rules.start),
                };
                sequences.entry(oid).or_insert(Sequence { next, on_disk: next, reserved: 0 })
            }
        };
        let Some(value) = sequence.next else { return Ok(None) };
        if sequence.reserved == 0 {
            let ahead = if rules.cycle { None } else { rules.after(value, RESERVED_VALUES) };
            let (next, reserved) = match ahead {
                Some(next) => (Some(next), RESERVED_VALUES),
                // Near an end, one value at a time.
                None => (rules.after(value, 1), 1),
            };
            write(&self.inner.core.kv, oid, next)?;
            self.inner.sequence_writes.fetch_add(1, Ordering::SeqCst);
            (sequence.on_disk, sequence.reserved) = (next, reserved);
        }
        sequence.reserved -= 1;
        sequence.next = rules.after(value, 1);
        Ok(Some(value))
    }

    /// Whether [`flush_sequences`](Store::flush_sequences) has something to do.
    pub fn has_unflushed_sequences(&self) -> bool {
        let writes = self.inner.sequence_writes.load(Ordering::SeqCst);
        self.inner.flushed_sequence_writes.load(Ordering::SeqCst) < writes
    }

    /// Returns once the values that were given out are never given out again, whatever happens to this process. For those that no commit of changes holds.
    pub fn flush_sequences(&self) -> Result<()> {
        if self.has_unflushed_sequences() { self.inner.flush() } else { Ok(()) }
    }

    /// Sets a sequence's next value; on disk with the next commit or [`flush_sequences`](Store::flush_sequences).
    pub fn set_sequence(&self, oid: u32, next: Option<i64>) -> Result<()> {
        let mut sequences = self.inner.sequences.lock().unwrap_or_else(PoisonError::into_inner);
        write(&self.inner.core.kv, oid, next)?;
        self.inner.sequence_writes.fetch_add(1, Ordering::SeqCst);
        sequences.insert(oid, Sequence { next, on_disk: next, reserved: 0 });
        Ok(())
    }
}

/// Writes where the sequences really are, when a store is closed in order.
pub(crate) fn settle(kv: &Kv, sequences: &HashMap<u32, Sequence>) -> Result<()> {
    for (oid, sequence) in sequences {
        if sequence.next != sequence.on_disk {
            write(kv, *oid, sequence.next)?;
        }
    }
    Ok(())
}

/// Takes away the records of sequences that nothing refers to.
pub(crate) fn forget_others(kv: &Kv, is_known: impl Fn(u32) -> bool) -> Result<()> {
    for (key, _) in kv.scan(Family::Sequences)? {
        if let Key::Sequence(oid) = key
            && !is_known(oid)
        {
            kv.remove(&key)?;
        }
    }
    Ok(())
}

fn read(kv: &Kv, oid: u32) -> Result<Option<SequenceRecord>> {
    match kv.get(&Key::Sequence(oid))? {
        Some(bytes) => manifest::decode(&bytes, || format!("sequence {oid}")).map(Some),
        None => Ok::<_, StorageError>(None),
    }
}

fn write(kv: &Kv, oid: u32, next: Option<i64>) -> Result<()> {
    kv.put(&Key::Sequence(oid), &manifest::encode(&SequenceRecord { next }))
}
