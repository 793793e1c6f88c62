//! A transaction's own changes, kept aside until its commit.
//!
//! A transaction starts from a snapshot and notes what it does to each object. [`Transaction::snapshot`] lays the notes
//! over the snapshot, so it reads its own changes; nobody else does. Rows that it appends wait in memory until they fill
//! a row group, which is then written as a unit that is garbage until the commit: memory stays bounded by one row group a
//! table, and a rollback, which is dropping the transaction, has nothing to undo.
//!
//! Row ids stay valid while the transaction goes on: row groups are merged, renumbered and left out when empty by the
//! commit only.
//!
//! Timeline of two transactions on one table (the rules are in [`crate::commit`]):
//!
//! ```text
//! A: begin   append 1 row                     commit: ok
//! B: begin            delete row 7                       commit: ok, other rows
//! C: begin            delete row 7                                  commit: Conflict, B was first
//! ```

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, OnceLock};

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use roaring::RoaringBitmap;

use crate::columns;
use crate::error::{ObjectKind, Result, StorageError};
use crate::models::{self, ModelEntry, ModelVersion};
use crate::piece::{Core, Unit};
use crate::row_group::{
    GroupVersion, MAX_GROUP_BYTES, MAX_GROUP_ROWS, MemoryRows, Rows, StoredRows,
};
use crate::snapshot::{CatalogState, Snapshot, ViewVersion, temporary_name};
use crate::table::{TableVersion, split_row_id};
use crate::unique::{self, GrowingIndex, KeyValues, Lookup, UniqueKey};
use crate::{StoreInner, commit};

/// A caller's own rule for rows, such as CHECK: asked before rows are appended.
pub trait RowCheck: Send + Sync {
    /// An error refuses the rows; it travels as [`StorageError::Refused`].
    fn check(
        &self,
        table: &str,
        schema: &SchemaRef,
        rows: &RecordBatch,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;
}

/// On whose behalf a transaction runs.
#[derive(Clone, Default)]
pub struct Owner {
    /// Whose temporary tables are seen and made.
    pub session: Option<u64>,
    /// Asked about rows.
    pub check: Option<Arc<dyn RowCheck>>,
}

/// A transaction. Dropping it without [`Transaction::commit`] rolls it back.
pub struct Transaction {
    store: Arc<StoreInner>,
    owner: Owner,
    base: Arc<CatalogState>,
    pending: Pending,
    /// What [`Transaction::snapshot`] gives until the next change.
    current: OnceLock<Arc<CatalogState>>,
}

/// A point in a transaction to go back to.
pub struct Savepoint {
    pending: Pending,
}

/// What a transaction has changed.
#[derive(Clone, Default)]
pub(crate) struct Pending {
    /// Tables created or changed, by OID.
    pub(crate) tables: BTreeMap<u32, PendingTable>,
    /// Tables of the base snapshot that are dropped.
    pub(crate) dropped_tables: BTreeMap<u32, Arc<TableVersion>>,
    /// Views created, by name.
    pub(crate) views: BTreeMap<String, Arc<ViewVersion>>,
    /// Views of the base snapshot that are dropped.
    pub(crate) dropped_views: BTreeMap<String, Arc<ViewVersion>>,
    /// What each touched model name stands for now.
    pub(crate) models: BTreeMap<String, Option<Arc<ModelVersion>>>,
    /// The last version that each touched model name has had.
    pub(crate) model_versions: BTreeMap<String, u64>,
}

/// A table that a transaction has created or changed.
#[derive(Clone)]
pub(crate) struct PendingTable {
    pub(crate) oid: u32,
    pub(crate) name: String,
    pub(crate) schema: SchemaRef,
    pub(crate) keys: Arc<Vec<UniqueKey>>,
    /// The version that the transaction started from; `None` when it created the table.
    pub(crate) base: Option<Arc<TableVersion>>,
    pub(crate) renamed: bool,
    /// The schema is another than the base's.
    pub(crate) redefined: bool,
    /// The base's rows are all gone.
    pub(crate) truncated: bool,
    /// Rows of the base's groups that this transaction deleted.
    pub(crate) deleted: BTreeMap<u32, RoaringBitmap>,
    /// Row groups that this transaction has written.
    pub(crate) own: Vec<GroupVersion>,
    /// Appended rows that do not fill a row group yet; its rows are in memory.
    pub(crate) tail: Option<Tail>,
    next_group: u32,
}

/// The row group that a transaction appends to.
#[derive(Clone)]
pub(crate) struct Tail {
    id: u32,
    rows: Arc<MemoryRows>,
    deleted: RoaringBitmap,
    /// The table's keys' indexes of these rows.
    indexes: Arc<Vec<GrowingIndex>>,
}

impl Transaction {
    pub(crate) fn new(
        store: Arc<StoreInner>,
        base: Arc<CatalogState>,
        owner: Owner,
    ) -> Transaction {
        Transaction { store, owner, base, pending: Pending::default(), current: OnceLock::new() }
    }

    /// The snapshot that the transaction started from with its own changes laid over it. It stays as it is when the
    /// transaction goes on.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::new(Arc::clone(self.state()), self.owner.session)
    }

    /// An object id that nothing else has, for something that the caller keeps in a schema.
    pub fn new_oid(&self) -> Result<u32> {
        self.store.next_oid()
    }

    /// Whether there is anything to commit.
    pub fn is_dirty(&self) -> bool {
        let Pending { tables, dropped_tables, views, dropped_views, models, model_versions: _ } =
            &self.pending;
        tables.values().any(PendingTable::is_changed)
            || !dropped_tables.is_empty()
            || !views.is_empty()
            || !dropped_views.is_empty()
            || !models.is_empty()
    }

    /// Creates an empty table and returns its OID. The schema's metadata and its fields' are kept; keys are a part of it
    /// ([`with_keys`](crate::with_keys)).
    pub fn create_table(&mut self, name: &str, schema: SchemaRef) -> Result<u32> {
        self.create(name, schema)
    }

    /// The same for a table that this session alone sees, before others of its name, until [`Store::drop_temporary`](crate::Store::drop_temporary).
    ///
    /// # Panics
    ///
    /// When the transaction has no session.
    pub fn create_temporary_table(&mut self, name: &str, schema: SchemaRef) -> Result<u32> {
        let session = self.owner.session.expect("a temporary table belongs to a session");
        self.create(&temporary_name(session, name), schema)
    }

    fn create(&mut self, name: &str, schema: SchemaRef) -> Result<u32> {
        self.check_relation_name(name)?;
        let keys = unique::keys_of(&schema, name)?;
        let oid = self.store.next_oid()?;
        self.changed().tables.insert(
            oid,
            PendingTable {
                oid,
                name: name.to_owned(),
                schema,
                keys,
                base: None,
                renamed: false,
                redefined: false,
                truncated: false,
                deleted: BTreeMap::new(),
                own: Vec::new(),
                tail: None,
                next_group: 0,
            },
        );
        Ok(oid)
    }

    /// Drops a table with its rows.
    pub fn drop_table(&mut self, name: &str) -> Result<()> {
        let oid = self.table_mut(name)?.oid;
        let pending = self.changed();
        if let Some(PendingTable { base: Some(base), .. }) = pending.tables.remove(&oid) {
            pending.dropped_tables.insert(oid, base);
        }
        Ok(())
    }

    /// Gives a table another name; it keeps its OID.
    pub fn rename_table(&mut self, from: &str, to: &str) -> Result<()> {
        self.table_mut(from)?;
        if from == to {
            return Ok(());
        }
        let temporary = self.temporary_key(from);
        let to = match (temporary, self.owner.session) {
            (Some(_), Some(session)) => temporary_name(session, to),
            _ => to.to_owned(),
        };
        self.check_relation_name(&to)?;
        let table = self.table_mut(from)?;
        table.name = to;
        table.renamed = true;
        self.changed();
        Ok(())
    }

    /// Gives a table another schema: other names, defaults, keys, metadata. The types can change only while it has no rows.
    /// Rows that are there must hold to new keys ([`StorageError::NotUnique`]) and have no NULL where none may be any more.
    pub fn redefine_table(&mut self, name: &str, schema: SchemaRef) -> Result<()> {
        let table = self.table_mut(name)?;
        let version = table.version();
        let mismatch =
            |detail: String| StorageError::SchemaMismatch { table: name.to_owned(), detail };
        let keys = unique::keys_of(&schema, name)?;
        if version.groups.iter().any(|group| group.live_rows() > 0) {
            let types = |schema: &SchemaRef| -> Vec<_> {
                schema.fields().iter().map(|field| field.data_type().clone()).collect()
            };
            if types(&schema) != types(&table.schema) {
                return Err(mismatch("its rows have other columns".to_owned()));
            }
            for (column, field) in schema.fields().iter().enumerate() {
                if field.is_nullable() || !table.schema.field(column).is_nullable() {
                    continue;
                }
                for group in &version.groups {
                    let (columns, _) = group.read(&table.schema, Some(&[column]))?;
                    if columns.iter().any(|column| column.logical_null_count() > 0) {
                        return Err(StorageError::NotNull {
                            table: version.plain_name().to_owned(),
                            column: field.name().clone(),
                        });
                    }
                }
            }
            for key in keys.iter() {
                // Another name changes nothing of what is unique.
                let is_old = |old: &UniqueKey| old.oid == key.oid && old.columns == key.columns;
                if table.keys.iter().any(is_old) {
                    continue;
                }
                if let Some(values) = unique::repeated(&version.groups, &table.schema, key)? {
                    return Err(unique::violation(
                        version.plain_name(),
                        &schema,
                        key,
                        values,
                        true,
                    ));
                }
            }
        } else if table.schema.fields() != schema.fields() {
            table.clear();
        }
        table.schema = schema;
        table.keys = keys;
        table.redefined = true;
        if let Some(tail) = &mut table.tail {
            tail.indexes = Arc::new(indexes_of(&tail.rows, &table.schema, &table.keys)?);
        }
        self.changed();
        Ok(())
    }

    /// Appends rows. The batch's columns are the table's, in order and type; names are not looked at. A batch that does not
    /// fit ([`StorageError::SchemaMismatch`], [`StorageError::NotNull`]), that repeats a key ([`StorageError::NotUnique`]) or that
    /// the owner's rule refuses ([`StorageError::Refused`]) changes nothing.
    pub fn append(&mut self, table: &str, batch: &RecordBatch) -> Result<()> {
        let core = Arc::clone(&self.store.core);
        let check = self.owner.check.clone();
        let plain_name = table;
        let table = self.table_mut(table)?;
        let batch = columns::fit(plain_name, &table.schema, batch)?;
        if let Some(check) = check {
            check
                .check(plain_name, &table.schema, &batch)
                .map_err(|source| StorageError::Refused { table: plain_name.to_owned(), source })?;
        }
        let values = table.key_values(&batch)?;
        table.check_keys(plain_name, &batch, &values)?;
        table.append(&core, &batch, &values)?;
        self.changed();
        Ok(())
    }

    /// Deletes rows by the ids that [`Table::read_group_with_row_ids`](crate::Table::read_group_with_row_ids) gave in
    /// this transaction's snapshot, now or earlier. Returns how many of them were still there.
    pub fn delete_rows(&mut self, table: &str, row_ids: &[u64]) -> Result<u64> {
        let deleted = self.table_mut(table)?.delete(row_ids)?;
        self.changed();
        Ok(deleted)
    }

    /// Deletes all rows.
    pub fn truncate(&mut self, table: &str) -> Result<()> {
        self.table_mut(table)?.clear();
        self.changed();
        Ok(())
    }

    /// Stores a query under a name. `schema` is what the query yields now.
    pub fn create_view(
        &mut self,
        name: &str,
        definition_sql: &str,
        schema: SchemaRef,
    ) -> Result<u32> {
        self.check_relation_name(name)?;
        let oid = self.store.next_oid()?;
        let view = ViewVersion {
            oid,
            name: name.to_owned(),
            version: 1,
            definition: definition_sql.to_owned(),
            schema,
        };
        self.changed().views.insert(name.to_owned(), Arc::new(view));
        Ok(oid)
    }

    /// Drops a view.
    pub fn drop_view(&mut self, name: &str) -> Result<()> {
        let base = self.base.views.get(name).cloned();
        let pending = self.changed();
        if pending.views.remove(name).is_some() {
            return Ok(());
        }
        match base {
            Some(view) if !pending.dropped_views.contains_key(name) => {
                pending.dropped_views.insert(name.to_owned(), view);
                Ok(())
            }
            _ => Err(StorageError::NotFound { kind: ObjectKind::View, name: name.to_owned() }),
        }
    }

    /// Puts a model under a name, in place of the one that may be there. The parts are written at once, the name changes
    /// hands with the commit.
    pub fn put_model(
        &mut self,
        name: &str,
        metadata: &[u8],
        parts: &[(&str, &[u8])],
    ) -> Result<ModelEntry> {
        let oid = match self.state().models.get(name) {
            Some(replaced) => replaced.oid,
            None => self.store.next_oid()?,
        };
        let version = self.state().model_versions.get(name).copied().unwrap_or(0) + 1;
        let unit = Unit::create(&self.store.core)?;
        let parts = models::write_parts(&unit, parts)?;
        let model = Arc::new(ModelVersion {
            oid,
            name: name.to_owned(),
            version,
            metadata: metadata.to_vec(),
            unit,
            parts,
        });
        let pending = self.changed();
        pending.models.insert(name.to_owned(), Some(Arc::clone(&model)));
        pending.model_versions.insert(name.to_owned(), version);
        Ok(ModelEntry::new(model))
    }

    /// Drops a model. Its name remembers its version.
    pub fn drop_model(&mut self, name: &str) -> Result<()> {
        if !self.state().models.contains_key(name) {
            return Err(StorageError::NotFound { kind: ObjectKind::Model, name: name.to_owned() });
        }
        self.changed().models.insert(name.to_owned(), None);
        Ok(())
    }

    /// A point to go back to with [`Transaction::rollback_to`].
    pub fn savepoint(&self) -> Savepoint {
        Savepoint { pending: self.pending.clone() }
    }

    /// Undoes everything since the savepoint, which stays usable. It must be one of this transaction's own.
    pub fn rollback_to(&mut self, savepoint: &Savepoint) {
        *self.changed() = savepoint.pending.clone();
    }

    /// Makes the changes durable and visible, all or none. When it returns `Ok`, they survive the process.
    ///
    /// [`StorageError::Conflict`] means that another transaction was first; nothing of this one is left then.
    pub fn commit(self) -> Result<()> {
        if !self.is_dirty() {
            return Ok(());
        }
        commit::commit(&self.store, &self.base, self.pending)
    }

    /// The state that this transaction sees.
    fn state(&self) -> &Arc<CatalogState> {
        self.current.get_or_init(|| {
            if self.is_dirty() {
                Arc::new(self.pending.laid_over(&self.base))
            } else {
                Arc::clone(&self.base)
            }
        })
    }

    /// The changes, to be changed.
    fn changed(&mut self) -> &mut Pending {
        self.current = OnceLock::new();
        &mut self.pending
    }

    /// The name under which this session's temporary table of that name is kept, if there is one.
    fn temporary_key(&self, name: &str) -> Option<String> {
        let key = temporary_name(self.owner.session?, name);
        self.pending.oid_of(&self.base, &key).map(|_| key)
    }

    fn check_relation_name(&self, name: &str) -> Result<()> {
        let state = self.state();
        let kind = if state.tables.contains_key(name) {
            ObjectKind::Table
        } else if state.views.contains_key(name) {
            ObjectKind::View
        } else {
            return Ok(());
        };
        Err(StorageError::Exists { kind, name: name.to_owned() })
    }

    /// The notes on a table, which is taken from the base snapshot when it has none yet. Notes that say nothing change
    /// nothing, so this alone does not make the transaction dirty.
    fn table_mut(&mut self, name: &str) -> Result<&mut PendingTable> {
        let temporary = self.temporary_key(name);
        let key = temporary.as_deref().unwrap_or(name);
        let missing = || StorageError::NotFound { kind: ObjectKind::Table, name: name.to_owned() };
        let oid = self.pending.oid_of(&self.base, key).ok_or_else(missing)?;
        Ok(match self.pending.tables.entry(oid) {
            Entry::Occupied(noted) => noted.into_mut(),
            Entry::Vacant(none) => {
                none.insert(PendingTable::of(self.base.tables.get(key).ok_or_else(missing)?))
            }
        })
    }
}

impl Pending {
    /// The OID of the table that has a name now.
    fn oid_of(&self, base: &CatalogState, name: &str) -> Option<u32> {
        if let Some(noted) = self.tables.values().find(|table| table.name == name) {
            return Some(noted.oid);
        }
        let oid = base.tables.get(name)?.oid;
        let has_gone = self.tables.contains_key(&oid) || self.dropped_tables.contains_key(&oid);
        (!has_gone).then_some(oid)
    }

    fn laid_over(&self, base: &CatalogState) -> CatalogState {
        let mut state = base.clone();
        for table in self.dropped_tables.values() {
            state.tables.remove(&table.name);
        }
        for table in self.tables.values() {
            if let Some(base) = &table.base {
                state.tables.remove(&base.name);
            }
        }
        for table in self.tables.values() {
            state.tables.insert(table.name.clone(), Arc::new(table.version()));
        }
        for name in self.dropped_views.keys() {
            state.views.remove(name);
        }
        for (name, view) in &self.views {
            state.views.insert(name.clone(), Arc::clone(view));
        }
        for (name, model) in &self.models {
            match model {
                Some(model) => state.models.insert(name.clone(), Arc::clone(model)),
                None => state.models.remove(name),
            };
        }
        for (name, version) in &self.model_versions {
            state.model_versions.insert(name.clone(), *version);
        }
        state
    }
}

impl PendingTable {
    fn of(base: &Arc<TableVersion>) -> PendingTable {
        PendingTable {
            oid: base.oid,
            name: base.name.clone(),
            schema: Arc::clone(&base.schema),
            keys: Arc::clone(&base.keys),
            base: Some(Arc::clone(base)),
            renamed: false,
            redefined: false,
            truncated: false,
            deleted: BTreeMap::new(),
            own: Vec::new(),
            tail: None,
            next_group: base.next_group,
        }
    }

    /// Whether a commit has anything to do for the table.
    pub(crate) fn is_changed(&self) -> bool {
        self.base.is_none()
            || self.renamed
            || self.redefined
            || self.truncated
            || !self.deleted.is_empty()
            || !self.own.is_empty()
            || self.tail.is_some()
    }

    /// Writes the tail as a row group when there is little to gain from merging it with others at commit.
    pub(crate) fn write_large_tail(&mut self, core: &Arc<Core>) -> Result<()> {
        let is_large = |tail: &Tail| {
            tail.rows.rows() >= MAX_GROUP_ROWS / 2 || tail.rows.bytes() >= MAX_GROUP_BYTES / 2
        };
        match self.tail.take_if(|tail| is_large(tail)) {
            Some(tail) => self.write(core, tail),
            None => Ok(()),
        }
    }

    fn version(&self) -> TableVersion {
        if !self.is_changed()
            && let Some(base) = &self.base
        {
            return TableVersion::clone(base);
        }
        let mut groups = Vec::new();
        if let Some(base) = self.base.as_ref().filter(|_| !self.truncated) {
            for group in &base.groups {
                let mut group = group.clone();
                if let Some(deleted) = self.deleted.get(&group.id) {
                    group.deleted = Some(union(group.deleted.as_deref(), deleted));
                }
                groups.push(group);
            }
        }
        groups.extend(self.own.iter().cloned());
        groups.extend(self.tail.as_ref().map(Tail::group));
        groups.retain(|group| group.live_rows() > 0);
        TableVersion {
            oid: self.oid,
            name: self.name.clone(),
            version: self.base.as_ref().map_or(1, |base| base.version + 1),
            schema: Arc::clone(&self.schema),
            keys: Arc::clone(&self.keys),
            next_group: self.next_group,
            groups,
        }
    }

    /// The values of each key in rows to be appended.
    fn key_values(&self, batch: &RecordBatch) -> Result<Vec<KeyValues>> {
        self.keys.iter().map(|key| KeyValues::of(&key.columns_of(batch))).collect()
    }

    /// Whether rows to be appended repeat a key among themselves or of rows that are there.
    fn check_keys(&self, table: &str, batch: &RecordBatch, values: &[KeyValues]) -> Result<()> {
        for (number, (key, values)) in self.keys.iter().zip(values).enumerate() {
            let columns = key.columns_of(batch);
            let lookup = Lookup::new(&self.schema, key, &columns, values);
            let mut repeated = lookup.first_repeated();
            let mut found = |row, _| {
                repeated = Some(row);
                false
            };
            if let Some(base) = self.base.as_ref().filter(|_| !self.truncated) {
                for group in &base.groups {
                    let gone = self.deleted.get(&group.id);
                    let is_deleted = |offset| {
                        group.is_deleted(offset) || gone.is_some_and(|gone| gone.contains(offset))
                    };
                    lookup.in_group(group, is_deleted, &mut found)?;
                }
            }
            for group in &self.own {
                lookup.in_group(group, |offset| group.is_deleted(offset), &mut found)?;
            }
            if let Some(tail) = &self.tail {
                let index = &tail.indexes[number];
                let is_deleted = |offset| tail.deleted.contains(offset);
                lookup.in_growing(&tail.group(), index, is_deleted, &mut found)?;
            }
            if let Some(row) = repeated {
                let values = columns.iter().map(|column| column.slice(row, 1)).collect();
                return Err(unique::violation(table, &self.schema, key, values, false));
            }
        }
        Ok(())
    }

    /// Takes all rows away.
    fn clear(&mut self) {
        self.truncated = self.base.is_some();
        self.deleted.clear();
        self.own.clear();
        self.tail = None;
    }

    fn append(
        &mut self,
        core: &Arc<Core>,
        batch: &RecordBatch,
        values: &[KeyValues],
    ) -> Result<()> {
        let mut start = 0;
        while start < batch.num_rows() {
            let mut tail = match self.tail.take() {
                Some(tail) => tail,
                None => Tail {
                    id: self.new_group_id()?,
                    rows: Arc::new(MemoryRows::empty(&self.schema)),
                    deleted: RoaringBitmap::new(),
                    indexes: Arc::new(vec![GrowingIndex::default(); self.keys.len()]),
                },
            };
            if let Some(taken) = rows_within(batch, start, &tail.rows) {
                let range = start..start + taken.num_rows();
                start = range.end;
                for (values, index) in values.iter().zip(Arc::make_mut(&mut tail.indexes)) {
                    index.extend(values, range.clone(), tail.rows.rows());
                }
                tail.rows = Arc::new(tail.rows.appended(&self.schema, taken)?);
                self.tail = Some(tail);
            } else {
                self.write(core, tail)?;
            }
        }
        match self.tail.take_if(|tail| tail.rows.rows() >= MAX_GROUP_ROWS) {
            Some(full) => self.write(core, full),
            None => Ok(()),
        }
    }

    /// Writes appended rows as a row group. Deleted ones are written too, so that offsets stay.
    fn write(&mut self, core: &Arc<Core>, tail: Tail) -> Result<()> {
        let whole = GroupVersion { id: tail.id, rows: Rows::Memory(tail.rows), deleted: None };
        let stored = StoredRows::write(core, &whole.batch(&self.schema)?, &self.keys)?;
        let deleted = (!tail.deleted.is_empty()).then(|| Arc::new(tail.deleted));
        self.own.push(GroupVersion { id: tail.id, rows: Rows::Stored(stored), deleted });
        Ok(())
    }

    fn delete(&mut self, row_ids: &[u64]) -> Result<u64> {
        let mut wanted: BTreeMap<u32, RoaringBitmap> = BTreeMap::new();
        for row_id in row_ids {
            let (group, offset) = split_row_id(*row_id);
            if offset as usize >= self.group_rows(group).unwrap_or(0) {
                return Err(StorageError::NoSuchRow { table: self.name.clone(), row_id: *row_id });
            }
            wanted.entry(group).or_default().insert(offset);
        }
        let mut count = 0;
        for (id, mut rows) in wanted {
            if let Some(tail) = self.tail.as_mut().filter(|tail| tail.id == id) {
                rows -= &tail.deleted;
                count += rows.len();
                tail.deleted |= rows;
            } else if let Some(group) = self.own.iter_mut().find(|group| group.id == id) {
                if let Some(deleted) = &group.deleted {
                    rows -= &**deleted;
                }
                count += rows.len();
                group.deleted = Some(union(group.deleted.as_deref(), &rows));
            } else {
                let base = self.base.as_ref().and_then(|base| base.group(id));
                if let Some(deleted) = base.and_then(|group| group.deleted.as_deref()) {
                    rows -= deleted;
                }
                if let Some(deleted) = self.deleted.get(&id) {
                    rows -= deleted;
                }
                if !rows.is_empty() {
                    count += rows.len();
                    *self.deleted.entry(id).or_default() |= rows;
                }
            }
        }
        Ok(count)
    }

    /// Number of rows of a group that this transaction can see or has seen.
    fn group_rows(&self, id: u32) -> Option<usize> {
        if let Some(tail) = self.tail.as_ref().filter(|tail| tail.id == id) {
            return Some(tail.rows.rows());
        }
        if let Some(group) = self.own.iter().find(|group| group.id == id) {
            return Some(group.total_rows());
        }
        let base = self.base.as_ref().filter(|_| !self.truncated)?;
        base.group(id).map(GroupVersion::total_rows)
    }

    fn new_group_id(&mut self) -> Result<u32> {
        let id = self.next_group;
        self.next_group =
            id.checked_add(1).ok_or(StorageError::Exhausted { what: "row group ids" })?;
        Ok(id)
    }
}

impl Tail {
    /// The tail as a row group in memory.
    pub(crate) fn group(&self) -> GroupVersion {
        GroupVersion {
            id: self.id,
            rows: Rows::Memory(Arc::clone(&self.rows)),
            deleted: (!self.deleted.is_empty()).then(|| Arc::new(self.deleted.clone())),
        }
    }
}

/// The indexes of rows in memory, made anew for a table that got other keys.
fn indexes_of(
    rows: &Arc<MemoryRows>,
    schema: &SchemaRef,
    keys: &[UniqueKey],
) -> Result<Vec<GrowingIndex>> {
    let group = GroupVersion { id: 0, rows: Rows::Memory(Arc::clone(rows)), deleted: None };
    keys.iter()
        .map(|key| {
            let mut index = GrowingIndex::default();
            let values = KeyValues::of(&group.whole_columns(schema, &key.columns)?)?;
            index.extend(&values, 0..values.rows(), 0);
            Ok(index)
        })
        .collect()
}

/// Both sets of rows.
pub(crate) fn union(deleted: Option<&RoaringBitmap>, more: &RoaringBitmap) -> Arc<RoaringBitmap> {
    Arc::new(match deleted {
        Some(deleted) => deleted | more,
        None => more.clone(),
    })
}

/// As many rows from `start` on as a row group takes beside those that it has; `None` when it takes none. An empty one
/// takes one row of any size.
fn rows_within(batch: &RecordBatch, start: usize, group: &MemoryRows) -> Option<RecordBatch> {
    let bytes_left = MAX_GROUP_BYTES.saturating_sub(group.bytes());
    let mut rows = (MAX_GROUP_ROWS - group.rows()).min(batch.num_rows() - start);
    while rows > 0 {
        let slice = batch.slice(start, rows);
        if columns::slice_bytes(&slice) <= bytes_left || (rows == 1 && group.rows() == 0) {
            return Some(slice);
        }
        rows /= 2;
    }
    None
}
