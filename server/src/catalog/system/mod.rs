//! PostgreSQL's system catalog: `pg_catalog` and `information_schema`, their functions, and what makes the queries that clients
//! send over them plannable.
//!
//! psql, JDBC, ORMs and BI tools learn about a server from these relations, with queries written for PostgreSQL alone.
//! The work is split by what is missing in DataFusion for them:
//!
//! - the relations: `relations` (their shape), `tables` and `information` (their rows), `types`, `provider` (as tables);
//! - the functions: `functions`;
//! - syntax that DataFusion's planner does not take: `adapt`, over the syntax tree;
//! - correlated sub-queries that its optimizer does not take: `correlated`, over the logical plan.
//!
//! Everything is computed from a [`CatalogSource`], which stands for what one statement sees. There is one role, which owns
//! everything and may do everything; there are no triggers, policies, foreign keys or publications, and their relations are empty.

mod adapt;
mod constraints;
mod correlated;
mod expand;
mod functions;
mod information;
mod provider;
mod relations;
mod tables;
#[cfg(test)]
mod tests;
mod types;

use std::fmt::Debug;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::catalog::SchemaProvider;
use thanosql_protocol::{SqlError, SqlState};

pub use adapt::{adapt, adapt_expression};
pub use correlated::CorrelatedSubqueries;
pub use functions::functions;

use provider::SystemSchemaProvider;
use relations::SystemSchema;

use crate::catalog::vector_index::VectorIndex;

/// What kind of relation an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectKind {
    /// A stored table.
    Table,
    /// A view, stored or built in.
    View,
}

/// A table or view, as the system relations show it.
#[derive(Clone, Debug)]
pub struct ObjectDescription {
    /// The object's id, stable over restarts.
    pub oid: u32,
    /// Its name.
    pub name: String,
    /// Its schema: `public` or `thanosql`.
    pub schema: String,
    /// What it is.
    pub kind: ObjectKind,
    /// Its columns. A column's default stands in its metadata under `default`.
    pub columns: SchemaRef,
    /// Live rows of a table.
    pub row_count: u64,
    /// The SQL text of a view.
    pub definition: Option<String>,
    /// Primary and unique keys.
    pub keys: Vec<KeyDescription>,
    /// Checks.
    pub checks: Vec<CheckDescription>,
    /// Indexes over vectors.
    pub vector_indexes: Vec<VectorIndex>,
}

/// A primary or unique key.
#[derive(Clone, Debug)]
pub struct KeyDescription {
    /// The object id of its index.
    pub oid: u32,
    /// The name of both constraint and index.
    pub name: String,
    /// Indexes into the object's columns.
    pub columns: Vec<usize>,
    /// Whether it is the primary key.
    pub primary: bool,
}

/// A CHECK.
#[derive(Clone, Debug)]
pub struct CheckDescription {
    /// The object id.
    pub oid: u32,
    /// The name.
    pub name: String,
    /// Its expression's SQL text.
    pub expression: String,
}

/// A setting, as `pg_settings` and `current_setting` show it.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The name, such as `TimeZone`.
    pub name: String,
    /// The session's value.
    pub value: String,
    /// The value's unit; empty if it has none.
    pub unit: String,
    /// PostgreSQL's category for it.
    pub category: String,
    /// What it does, in a sentence.
    pub description: String,
    /// The value without SET.
    pub default: String,
}

/// An open cursor, as `pg_cursors` shows it.
#[derive(Clone, Debug)]
pub struct CursorDescription {
    /// Its name.
    pub name: String,
    /// Its DECLARE.
    pub statement: String,
    /// Whether it outlives its transaction.
    pub holdable: bool,
    /// Whether it goes back.
    pub scrollable: bool,
    /// When it was declared.
    pub created: std::time::SystemTime,
}

/// What one statement sees: the snapshot's objects, and who is asking.
pub trait CatalogSource: Send + Sync + Debug {
    /// The tables and views.
    fn objects(&self) -> Vec<ObjectDescription>;
    /// The session's user.
    fn user(&self) -> String;
    /// The session's database.
    fn database(&self) -> String;
    /// The session's settings.
    fn settings(&self) -> Vec<Setting>;
    /// The session's connection id, which is also its cancel key's process id.
    fn connection_id(&self) -> i32;
    /// `set_config`: changes a setting, for the transaction alone if `local`, and gives its new value.
    ///
    /// # Errors
    /// What SET would answer; 0A000 where the source cannot change settings.
    fn set(&self, name: &str, _value: &str, _local: bool) -> Result<String, SqlError> {
        Err(SqlError::new(
            SqlState::FEATURE_NOT_SUPPORTED,
            format!("setting \"{name}\" cannot be changed by set_config"),
        )
        .with_hint("Use SET."))
    }
    /// The next value of a sequence.
    ///
    /// # Errors
    /// 42P01 for a sequence that is not there, 2200H for one that has come to its end.
    fn next_value(&self, oid: i64) -> Result<i64, SqlError> {
        Err(no_sequence(oid))
    }
    /// The last value that a sequence, or the one used last, gave this session.
    ///
    /// # Errors
    /// 42P01 for a sequence that is not there, 55000 if it gave none.
    fn current_value(&self, oid: Option<i64>) -> Result<i64, SqlError> {
        Err(no_sequence(oid.unwrap_or_default()))
    }
    /// Sets a sequence's value: what it gave last if `called`, else what it gives next.
    ///
    /// # Errors
    /// 42P01 for a sequence that is not there, 22003 for a value out of its bounds.
    fn set_value(&self, oid: i64, _value: i64, _called: bool) -> Result<i64, SqlError> {
        Err(no_sequence(oid))
    }
    /// The session's open cursors.
    fn cursors(&self) -> Vec<CursorDescription> {
        Vec::new()
    }
    /// What a relation takes on disk, where that is known.
    fn relation_bytes(&self, _oid: u32) -> Option<u64> {
        None
    }
    /// What the whole store takes on disk, where that is known.
    fn database_bytes(&self) -> Option<u64> {
        None
    }
}

fn no_sequence(oid: i64) -> SqlError {
    SqlError::new(SqlState::UNDEFINED_TABLE, format!("sequence with OID {oid} does not exist"))
}

/// The schema that temporary tables are shown in. Each session sees its own there; `pg_temp` is another name for it.
pub const TEMPORARY_SCHEMA: &str = "pg_temp_1";

/// The PostgreSQL version whose catalog this is.
pub const SERVER_VERSION: &str = "15.18";

/// The same as a number.
pub const SERVER_VERSION_NUMBER: &str = "150018";

/// `version()`'s answer. Clients read the number after `PostgreSQL`.
pub fn version() -> String {
    format!(
        "PostgreSQL {SERVER_VERSION} (ThanoSQL {}) on {}-{}, 64-bit",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::ARCH,
        std::env::consts::OS
    )
}

/// The schema `pg_catalog` over what `source` sees.
pub fn pg_catalog(source: Arc<dyn CatalogSource>) -> Arc<dyn SchemaProvider> {
    Arc::new(SystemSchemaProvider { schema: SystemSchema::PgCatalog, source })
}

/// The schema `information_schema` over what `source` sees.
pub fn information_schema(source: Arc<dyn CatalogSource>) -> Arc<dyn SchemaProvider> {
    Arc::new(SystemSchemaProvider { schema: SystemSchema::InformationSchema, source })
}
