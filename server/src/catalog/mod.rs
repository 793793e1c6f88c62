//! What a statement can name: stored tables, the system's own relations, and ThanoSQL's views.

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

pub mod constraints;
pub mod leaf;
mod lookup;
pub mod sequences;
pub mod system;
pub mod table;
pub mod thanosql;
pub mod vector_index;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::datatypes::{Schema, SchemaRef};
use thanosql_protocol::{ClientIdentity, SqlError, SqlState};
use thanosql_storage::{Store, UniqueKey};

use crate::error::storage_error;
use crate::exec::cursors::Cursors;
use crate::session::settings::Settings;
use crate::session::transaction::SessionTransaction;
use sequences::{ColumnSequence, sequence_by_oid};
use system::{
    CatalogSource, CheckDescription, CursorDescription, KeyDescription, ObjectDescription,
    ObjectKind, Setting, TEMPORARY_SCHEMA,
};
use vector_index::vector_indexes;

/// What the system relations are computed from in one session: its snapshot and its settings, as they are when asked.
pub struct SessionCatalog {
    transaction: SessionTransaction,
    store: Store,
    settings: Arc<Mutex<Settings>>,
    cursors: Arc<Cursors>,
    client: ClientIdentity,
    sequences: Mutex<UsedSequences>,
}

/// The sequences that a session has used.
#[derive(Default)]
struct UsedSequences {
    /// Their definitions, by OID.
    known: HashMap<u32, KnownSequence>,
    /// The last value that each gave this session.
    current: HashMap<u32, i64>,
    /// The one that was used last.
    last: Option<u32>,
}

/// A sequence's definition, which holds for as long as its table has the schema that it was read from.
struct KnownSequence {
    table: String,
    schema: SchemaRef,
    sequence: ColumnSequence,
}

impl SessionCatalog {
    /// The catalog of a session.
    pub fn new(
        transaction: SessionTransaction,
        store: Store,
        settings: Arc<Mutex<Settings>>,
        cursors: Arc<Cursors>,
        client: ClientIdentity,
    ) -> SessionCatalog {
        SessionCatalog {
            transaction,
            store,
            settings,
            cursors,
            client,
            sequences: Mutex::default(),
        }
    }
}

impl fmt::Debug for SessionCatalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionCatalog")
            .field("connection", &self.client.connection_id)
            .finish_non_exhaustive()
    }
}

impl CatalogSource for SessionCatalog {
    fn objects(&self) -> Vec<ObjectDescription> {
        let snapshot = self.transaction.snapshot();
        let mut objects: Vec<ObjectDescription> = snapshot
            .tables()
            .into_iter()
            .map(|table| ObjectDescription {
                oid: table.oid(),
                name: table.name().to_string(),
                schema: if table.is_temporary() { TEMPORARY_SCHEMA } else { "public" }.to_string(),
                kind: ObjectKind::Table,
                columns: table.schema(),
                row_count: table.row_count(),
                definition: None,
                keys: table.keys().iter().map(describe_key).collect(),
                checks: describe_checks(&table.schema()),
                vector_indexes: vector_indexes(&table.schema()),
            })
            .collect();
        objects.extend(snapshot.views().into_iter().map(|view| ObjectDescription {
            oid: view.oid(),
            name: view.name().to_string(),
            schema: "public".to_string(),
            kind: ObjectKind::View,
            columns: view.schema(),
            row_count: 0,
            definition: Some(view.definition().to_string()),
            keys: Vec::new(),
            checks: Vec::new(),
            vector_indexes: Vec::new(),
        }));
        objects.extend(thanosql::descriptions());
        objects
    }

    fn user(&self) -> String {
        self.client.user.clone()
    }

    fn database(&self) -> String {
        self.client.database.clone()
    }

    fn settings(&self) -> Vec<Setting> {
        let settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        settings
            .list()
            .into_iter()
            .map(|listed| Setting {
                name: listed.name,
                value: listed.value,
                unit: String::new(),
                category: "Client Connection Defaults".to_string(),
                description: listed.description,
                default: listed.default,
            })
            .collect()
    }

    fn connection_id(&self) -> i32 {
        self.client.connection_id
    }

    fn set(&self, name: &str, value: &str, local: bool) -> Result<String, SqlError> {
        let mut settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        settings.set(name, value, local)?;
        settings.get(name)
    }

    fn next_value(&self, oid: i64) -> Result<i64, SqlError> {
        let sequence = self.sequence(oid)?;
        let value = next_value(&self.store, &sequence)?;
        let mut used = self.used();
        used.current.insert(sequence.oid, value);
        used.last = Some(sequence.oid);
        Ok(value)
    }

    fn current_value(&self, oid: Option<i64>) -> Result<i64, SqlError> {
        let undefined =
            |what: String| SqlError::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, what);
        match oid {
            None => {
                let used = self.used();
                let value = used.last.and_then(|oid| used.current.get(&oid).copied());
                value.ok_or_else(|| undefined("lastval is not yet defined in this session".into()))
            }
            Some(oid) => {
                let sequence = self.sequence(oid)?;
                let value = self.used().current.get(&sequence.oid).copied();
                value.ok_or_else(|| {
                    undefined(format!(
                        "currval of sequence \"{}\" is not yet defined in this session",
                        sequence.name
                    ))
                })
            }
        }
    }

    fn set_value(&self, oid: i64, value: i64, called: bool) -> Result<i64, SqlError> {
        let sequence = self.sequence(oid)?;
        if !(sequence.min..=sequence.max).contains(&value) {
            return Err(SqlError::new(
                SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
                format!(
                    "setval: value {value} is out of bounds for sequence \"{}\" ({}..{})",
                    sequence.name, sequence.min, sequence.max
                ),
            ));
        }
        let next = if called { sequence.rules().after(value, 1) } else { Some(value) };
        self.store.set_sequence(sequence.counter(), next).map_err(storage_error)?;
        if called {
            self.used().current.insert(sequence.oid, value);
        }
        Ok(value)
    }

    fn cursors(&self) -> Vec<CursorDescription> {
        self.cursors.list()
    }

    fn database_bytes(&self) -> Option<u64> {
        self.store.size_on_disk().ok()
    }
}

impl SessionCatalog {
    fn used(&self) -> MutexGuard<'_, UsedSequences> {
        self.sequences.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sequence(&self, oid: i64) -> Result<ColumnSequence, SqlError> {
        let missing = || {
            SqlError::new(
                SqlState::UNDEFINED_TABLE,
                format!("sequence with OID {oid} does not exist"),
            )
        };
        let oid = u32::try_from(oid).map_err(|_| missing())?;
        let snapshot = self.transaction.snapshot();
        if let Some(known) = self.used().known.get(&oid)
            && let Some(table) = snapshot.table(&known.table)
            && Arc::ptr_eq(&table.schema(), &known.schema)
        {
            return Ok(known.sequence.clone());
        }
        let (table, sequence) = sequence_by_oid(&snapshot, oid).ok_or_else(missing)?;
        let (name, schema) = (table.name().to_owned(), table.schema());
        let known = KnownSequence { table: name, schema, sequence: sequence.clone() };
        self.used().known.insert(oid, known);
        Ok(sequence)
    }
}

/// The next value of a column's sequence.
///
/// # Errors
/// 2200H at its end.
fn next_value(store: &Store, sequence: &ColumnSequence) -> Result<i64, SqlError> {
    let value = store.next_value(sequence.counter(), &sequence.rules()).map_err(storage_error)?;
    value.ok_or_else(|| {
        let (end, bound) = match sequence.increment > 0 {
            true => ("maximum", sequence.max),
            false => ("minimum", sequence.min),
        };
        SqlError::new(
            SqlState::SEQUENCE_GENERATOR_LIMIT_EXCEEDED,
            format!("nextval: reached {end} value of sequence \"{}\" ({bound})", sequence.name),
        )
    })
}

fn describe_key(key: &UniqueKey) -> KeyDescription {
    KeyDescription {
        oid: key.oid,
        name: key.name.clone(),
        columns: key.columns.clone(),
        primary: key.primary,
    }
}

fn describe_checks(schema: &Schema) -> Vec<CheckDescription> {
    constraints::checks_of(schema)
        .into_iter()
        .map(|check| CheckDescription {
            oid: check.oid,
            name: check.name,
            expression: check.expression,
        })
        .collect()
}
