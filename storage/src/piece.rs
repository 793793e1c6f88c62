//! Units: sets of pieces that are written once and deleted whole.
//!
//! A unit holds the parts of one thing: the columns of a row group, the parts of a model, a checkpoint. A part is cut
//! into pieces of at most 64 KiB, the size at which the engine is fastest; a small row group is one *pack* instead, so
//! that a single-row INSERT writes one value and not one a column.
//!
//! Who deletes a unit's pieces? A [`Unit`] is shared by every snapshot that can reach it. It carries a flag: does
//! something durable refer to it? Not yet when it is new, yes from the commit on, no longer once a later commit lets it go.
//! When the last holder drops a unit that nothing durable refers to, its pieces go, by way of a background thread. So a
//! rollback is the drop of a transaction, and a long reader keeps exactly what it reads.
//!
//! A crash forgets the flags, so they are mirrored by [`Key::Garbage`] marks: see [`crate::recovery`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arrow::array::ArrayRef;
use arrow::buffer::{Buffer, MutableBuffer};

use crate::cache::ColumnCache;
use crate::error::{Result, StorageError};
use crate::keys::{Counter, Key, UnitId};
use crate::kv::{Kv, MAX_PIECE_BYTES};
use crate::recovery::Sweeper;

/// Unit ids that one write of the counter pays for.
const RESERVED_UNITS: u64 = 1024;

/// What units need from the store, shared by the store, its snapshots and its transactions.
pub(crate) struct Core {
    /// The engine.
    pub(crate) kv: Arc<Kv>,
    /// Decoded columns.
    pub(crate) cache: ColumnCache<ArrayRef>,
    /// Deletes pieces in the background.
    pub(crate) sweeper: Sweeper,
    units: UnitIds,
}

/// Hands out unit ids; none twice, not even after a crash.
struct UnitIds {
    next: AtomicU64,
    reserved: std::sync::Mutex<u64>,
}

impl Core {
    /// `next_unit` is the counter as it was found in the store.
    pub(crate) fn new(
        kv: Arc<Kv>,
        column_cache_bytes: u64,
        sweeper: Sweeper,
        next_unit: u64,
    ) -> Core {
        Core {
            kv,
            cache: ColumnCache::new(column_cache_bytes),
            sweeper,
            units: UnitIds {
                next: AtomicU64::new(next_unit),
                reserved: std::sync::Mutex::new(next_unit),
            },
        }
    }

    fn next_unit(&self) -> Result<UnitId> {
        let unit = self.units.next.fetch_add(1, Ordering::Relaxed);
        let mut reserved =
            self.units.reserved.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if unit >= *reserved {
            let end = unit + RESERVED_UNITS;
            self.kv.put(&Key::Counter(Counter::Unit), &end.to_le_bytes())?;
            *reserved = end;
        }
        Ok(unit)
    }
}

/// An immutable set of pieces.
pub(crate) struct Unit {
    core: Arc<Core>,
    id: UnitId,
    /// Nothing durable refers to the unit.
    garbage: AtomicBool,
}

impl Unit {
    /// A new unit, marked as garbage until a commit takes it over.
    pub(crate) fn create(core: &Arc<Core>) -> Result<Arc<Unit>> {
        let id = core.next_unit()?;
        core.kv.put(&Key::Garbage(id), &[])?;
        Ok(Arc::new(Unit { core: Arc::clone(core), id, garbage: AtomicBool::new(true) }))
    }

    /// A unit that a record of the store refers to.
    pub(crate) fn existing(core: &Arc<Core>, id: UnitId) -> Arc<Unit> {
        Arc::new(Unit { core: Arc::clone(core), id, garbage: AtomicBool::new(false) })
    }

    /// The unit's id.
    pub(crate) fn id(&self) -> UnitId {
        self.id
    }

    /// The store that the unit is in.
    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Says whether anything durable refers to the unit now. To be called once the commit that changes it is applied.
    pub(crate) fn set_garbage(&self, garbage: bool) {
        self.garbage.store(garbage, Ordering::Release);
    }

    /// Writes one part in pieces.
    pub(crate) fn write_part(&self, part: u32, bytes: &[u8]) -> Result<()> {
        for (number, piece) in bytes.chunks(MAX_PIECE_BYTES).enumerate() {
            let number = u32::try_from(number)
                .map_err(|_| StorageError::Exhausted { what: "piece numbers" })?;
            self.core.kv.put(&Key::Piece(self.id, part, number), piece)?;
        }
        Ok(())
    }

    /// Reads one part into one buffer that is aligned for every Arrow type.
    pub(crate) fn read_part(&self, part: u32, length: u64) -> Result<Buffer> {
        let length = usize::try_from(length)
            .ok()
            .filter(|length| *length <= isize::MAX as usize / 2)
            .ok_or_else(|| self.damaged(part, "has an impossible length"))?;
        let mut buffer = MutableBuffer::new(0);
        let mut number = 0;
        while buffer.len() < length {
            let piece = self
                .core
                .kv
                .get(&Key::Piece(self.id, part, number))?
                .ok_or_else(|| self.damaged(part, "misses a piece"))?;
            let left = length - buffer.len();
            if piece.len() != left.min(MAX_PIECE_BYTES) {
                return Err(self.damaged(part, "has a piece of the wrong length"));
            }
            if number == 0 {
                buffer.reserve(length);
            }
            buffer.extend_from_slice(&piece);
            number += 1;
        }
        Ok(buffer.into())
    }

    /// Writes the one value of a small unit.
    pub(crate) fn write_pack(&self, bytes: &[u8]) -> Result<()> {
        self.core.kv.put(&Key::Pack(self.id), bytes)
    }

    /// Reads the one value of a small unit.
    pub(crate) fn read_pack(&self) -> Result<Buffer> {
        let pack =
            self.core.kv.get(&Key::Pack(self.id))?.ok_or_else(|| {
                StorageError::corrupt(format!("unit {} misses its pack", self.id))
            })?;
        let mut buffer = MutableBuffer::new(pack.len());
        buffer.extend_from_slice(&pack);
        Ok(buffer.into())
    }

    fn damaged(&self, part: u32, how: &str) -> StorageError {
        StorageError::corrupt(format!("part {part} of unit {} {how}", self.id))
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        if self.garbage.load(Ordering::Acquire) {
            self.core.cache.forget(self.id);
            self.core.sweeper.sweep(self.id);
        }
    }
}

impl std::fmt::Debug for Unit {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Unit({})", self.id)
    }
}
