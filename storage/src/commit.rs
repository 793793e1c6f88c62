//! Commits: checking for conflicts, swapping manifests, and one flush for many.
//!
//! The steps, and what a crash after each leaves behind:
//!
//! 1. Large rests of appended rows are written (garbage: swept at the next opening).
//! 2. Under the commit lock: the changes are checked against the *head*, the newest state, durable or not, and redone
//!    on it; small rests are merged with small row groups and written (garbage).
//! 3. One atomic batch swaps all manifests and models (all or nothing; until the flush it may be nothing).
//! 4. The head moves on, the lock is free, the next commit can build on this one.
//! 5. The log is flushed. Commits that wait here at the same time share a flush.
//! 6. The state is published: snapshots from now on have it. So nobody reads what could still be lost.
//!
//! # Conflicts
//!
//! First committer wins, row by row where rows are concerned. A table that another transaction has changed since
//! this one began is no obstacle to appending rows, nor to deleting rows that are still there. It is one to deleting a
//! row that is gone or was moved by a merge, and to dropping, truncating, renaming and redefining; nor may rows be appended
//! to a table that was redefined since. Two transactions that put or drop the same model, or give the same name to
//! something, conflict. Of two that append the same value of a key, the second finds the first one's row here.
//!
//! # Merging
//!
//! A commit that appends n rows takes in the last row groups for as long as they have no more rows than what it
//! already holds: like carrying in a binary counter. Each row is rewritten some 13 times at most on its way to a full row
//! group, and 10,000 single-row commits leave a dozen groups and not 10,000.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use arrow::array::Array;
use arrow::compute::concat_batches;

use crate::StoreInner;
use crate::columns;
use crate::error::{Result, StorageError};
use crate::index_data::indexes_of;
use crate::keys::{Counter, Key};
use crate::kv::{Changes, Kv};
use crate::manifest::{self, GroupEntry, ModelRecord, TableManifest, ViewRecord};
use crate::models::ModelVersion;
use crate::piece::{Core, Unit};
use crate::row_group::{GroupVersion, MAX_GROUP_BYTES, MAX_GROUP_ROWS, Rows, StoredRows};
use crate::snapshot::{CatalogState, ViewVersion};
use crate::table::TableVersion;
use crate::transaction::{Pending, PendingTable, Tail, union};
use crate::unique::{self, KeyValues, Lookup};

/// The newest state. It may not be durable yet.
pub(crate) struct Head {
    pub(crate) state: Arc<CatalogState>,
    /// How many commits have been applied since the store was opened.
    pub(crate) sequence: u64,
}

/// Commits a transaction's changes.
pub(crate) fn commit(store: &StoreInner, base: &CatalogState, mut pending: Pending) -> Result<()> {
    for table in pending.tables.values_mut() {
        table.write_large_tail(&store.core)?;
    }
    let (sequence, state, forgotten) = {
        let mut head = store.head.lock().unwrap_or_else(PoisonError::into_inner);
        let mut draft = Draft::of(&store.core, &head.state);
        draft.change(base, &pending)?;
        let next_oid = u64::from(store.next_oid.load(Ordering::Relaxed));
        draft.changes.put(&Key::Counter(Counter::Oid), &next_oid.to_le_bytes());
        let forgotten = std::mem::take(&mut draft.forgotten);
        let state = Arc::new(draft.apply()?);
        head.state = Arc::clone(&state);
        head.sequence += 1;
        (head.sequence, state, forgotten)
    };
    // What the transaction holds is not needed any more; letting it go may order units to be swept.
    drop(pending);
    store.flush()?;
    store.publish(sequence, state);
    if let Err(error) = store.forget_indexes(&forgotten) {
        // The commit is done. The next opening removes them.
        tracing::warn!(%error, "data of dropped indexes are left behind");
    }
    Ok(())
}

/// The next state in the making.
struct Draft<'a> {
    core: &'a Arc<Core>,
    head: &'a CatalogState,
    next: CatalogState,
    changes: Changes,
    adopted: Vec<Arc<Unit>>,
    released: Vec<Arc<Unit>>,
    /// Indexes that no table names any more.
    forgotten: Vec<u32>,
}

impl<'a> Draft<'a> {
    fn of(core: &'a Arc<Core>, head: &'a CatalogState) -> Draft<'a> {
        Draft {
            core,
            head,
            next: head.clone(),
            changes: Changes::default(),
            adopted: Vec::new(),
            released: Vec::new(),
            forgotten: Vec::new(),
        }
    }

    /// Redoes a transaction's changes on the head, or finds that they do not go with it.
    fn change(&mut self, base: &CatalogState, pending: &Pending) -> Result<()> {
        // Names that become free do so before others are given.
        for table in pending.dropped_tables.values() {
            self.drop_table(table)?;
        }
        for view in pending.dropped_views.values() {
            self.drop_view(view)?;
        }
        let mut tables = Vec::new();
        for table in pending.tables.values().filter(|table| table.is_changed()) {
            let before = self.before(table)?;
            if let Some(before) = &before {
                self.next.tables.remove(&before.name);
            }
            tables.push((table, before));
        }
        for (table, before) in tables {
            let after = self.redo(table, before.as_deref())?;
            self.put_table(after)?;
        }
        for view in pending.views.values() {
            self.create_view(view)?;
        }
        for (name, model) in &pending.models {
            let version = pending.model_versions.get(name).copied();
            self.change_model(base, name, model.as_ref(), version)?;
        }
        Ok(())
    }

    /// Writes the changes; the units change hands.
    fn apply(self) -> Result<CatalogState> {
        self.core.kv.apply(self.changes)?;
        for unit in &self.adopted {
            unit.set_garbage(false);
        }
        for unit in &self.released {
            unit.set_garbage(true);
        }
        Ok(self.next)
    }

    /// The head's version of a table that a transaction has changed; `None` for a new table.
    fn before(&self, table: &PendingTable) -> Result<Option<Arc<TableVersion>>> {
        let Some(base) = &table.base else { return Ok(None) };
        let conflict = || StorageError::Conflict { name: table.name.clone() };
        let before = self.head.table_by_oid(base.oid, &base.name).ok_or_else(conflict)?;
        if before.version != base.version
            && (table.truncated || table.renamed || table.redefined || before.schema != base.schema)
        {
            return Err(conflict());
        }
        Ok(Some(Arc::clone(before)))
    }

    fn redo(
        &mut self,
        table: &PendingTable,
        before: Option<&TableVersion>,
    ) -> Result<TableVersion> {
        let conflict = || StorageError::Conflict { name: table.name.clone() };
        let mut after = match before {
            Some(before) => TableVersion { version: before.version + 1, ..before.clone() },
            None => TableVersion {
                oid: table.oid,
                name: table.name.clone(),
                version: 1,
                schema: Arc::clone(&table.schema),
                keys: Arc::clone(&table.keys),
                next_group: 0,
                groups: Vec::new(),
            },
        };
        if table.redefined {
            let named = indexes_of(&table.schema);
            self.forgotten
                .extend(indexes_of(&after.schema).into_iter().filter(|oid| !named.contains(oid)));
            after.schema = Arc::clone(&table.schema);
            after.keys = Arc::clone(&table.keys);
        }
        if table.renamed {
            after.name.clone_from(&table.name);
        }
        if table.truncated {
            for group in std::mem::take(&mut after.groups) {
                self.release(after.oid, &group);
            }
        }
        for (id, rows) in &table.deleted {
            let index =
                after.groups.iter().position(|group| group.id == *id).ok_or_else(conflict)?;
            let group = &mut after.groups[index];
            if group.deleted.as_ref().is_some_and(|deleted| !deleted.is_disjoint(rows)) {
                return Err(conflict());
            }
            let deleted = union(group.deleted.as_deref(), rows);
            group.deleted = Some(Arc::clone(&deleted));
            if group.live_rows() == 0 {
                let group = after.groups.remove(index);
                self.release(after.oid, &group);
            } else {
                self.changes
                    .put(&Key::Deletions(after.oid, *id), &manifest::encode_bitmap(&deleted));
            }
        }
        if let Some(base) = table.base.as_ref().filter(|base| base.version + 1 != after.version) {
            check_keys_again(&after, base, table)?;
        }
        for group in table.own.iter().filter(|group| group.live_rows() > 0) {
            self.add(&mut after, group.rows.clone(), group.deleted.clone())?;
        }
        if let Some(tail) = &table.tail {
            self.merge(&mut after, &tail.group())?;
        }
        Ok(after)
    }

    /// Appends the rest of a transaction's rows, together with the row groups before it that are no larger.
    fn merge(&mut self, table: &mut TableVersion, tail: &GroupVersion) -> Result<()> {
        let mut rows = tail.live_rows();
        if rows == 0 {
            return Ok(());
        }
        let mut bytes = tail.bytes();
        let mut batches = vec![tail.batch(&table.schema)?];
        while let Some(last) = table.groups.last() {
            if last.live_rows() > rows
                || last.live_rows() + rows > MAX_GROUP_ROWS
                || last.bytes() + bytes > MAX_GROUP_BYTES
            {
                break;
            }
            rows += last.live_rows();
            bytes += last.bytes();
            batches.push(last.batch(&table.schema)?);
            let last = last.clone();
            table.groups.pop();
            self.release(table.oid, &last);
        }
        batches.reverse();
        let batch = match batches.as_slice() {
            [batch] => batch.clone(),
            _ if table.schema.fields().is_empty() => {
                columns::batch_of(&table.schema, Vec::new(), rows)?
            }
            batches => {
                concat_batches(&table.schema, batches).map_err(StorageError::arrow("join"))?
            }
        };
        let stored = StoredRows::write(self.core, &batch, &table.keys)?;
        self.add(table, Rows::Stored(stored), None)
    }

    /// Adds a row group under the table's next id.
    fn add(
        &mut self,
        table: &mut TableVersion,
        rows: Rows,
        deleted: Option<Arc<roaring::RoaringBitmap>>,
    ) -> Result<()> {
        let id = table.next_group;
        table.next_group =
            id.checked_add(1).ok_or(StorageError::Exhausted { what: "row group ids" })?;
        if let Rows::Stored(stored) = &rows {
            self.changes.put(&Key::Group(table.oid, id), &manifest::encode_group(&stored.record));
            self.adopt(&stored.unit);
        }
        if let Some(deleted) = &deleted {
            self.changes.put(&Key::Deletions(table.oid, id), &manifest::encode_bitmap(deleted));
        }
        table.groups.push(GroupVersion { id, rows, deleted });
        Ok(())
    }

    /// Takes a row group out of the records.
    fn release(&mut self, oid: u32, group: &GroupVersion) {
        self.changes.remove(&Key::Group(oid, group.id));
        if group.deleted.is_some() {
            self.changes.remove(&Key::Deletions(oid, group.id));
        }
        if let Rows::Stored(stored) = &group.rows {
            self.let_go(&stored.unit);
        }
    }

    fn put_table(&mut self, table: TableVersion) -> Result<()> {
        self.check_name(&table.name)?;
        let record = TableManifest {
            oid: table.oid,
            name: table.name.clone(),
            version: table.version,
            schema: columns::encode_schema(&table.schema)?,
            next_group: table.next_group,
            groups: table
                .groups
                .iter()
                .map(|group| GroupEntry { id: group.id, deleted: group.deleted_rows() as u32 })
                .collect(),
        };
        self.changes.put(&Key::Manifest(table.oid), &manifest::encode(&record));
        self.next.tables.insert(table.name.clone(), Arc::new(table));
        Ok(())
    }

    fn drop_table(&mut self, base: &TableVersion) -> Result<()> {
        let before = self.head.table_by_oid(base.oid, &base.name);
        let Some(before) = before.filter(|before| before.version == base.version) else {
            return Err(StorageError::Conflict { name: base.name.clone() });
        };
        self.next.tables.remove(&before.name);
        self.changes.remove(&Key::Manifest(before.oid));
        self.forgotten.extend(indexes_of(&before.schema));
        for group in &before.groups {
            self.release(before.oid, group);
        }
        Ok(())
    }

    fn create_view(&mut self, view: &Arc<ViewVersion>) -> Result<()> {
        self.check_name(&view.name)?;
        let record = ViewRecord {
            oid: view.oid,
            name: view.name.clone(),
            version: view.version,
            definition: view.definition.clone(),
            schema: columns::encode_schema(&view.schema)?,
        };
        self.changes.put(&Key::View(view.oid), &manifest::encode(&record));
        self.next.views.insert(view.name.clone(), Arc::clone(view));
        Ok(())
    }

    fn drop_view(&mut self, base: &ViewVersion) -> Result<()> {
        if self.head.views.get(&base.name).is_none_or(|view| view.oid != base.oid) {
            return Err(StorageError::Conflict { name: base.name.clone() });
        }
        self.next.views.remove(&base.name);
        self.changes.remove(&Key::View(base.oid));
        Ok(())
    }

    /// `last_version` is what the transaction counted the name up to, if it put a model there.
    fn change_model(
        &mut self,
        base: &CatalogState,
        name: &str,
        after: Option<&Arc<ModelVersion>>,
        last_version: Option<u64>,
    ) -> Result<()> {
        let identity = |state: &CatalogState| {
            let model = state.models.get(name).map(|model| (model.oid, model.version));
            (model, state.model_versions.get(name).copied())
        };
        if identity(base) != identity(self.head) {
            return Err(StorageError::Conflict { name: name.to_owned() });
        }
        if let Some(before) = self.next.models.remove(name) {
            self.changes.remove(&Key::Model(before.oid));
            self.let_go(&before.unit);
        }
        if let Some(version) = last_version {
            self.changes.put(&Key::ModelVersion(name.to_owned()), &version.to_le_bytes());
            self.next.model_versions.insert(name.to_owned(), version);
        }
        if let Some(after) = after {
            let record = ModelRecord {
                oid: after.oid,
                name: after.name.clone(),
                version: after.version,
                metadata: after.metadata.clone(),
                unit: after.unit.id(),
                parts: after.parts.clone(),
            };
            self.changes.put(&Key::Model(after.oid), &manifest::encode(&record));
            self.adopt(&after.unit);
            self.next.models.insert(name.to_owned(), Arc::clone(after));
        }
        Ok(())
    }

    fn check_name(&self, name: &str) -> Result<()> {
        if self.next.tables.contains_key(name) || self.next.views.contains_key(name) {
            return Err(StorageError::Conflict { name: name.to_owned() });
        }
        Ok(())
    }

    fn adopt(&mut self, unit: &Arc<Unit>) {
        self.changes.remove(&Key::Garbage(unit.id()));
        self.adopted.push(Arc::clone(unit));
    }

    fn let_go(&mut self, unit: &Arc<Unit>) {
        self.changes.put(&Key::Garbage(unit.id()), &[]);
        self.released.push(Arc::clone(unit));
    }
}

/// Looks for a transaction's rows among those that came into the table since it began; it has compared them with all others.
fn check_keys_again(now: &TableVersion, base: &TableVersion, table: &PendingTable) -> Result<()> {
    let new: Vec<&GroupVersion> =
        now.groups.iter().filter(|group| base.group(group.id).is_none()).collect();
    let appended = table.own.iter().cloned().chain(table.tail.as_ref().map(Tail::group));
    for rows in appended.filter(|rows| rows.live_rows() > 0) {
        for key in now.keys.iter() {
            let (columns, _) = rows.read(&now.schema, Some(&key.columns))?;
            let values = KeyValues::of(&columns)?;
            let lookup = Lookup::new(&now.schema, key, &columns, &values);
            for group in &new {
                let mut repeated = None;
                lookup.in_group(
                    group,
                    |offset| group.is_deleted(offset),
                    |row, _| {
                        repeated = Some(row);
                        false
                    },
                )?;
                if let Some(row) = repeated {
                    let values = columns.iter().map(|column| column.slice(row, 1)).collect();
                    let name = now.plain_name();
                    return Err(unique::violation(name, &now.schema, key, values, false));
                }
            }
        }
    }
    Ok(())
}

/// Lets concurrent callers share a flush: one of them flushes for all that came before it started.
#[derive(Default)]
pub(crate) struct GroupFlush {
    state: Mutex<FlushState>,
    changed: Condvar,
}

#[derive(Default)]
struct FlushState {
    /// Callers so far; a caller's number is its ticket.
    asked: u64,
    /// The highest ticket whose writes are on disk.
    done: u64,
    running: bool,
    failed: bool,
}

impl GroupFlush {
    /// Returns once everything that this caller has written is on disk.
    pub(crate) fn wait(&self, kv: &Kv) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.asked += 1;
        let ticket = state.asked;
        loop {
            if state.done >= ticket {
                return Ok(());
            }
            if state.failed {
                return Err(StorageError::Stopped);
            }
            if state.running {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.running = true;
            let covered = state.asked;
            drop(state);
            let flushed = kv.flush();
            state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.running = false;
            match flushed {
                Ok(()) => state.done = covered,
                Err(_) => state.failed = true,
            }
            self.changed.notify_all();
            flushed?;
        }
    }
}
