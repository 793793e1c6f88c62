//! Approximate search: indexes over vectors, made by `CREATE INDEX ... USING hnsw`.
//!
//! An index is a graph over the rows that a table had when it was made ([`rows`]). Rows do not change once they are stored, so a graph serves
//! every version of its table: a search takes from it the rows that its snapshot still has, compares those that came later one by
//! one, and orders both by the distance that it computes itself ([`scan`]). So an index is never wrong about what is there, only, now and then, about
//! what is nearest; and when it would give fewer rows than were asked for, all are compared. Graphs are brought up to date in the
//! background once they have fallen behind.
//!
//! [`rule`] says which queries use an index: `ORDER BY` one distance and `LIMIT`, over a table without a filter. With a filter
//! every search is exact, so that it gives `k` rows whenever `k` rows match. EXPLAIN shows what is used: `NearestExec`.
//!
//! Graphs stay in memory up to a limit, the longest unused goes first.

pub mod rows;
pub mod rule;
pub mod scan;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thanosql_ml::neighbour_graph::NeighbourGraph;
use thanosql_protocol::{SqlError, SqlState};
use thanosql_storage::{Store, Table};
use tokio_util::sync::CancellationToken;

use crate::catalog::vector_index::VectorIndex;
use crate::error::storage_error;
use crate::learning::ml_error;
use crate::session::settings::Settings;
use rows::IndexedRows;

/// Vectors in a search's view when `hnsw.ef_search` says nothing.
pub const DEFAULT_BREADTH: usize = 40;

/// All indexes of a store that are in memory.
#[derive(Debug)]
pub struct VectorIndexes {
    store: Store,
    limit: usize,
    kept: Mutex<Kept>,
    /// Ends what goes on in the background.
    stop: CancellationToken,
}

#[derive(Debug, Default)]
struct Kept {
    /// By OID, and when each was last used.
    indexes: HashMap<u32, (Arc<IndexedRows>, u64)>,
    clock: u64,
    /// Being brought up to date.
    busy: HashSet<u32>,
}

/// Bytes that an index of a table takes, about.
fn memory_for(table: &Table, index: &VectorIndex, dim: usize) -> usize {
    let rows = usize::try_from(table.row_count()).unwrap_or(usize::MAX);
    NeighbourGraph::memory_for(rows, dim, index.options())
}

/// What a session's queries know of indexes; an extension of DataFusion's configuration.
pub struct SearchContext {
    indexes: Arc<VectorIndexes>,
    settings: Arc<Mutex<Settings>>,
}

impl SearchContext {
    /// For one session.
    pub fn new(indexes: Arc<VectorIndexes>, settings: Arc<Mutex<Settings>>) -> SearchContext {
        SearchContext { indexes, settings }
    }

    /// Vectors in a search's view; `None` if no index is to be used.
    fn breadth(&self) -> Option<usize> {
        let settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        settings.uses_indexes().then(|| settings.search_breadth())
    }
}

impl VectorIndexes {
    /// None in memory yet; `limit` bytes at most.
    pub fn new(store: Store, limit: u64) -> VectorIndexes {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        VectorIndexes { store, limit, kept: Mutex::default(), stop: CancellationToken::new() }
    }

    /// Makes an index of a table's rows and keeps its data. Blocks. `stop` is asked again and again.
    ///
    /// # Errors
    /// 53200 if it would take more memory than indexes may, 57014 once `stop` says so, and the storage's.
    pub fn build(
        &self,
        table: &Table,
        index: &VectorIndex,
        dim: usize,
        stop: &dyn Fn() -> bool,
    ) -> Result<(), SqlError> {
        let needed = memory_for(table, index, dim);
        if needed > self.limit {
            return Err(SqlError::new(
                SqlState::OUT_OF_MEMORY,
                format!(
                    "index \"{}\" would take {} MiB, more than the {} MiB that indexes may",
                    index.name,
                    needed >> 20,
                    self.limit >> 20
                ),
            )
            .with_hint("--index-memory-bytes raises the limit."));
        }
        let mut made = IndexedRows::new(index, dim).map_err(ml_error)?;
        made.take_in(table, index.column, stop)?;
        self.put(index.oid, made)
    }

    /// An index that is in memory.
    pub fn in_memory(&self, oid: u32) -> Option<Arc<IndexedRows>> {
        let mut kept = self.kept();
        kept.clock += 1;
        let clock = kept.clock;
        let (found, used) = kept.indexes.get_mut(&oid)?;
        *used = clock;
        Some(found.clone())
    }

    /// An index that is in memory, or is read into it. Blocks. `None` if there are no data of it, none that can be read, or more
    /// than fit.
    pub fn get(&self, index: &VectorIndex) -> Option<Arc<IndexedRows>> {
        if let Some(found) = self.in_memory(index.oid) {
            return Some(found);
        }
        let read = self.store.index_data(index.oid).map_err(storage_error).and_then(|bytes| {
            bytes.map(|bytes| IndexedRows::from_bytes(&bytes).map_err(ml_error)).transpose()
        });
        match read {
            Ok(found) => {
                let found = Arc::new(found.filter(|found| found.memory() <= self.limit)?);
                self.keep(index.oid, found.clone());
                Some(found)
            }
            Err(error) => {
                tracing::error!(
                    index = index.name,
                    error = error.message,
                    "an index is not readable, searches compare all rows"
                );
                None
            }
        }
    }

    /// Brings an index up to date in the background if it has fallen behind a table.
    pub fn refresh(self: &Arc<Self>, table: &Table, index: &VectorIndex, is: &IndexedRows) {
        let fits = memory_for(table, index, is.dim()) <= self.limit;
        if !fits || !is.is_behind(table) || !self.kept().busy.insert(index.oid) {
            return;
        }
        let (indexes, table, index) = (self.clone(), table.clone(), index.clone());
        let (dim, mut next) = (is.dim(), is.continued(&table));
        tokio::task::spawn_blocking(move || {
            let started = std::time::Instant::now();
            let done = match next.take() {
                Some(next) => Ok(next),
                None => IndexedRows::new(&index, dim).map_err(ml_error),
            }
            .and_then(|mut next| {
                next.take_in(&table, index.column, &|| indexes.stop.is_cancelled())?;
                indexes.put(index.oid, next)
            });
            indexes.kept().busy.remove(&index.oid);
            match done {
                Ok(()) => tracing::info!(
                    index = index.name,
                    seconds = started.elapsed().as_secs_f64(),
                    "an index was brought up to date"
                ),
                Err(_) if indexes.stop.is_cancelled() => {}
                Err(error) => tracing::error!(
                    index = index.name,
                    error = error.message,
                    "an index was not brought up to date"
                ),
            }
        });
    }

    /// Ends what goes on in the background, for the server's end.
    pub fn shutdown(&self) {
        self.stop.cancel();
    }

    fn put(&self, oid: u32, made: IndexedRows) -> Result<(), SqlError> {
        self.store.put_index_data(oid, &made.to_bytes()).map_err(storage_error)?;
        self.keep(oid, Arc::new(made));
        Ok(())
    }

    fn keep(&self, oid: u32, index: Arc<IndexedRows>) {
        let mut kept = self.kept();
        kept.clock += 1;
        let clock = kept.clock;
        kept.indexes.insert(oid, (index, clock));
        loop {
            let bytes: usize = kept.indexes.values().map(|(index, _)| index.memory()).sum();
            if bytes <= self.limit {
                break;
            }
            let oldest = kept.indexes.iter().min_by_key(|(_, (_, used))| *used);
            let Some(oldest) = oldest.map(|(oid, _)| *oid) else { break };
            kept.indexes.remove(&oldest);
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
