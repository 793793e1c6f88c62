//! Everything that can go wrong below a statement, one variant a cause.
//!
//! The server turns each variant into an SQLSTATE in one exhaustive match, so a variant carries the data that a
//! message and its hint need, and none says "other". The engine's own error type stays behind [`crate::kv`]: it
//! travels as a boxed source, to be read by people, never matched on.

use std::path::PathBuf;

use arrow::array::RecordBatch;

/// The result of every fallible operation of this crate.
pub type Result<T, E = StorageError> = std::result::Result<T, E>;

/// The kind of object that a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectKind {
    /// A table of row groups.
    Table,
    /// A view: a stored query.
    View,
    /// A model with its parts.
    Model,
}

impl std::fmt::Display for ObjectKind {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            ObjectKind::Table => "table",
            ObjectKind::View => "view",
            ObjectKind::Model => "model",
        })
    }
}

/// What went wrong in the store.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The operating system refused a file operation.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// Another process has the store open.
    #[error("the store {} is in use by another process", path.display())]
    Locked {
        /// The store's folder.
        path: PathBuf,
    },
    /// The store was written by a program with another format.
    #[error("the store has format version {found}, this program reads version {supported}")]
    UnknownFormat {
        /// The version that the store names.
        found: u64,
        /// The version that this program writes.
        supported: u64,
    },
    /// Bytes on disk are not what was written: a checksum differs, a record is missing or does not decode.
    #[error("the store is damaged: {what}")]
    Corrupt {
        /// Which record, and what is wrong with it.
        what: String,
    },
    /// The key-value engine failed for another reason than damage, usually the disk.
    #[error("cannot {action} the store")]
    Engine {
        /// What was tried, as a verb.
        action: &'static str,
        /// The engine's own error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An earlier write failed half way, so what this process holds in memory may differ from the disk.
    #[error("the store stopped taking writes after an earlier one failed")]
    Stopped,
    /// The name is taken.
    #[error("{kind} \"{name}\" already exists")]
    Exists {
        /// What has the name already.
        kind: ObjectKind,
        /// The name.
        name: String,
    },
    /// Nothing of this kind has the name.
    #[error("{kind} \"{name}\" does not exist")]
    NotFound {
        /// What was looked for.
        kind: ObjectKind,
        /// The name.
        name: String,
    },
    /// Another transaction changed the same object and committed first.
    #[error("\"{name}\" was changed by a concurrent transaction")]
    Conflict {
        /// The object's name.
        name: String,
    },
    /// A NULL for a column that takes none.
    #[error("null value in column \"{column}\" of table \"{table}\"")]
    NotNull {
        /// The table.
        table: String,
        /// The column.
        column: String,
    },
    /// A value of a key that another row has.
    #[error("key \"{key}\" of table \"{table}\" has the value already")]
    NotUnique {
        /// The table.
        table: String,
        /// The key's name.
        key: String,
        /// The key's columns, one row long.
        values: Box<RecordBatch>,
        /// The rows are there already, and the key is new.
        existing: bool,
    },
    /// A rule of the caller's refused rows; see [`RowCheck`](crate::RowCheck).
    #[error("rows of table \"{table}\" were refused")]
    Refused {
        /// The table.
        table: String,
        /// The rule's own error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A batch that does not have the table's columns.
    #[error("the rows do not fit table \"{table}\": {detail}")]
    SchemaMismatch {
        /// The table.
        table: String,
        /// Which column, and how it differs.
        detail: String,
    },
    /// A row id that no row of the table has had in this transaction's snapshot.
    #[error("table \"{table}\" has no row with id {row_id}")]
    NoSuchRow {
        /// The table.
        table: String,
        /// The id.
        row_id: u64,
    },
    /// A model has no part of this name.
    #[error("model \"{model}\" has no part \"{part}\"")]
    NoSuchPart {
        /// The model.
        model: String,
        /// The part.
        part: String,
    },
    /// A counter that is never turned back has come to its end.
    #[error("no {what} are left")]
    Exhausted {
        /// What the counter hands out.
        what: &'static str,
    },
    /// Arrow could not encode or rearrange columns.
    #[error("cannot {action} columns")]
    Arrow {
        /// What was tried, as a verb.
        action: &'static str,
        /// Arrow's own error.
        #[source]
        source: arrow::error::ArrowError,
    },
}

impl StorageError {
    /// Damage, described.
    pub(crate) fn corrupt(what: impl Into<String>) -> StorageError {
        StorageError::Corrupt { what: what.into() }
    }

    /// Turns Arrow's error into ours: `map_err(StorageError::arrow("filter"))`.
    pub(crate) fn arrow(action: &'static str) -> impl Fn(arrow::error::ArrowError) -> StorageError {
        move |source| StorageError::Arrow { action, source }
    }
}
