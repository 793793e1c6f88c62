//! A consistent view of everything committed.
//!
//! The whole catalog is in memory as one immutable value behind an [`Arc`]; a commit makes the next one. Taking a snapshot
//! is cloning a pointer, reading never waits for writing, and what a snapshot can reach stays on disk because it holds
//! the units' reference counts.
//!
//! A temporary table is a table whose name carries its session's number. A session's snapshot shows it under its plain
//! name, before a table of that name that everybody sees; other snapshots do not show it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;

use crate::models::{ModelEntry, ModelVersion};
use crate::table::{Table, TableVersion};

/// A consistent, immutable view of the store. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Snapshot {
    state: Arc<CatalogState>,
    /// Whose temporary tables are seen.
    session: Option<u64>,
}

/// What a temporary table's name starts with, and what stands between its session and its plain name.
const TEMPORARY: char = '\u{1}';

/// The name under which a session's temporary table is kept.
pub(crate) fn temporary_name(session: u64, name: &str) -> String {
    format!("{TEMPORARY}{session:016x}{TEMPORARY}{name}")
}

/// The session and the plain name of a temporary table.
fn temporary_parts(name: &str) -> Option<(u64, &str)> {
    let (session, name) = name.strip_prefix(TEMPORARY)?.split_once(TEMPORARY)?;
    Some((u64::from_str_radix(session, 16).ok()?, name))
}

/// The session of a temporary table's name.
pub(crate) fn session_of(name: &str) -> Option<u64> {
    temporary_parts(name).map(|(session, _)| session)
}

/// A table's name as a session knows it.
pub(crate) fn plain_name(name: &str) -> &str {
    temporary_parts(name).map_or(name, |(_, name)| name)
}

/// All objects at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct CatalogState {
    pub(crate) tables: BTreeMap<String, Arc<TableVersion>>,
    pub(crate) views: BTreeMap<String, Arc<ViewVersion>>,
    pub(crate) models: BTreeMap<String, Arc<ModelVersion>>,
    /// The last version that each model name has had; also of names whose model was dropped.
    pub(crate) model_versions: BTreeMap<String, u64>,
}

/// A view: a stored query. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct View {
    version: Arc<ViewVersion>,
}

/// What a view is in one version.
#[derive(Debug)]
pub(crate) struct ViewVersion {
    pub(crate) oid: u32,
    pub(crate) name: String,
    pub(crate) version: u64,
    pub(crate) definition: String,
    pub(crate) schema: SchemaRef,
}

impl Snapshot {
    pub(crate) fn new(state: Arc<CatalogState>, session: Option<u64>) -> Snapshot {
        Snapshot { state, session }
    }

    /// The table of this name: the session's temporary one if there is one.
    pub fn table(&self, name: &str) -> Option<Table> {
        self.temporary_table(name).or_else(|| self.permanent_table(name))
    }

    /// The session's temporary table of this name.
    pub fn temporary_table(&self, name: &str) -> Option<Table> {
        let name = temporary_name(self.session?, name);
        self.state.tables.get(&name).map(|version| Table::new(Arc::clone(version)))
    }

    /// The table of this name that every session sees.
    pub fn permanent_table(&self, name: &str) -> Option<Table> {
        let version = self.state.tables.get(name).filter(|_| session_of(name).is_none())?;
        Some(Table::new(Arc::clone(version)))
    }

    /// All tables that the session sees, by name; its temporary ones come first.
    pub fn tables(&self) -> Vec<Table> {
        self.state
            .tables
            .values()
            .filter(|table| {
                let session = session_of(&table.name);
                session.is_none() || session == self.session
            })
            .map(|version| Table::new(Arc::clone(version)))
            .collect()
    }

    /// The view of this name.
    pub fn view(&self, name: &str) -> Option<View> {
        self.state.views.get(name).map(|version| View { version: Arc::clone(version) })
    }

    /// All views, by name.
    pub fn views(&self) -> Vec<View> {
        self.state.views.values().map(|version| View { version: Arc::clone(version) }).collect()
    }

    /// The model of this name.
    pub fn model(&self, name: &str) -> Option<ModelEntry> {
        self.state.models.get(name).map(|version| ModelEntry::new(Arc::clone(version)))
    }

    /// All models, by name.
    pub fn models(&self) -> Vec<ModelEntry> {
        self.state.models.values().map(|version| ModelEntry::new(Arc::clone(version))).collect()
    }
}

impl CatalogState {
    /// The table with this OID, whatever its name.
    pub(crate) fn table_by_oid(&self, oid: u32, likely_name: &str) -> Option<&Arc<TableVersion>> {
        match self.tables.get(likely_name) {
            Some(table) if table.oid == oid => Some(table),
            _ => self.tables.values().find(|table| table.oid == oid),
        }
    }
}

impl View {
    /// The object id.
    pub fn oid(&self) -> u32 {
        self.version.oid
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.version.name
    }

    /// The query's text.
    pub fn definition(&self) -> &str {
        &self.version.definition
    }

    /// The columns that the query yielded when the view was made.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.version.schema)
    }
}
