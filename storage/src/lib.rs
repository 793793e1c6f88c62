//! Tables, vectors, models and jobs on sled.
//!
//! # A commit's way
//!
//! [`Store::begin`] gives a [`Transaction`], which keeps its changes aside ([`transaction`]). Rows become row groups of Arrow
//! columns ([`row_group`], [`columns`]), columns become pieces with checksums ([`piece`], [`kv`]), and a commit swaps the
//! manifests ([`commit`], [`manifest`]) and flushes before it answers. Keys and their indexes are in [`unique`]. A [`Snapshot`] is the state that the last commit
//! published; whoever holds it reads on undisturbed, and what nobody can reach any more is swept ([`recovery`]).
//!
//! # Invariants
//!
//! - A commit that returned survives the process; one that did not is there as a whole or not at all.
//! - Bytes that changed on disk are an error, never a value.
//! - Every unit of pieces is named by a record or marked as garbage, at every point of the log.
//! - What is not here, on purpose: SQL, tensors, sockets, an async runtime. Every call blocks; callers bring the thread.
//!
//! # Example
//!
//! ```
//! use std::sync::Arc;
//! use arrow::array::{Int32Array, RecordBatch};
//! use arrow::datatypes::{DataType, Field, Schema};
//! use thanosql_storage::{Store, StoreOptions};
//!
//! # let folder = tempfile::tempdir()?;
//! let store = Store::open(folder.path(), StoreOptions::default())?;
//! let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int32, false)]));
//! let rows = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(Int32Array::from(vec![1, 2, 3]))])?;
//!
//! let mut transaction = store.begin();
//! transaction.create_table("numbers", schema)?;
//! transaction.append("numbers", &rows)?;
//! transaction.commit()?;
//!
//! let numbers = store.snapshot().table("numbers").expect("it was committed");
//! assert_eq!(numbers.row_count(), 3);
//! assert_eq!(numbers.read_group(0, None)?, rows);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;

mod cache;
mod columns;
mod commit;
mod error;
mod format;
mod index_data;
mod jobs;
mod kept;
mod keys;
mod kv;
mod manifest;
mod models;
mod piece;
mod recovery;
mod row_group;
mod sequences;
mod snapshot;
mod statistics;
mod table;
#[cfg(test)]
mod tests;
mod transaction;
mod unique;
mod witness;

pub use error::{ObjectKind, Result, StorageError};
pub use index_data::INDEX_DATA_KEY;
pub use models::ModelEntry;
pub use row_group::MAX_GROUP_ROWS;
pub use sequences::SequenceRules;
pub use snapshot::{Snapshot, View};
pub use statistics::{ColumnStatistics, GroupStatistics};
pub use table::{ROW_ID_COLUMN, RowGroup, SEQUENCE_KEY, Table};
pub use transaction::{Owner, RowCheck, Savepoint, Transaction};
pub use unique::{KeyValues, UniqueKey, can_be_key, with_keys};

use commit::{GroupFlush, Head};
use keys::{Counter, Family, Key};
use kv::{Kv, Record};
use manifest::{GroupRecord, ModelRecord, TableManifest, ViewRecord};
use models::ModelVersion;
use piece::{Core, Unit};
use recovery::Sweeper;
use row_group::{GroupVersion, Rows, StoredRows};
use sequences::Sequence;
use snapshot::{CatalogState, ViewVersion, session_of};
use table::TableVersion;

/// The first OID that objects get; PostgreSQL keeps those below 16384 for itself, and our types take the next few.
pub const FIRST_OID: u32 = 16400;

/// How much memory a store may take.
#[derive(Clone, Copy, Debug)]
pub struct StoreOptions {
    /// Bytes that the engine may keep of its pages.
    pub sled_cache_bytes: u64,
    /// Bytes of decoded columns that may be kept, so that a second scan reads memory.
    pub column_cache_bytes: u64,
}

impl Default for StoreOptions {
    fn default() -> StoreOptions {
        StoreOptions { sled_cache_bytes: 32 << 20, column_cache_bytes: 256 << 20 }
    }
}

/// An open store. Cloning is cheap. The folder is free for another process when the last clone is gone, and with it every
/// snapshot, transaction and savepoint.
#[derive(Clone)]
pub struct Store {
    inner: Arc<StoreInner>,
}

/// What the clones of a store share.
pub(crate) struct StoreInner {
    pub(crate) core: Arc<Core>,
    /// The newest state and the lock that commits take one after the other.
    pub(crate) head: Mutex<Head>,
    /// The newest durable state, and its sequence number.
    published: RwLock<(u64, Arc<CatalogState>)>,
    pub(crate) group_flush: GroupFlush,
    pub(crate) next_oid: AtomicU32,
    pub(crate) next_job: AtomicU64,
    /// Orders changes of checkpoints and of the job counter.
    pub(crate) jobs: Mutex<()>,
    /// The sequences that were used since the store was opened, by OID.
    pub(crate) sequences: Mutex<HashMap<u32, Sequence>>,
    /// How often one was written, and how many of these writes are known to be on disk.
    pub(crate) sequence_writes: AtomicU64,
    pub(crate) flushed_sequence_writes: AtomicU64,
    sweeper_thread: Option<JoinHandle<()>>,
}

impl StoreInner {
    /// Returns once everything written so far is on disk.
    pub(crate) fn flush(&self) -> Result<()> {
        let sequence_writes = self.sequence_writes.load(Ordering::SeqCst);
        self.group_flush.wait(&self.core.kv)?;
        self.flushed_sequence_writes.fetch_max(sequence_writes, Ordering::SeqCst);
        Ok(())
    }
}

impl Store {
    /// Opens the store in a folder; makes one when the folder is absent or empty.
    ///
    /// [`StorageError::Locked`] when another process has it open, [`StorageError::UnknownFormat`] when another version
    /// of this program made it.
    pub fn open(path: &Path, options: StoreOptions) -> Result<Store> {
        let kv = Arc::new(Kv::open(path, options.sled_cache_bytes)?);
        format::check(&kv)?;
        let next_unit = kv.counter(Counter::Unit)?;
        let next_oid = u32::try_from(kv.counter(Counter::Oid)?.max(u64::from(FIRST_OID)))
            .map_err(|_| StorageError::corrupt("the counter of object ids is out of range"))?;
        let next_job = jobs::next_job_id(kv.counter(Counter::Job)?.max(1), last_job(&kv)?)?;

        let (sweeper, sweeper_thread) = Sweeper::start(Arc::clone(&kv))?;
        let core = Arc::new(Core::new(
            Arc::clone(&kv),
            options.column_cache_bytes,
            sweeper.clone(),
            next_unit,
        ));
        let inner = |state: Arc<CatalogState>| StoreInner {
            core: Arc::clone(&core),
            head: Mutex::new(Head { state: Arc::clone(&state), sequence: 0 }),
            published: RwLock::new((0, state)),
            group_flush: GroupFlush::default(),
            next_oid: AtomicU32::new(next_oid),
            next_job: AtomicU64::new(next_job),
            jobs: Mutex::new(()),
            sequences: Mutex::default(),
            sequence_writes: AtomicU64::new(0),
            flushed_sequence_writes: AtomicU64::new(0),
            sweeper_thread: Some(sweeper_thread),
        };
        let state = match load(&core) {
            Ok(state) => state,
            Err(error) => {
                // Ends the thread before the error goes out, so that the folder is free again.
                drop(inner(Arc::new(CatalogState::default())));
                return Err(error);
            }
        };
        let store = Store { inner: Arc::new(inner(Arc::new(state))) };
        // Temporary tables of sessions that a crash ended, and sequences of tables that are gone.
        store.drop_temporary_of(|_| true)?;
        let state = store.inner.published();
        sequences::forget_others(&kv, |oid| {
            state.tables.values().any(|table| table.has_sequence(oid))
        })?;
        store.inner.forget_unnamed_indexes(&state)?;
        let marked = sweeper.sweep_marked(&kv)?;
        if marked > 0 {
            tracing::info!(units = marked, "sweeping what unfinished transactions left behind");
        }
        Ok(store)
    }

    /// The newest committed state.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::new(self.inner.published(), None)
    }

    /// The newest committed state as a session sees it.
    pub fn snapshot_of(&self, session: Option<u64>) -> Snapshot {
        Snapshot::new(self.inner.published(), session)
    }

    /// Starts a transaction from the newest committed state.
    pub fn begin(&self) -> Transaction {
        self.begin_as(Owner::default())
    }

    /// Starts a transaction on somebody's behalf.
    pub fn begin_as(&self, owner: Owner) -> Transaction {
        Transaction::new(Arc::clone(&self.inner), self.inner.published(), owner)
    }

    /// Drops the temporary tables of a session that has ended.
    pub fn drop_temporary(&self, session: u64) -> Result<()> {
        self.drop_temporary_of(|other| other == session)
    }

    fn drop_temporary_of(&self, is_gone: impl Fn(u64) -> bool) -> Result<()> {
        let state = self.inner.published();
        let names = state.tables.keys();
        let gone: Vec<&String> =
            names.filter(|name| session_of(name).is_some_and(&is_gone)).collect();
        if gone.is_empty() {
            return Ok(());
        }
        let mut transaction = self.begin();
        gone.into_iter().try_for_each(|name| transaction.drop_table(name))?;
        transaction.commit()
    }

    /// Returns once everything written so far is on disk. Commits and jobs need no such call.
    pub fn flush(&self) -> Result<()> {
        self.inner.flush()
    }

    /// Bytes that the store's files take.
    pub fn size_on_disk(&self) -> Result<u64> {
        self.inner.core.kv.size_on_disk()
    }

    /// Bytes of decoded columns in memory.
    pub fn cached_bytes(&self) -> u64 {
        self.inner.core.cache.bytes()
    }

    /// Waits until pieces that were already let go by everybody are deleted.
    pub fn wait_for_sweep(&self) {
        self.inner.core.sweeper.wait();
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Store({})", self.inner.core.kv.path().display())
    }
}

impl StoreInner {
    /// An OID that was never given before.
    pub(crate) fn next_oid(&self) -> Result<u32> {
        self.next_oid
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |oid| oid.checked_add(1))
            .map_err(|_| StorageError::Exhausted { what: "object ids" })
    }

    /// Lets snapshots have a state that is durable, unless they have a later one already.
    pub(crate) fn publish(&self, sequence: u64, state: Arc<CatalogState>) {
        let mut published = self.published.write().unwrap_or_else(PoisonError::into_inner);
        if sequence > published.0 {
            let old = std::mem::replace(&mut *published, (sequence, state));
            // Letting go of the old state may take a while; nobody should wait for it.
            drop(published);
            drop(old);
        }
    }

    fn published(&self) -> Arc<CatalogState> {
        Arc::clone(&self.published.read().unwrap_or_else(PoisonError::into_inner).1)
    }
}

impl Drop for StoreInner {
    fn drop(&mut self) {
        let sequences = self.sequences.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = sequences::settle(&self.core.kv, sequences) {
            tracing::warn!(%error, "sequences skip the values that were reserved");
        }
        self.core.sweeper.stop();
        if let Some(thread) = self.sweeper_thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that deletes unused pieces panicked");
        }
    }
}

fn last_job(kv: &Kv) -> Result<Option<u64>> {
    let mut last = None;
    for (key, _) in kv.scan(Family::Jobs)? {
        if let Key::Job(id) = key {
            last = last.max(Some(id));
        }
    }
    Ok(last)
}

/// Reads all records that say what the store holds.
fn load(core: &Arc<Core>) -> Result<CatalogState> {
    let kv = &core.kv;
    let mut groups: BTreeMap<(u32, u32), Record> = BTreeMap::new();
    let mut deletions: BTreeMap<(u32, u32), Record> = BTreeMap::new();
    for (key, record) in kv.scan(Family::Groups)? {
        if let Key::Group(oid, group) = key {
            groups.insert((oid, group), record);
        }
    }
    for (key, record) in kv.scan(Family::Deletions)? {
        if let Key::Deletions(oid, group) = key {
            deletions.insert((oid, group), record);
        }
    }

    let mut state = CatalogState::default();
    for (key, bytes) in kv.scan(Family::Manifests)? {
        let manifest: TableManifest = manifest::decode(&bytes, || format!("{key:?}"))?;
        let schema = manifest.schema()?;
        let keys = unique::keys_of(&schema, &manifest.name)?;
        let mut table = TableVersion {
            oid: manifest.oid,
            name: manifest.name,
            version: manifest.version,
            schema,
            keys,
            next_group: manifest.next_group,
            groups: Vec::with_capacity(manifest.groups.len()),
        };
        for entry in manifest.groups {
            let key = (table.oid, entry.id);
            let name = || format!("row group {} of table \"{}\"", entry.id, table.name);
            let record = groups
                .get(&key)
                .ok_or_else(|| StorageError::corrupt(format!("{} has no record", name())))?;
            let record: GroupRecord = manifest::decode_group(record, name)?;
            let deleted = match (deletions.get(&key), entry.deleted) {
                (None, 0) => None,
                (Some(bytes), count) => {
                    let bitmap = manifest::decode_bitmap(bytes, name)?;
                    if bitmap.len() != u64::from(count)
                        || bitmap.max().is_some_and(|row| row >= record.rows)
                    {
                        return Err(StorageError::corrupt(format!(
                            "the deletions of {} do not fit",
                            name()
                        )));
                    }
                    Some(Arc::new(bitmap))
                }
                (None, _) => {
                    return Err(StorageError::corrupt(format!("{} misses its deletions", name())));
                }
            };
            let unit = Unit::existing(core, record.unit);
            let rows = Rows::Stored(Arc::new(StoredRows { unit, record }));
            table.groups.push(GroupVersion { id: entry.id, rows, deleted });
        }
        state.tables.insert(table.name.clone(), Arc::new(table));
    }
    for (key, bytes) in kv.scan(Family::Views)? {
        let view: ViewRecord = manifest::decode(&bytes, || format!("{key:?}"))?;
        let schema = columns::decode_schema(&view.schema, || format!("view \"{}\"", view.name))?;
        let view = ViewVersion {
            oid: view.oid,
            name: view.name,
            version: view.version,
            definition: view.definition,
            schema,
        };
        state.views.insert(view.name.clone(), Arc::new(view));
    }
    for (key, bytes) in kv.scan(Family::Models)? {
        let model: ModelRecord = manifest::decode(&bytes, || format!("{key:?}"))?;
        let model = ModelVersion {
            oid: model.oid,
            name: model.name,
            version: model.version,
            metadata: model.metadata,
            unit: Unit::existing(core, model.unit),
            parts: model.parts,
        };
        state.models.insert(model.name.clone(), Arc::new(model));
    }
    for (key, bytes) in kv.scan(Family::ModelVersions)? {
        if let Key::ModelVersion(name) = key {
            let version = <[u8; 8]>::try_from(&*bytes).map(u64::from_le_bytes).map_err(|_| {
                StorageError::corrupt(format!("the version of model \"{name}\" is not a number"))
            })?;
            state.model_versions.insert(name, version);
        }
    }
    Ok(state)
}
