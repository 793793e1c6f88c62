//! What a server implements to be reached over PostgreSQL's protocol: [`Backend`] makes a [`Session`] for every
//! connection, and the session parses, describes and executes statements.
//!
//! The vocabulary is Arrow for rows and parameters, [`SqlError`] for failures. A session is used by one connection,
//! one call at a time; it needs no locks of its own. Everything that can run long gets a [`StatementContext`], whose
//! token is pulled on CancelRequest, when the client has gone, and at shutdown.
//!
//! This module knows nothing about SQL's grammar: a [`Statement`] is opaque to the connection.

use std::any::Any;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;
use tokio_util::sync::CancellationToken;

use crate::copy::CopyOutOptions;
use crate::error::SqlError;
use crate::notice::NoticeSender;
use crate::types::TextStyle;

/// Makes a session for each client that has logged in.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// Called once after login. An error is the client's answer, and closes the connection.
    async fn connect(&self, client: ClientIdentity) -> Result<Box<dyn Session>, SqlError>;
}

/// Who has connected.
#[derive(Clone, Debug)]
pub struct ClientIdentity {
    /// The number that the client knows as its backend's process id; unique among living connections.
    pub connection_id: i32,
    /// Where it comes from.
    pub peer: SocketAddr,
    /// The user that it logged in as.
    pub user: String,
    /// The database that it asked for; the user's name when it asked for none, as in PostgreSQL.
    pub database: String,
    /// What it calls itself.
    pub application_name: Option<String>,
    /// Everything else of its startup message, and the settings of its `options` (`-c name=value`), names in lower case.
    pub startup_parameters: BTreeMap<String, String>,
    /// Whether the connection is encrypted.
    pub tls: bool,
}

/// A statement that the session has parsed. Opaque to this crate.
pub type Statement = Arc<dyn Any + Send + Sync>;

/// One client's session.
#[async_trait]
pub trait Session: Send {
    /// Parses a script into its statements; an empty one (blanks, comments, lone semicolons) gives none. In the
    /// extended protocol a script of more than one statement is refused by the caller (42601).
    fn parse(&mut self, sql: &str) -> Result<Vec<Statement>, SqlError>;

    /// The types of a statement's parameters and its result's columns. Never runs anything. `declared[i]` is what the
    /// client says parameter `i + 1` is, `None` where it left the type open; there may be fewer than the statement has.
    async fn describe(
        &mut self,
        statement: &Statement,
        declared: &[Option<DataType>],
    ) -> Result<Description, SqlError>;

    /// The columns of a statement whose description left them open, with its parameters' values. Never runs anything.
    async fn describe_bound(
        &mut self,
        statement: &Statement,
        parameters: &[ArrayRef],
    ) -> Result<Option<SchemaRef>, SqlError> {
        let types: Vec<Option<DataType>> =
            parameters.iter().map(|parameter| Some(parameter.data_type().clone())).collect();
        Ok(self.describe(statement, &types).await?.columns)
    }

    /// Runs a statement. `parameters` are arrays of length 1 of the described types.
    async fn execute(
        &mut self,
        statement: &Statement,
        parameters: Vec<ArrayRef>,
        context: StatementContext,
    ) -> Result<Response, SqlError>;

    /// Ends the implicit transaction: after the last statement of a simple Query, before its CommandComplete goes out,
    /// and at Sync. With `success == false` everything outside of an explicit transaction is rolled back, and an
    /// explicit one is marked failed.
    async fn finish(&mut self, success: bool) -> Result<(), SqlError>;

    /// What ReadyForQuery says.
    fn transaction_status(&self) -> TransactionStatus;

    /// Settings that changed since the last call and that clients want to hear of (ParameterStatus).
    fn take_parameter_changes(&mut self) -> Vec<(String, String)>;

    /// The columns of a cursor that SQL has declared (DECLARE): clients describe it as a portal of that name.
    fn cursor_columns(&self, _name: &str) -> Option<SchemaRef> {
        None
    }

    /// What SQL has closed since the last call (DEALLOCATE, DISCARD ALL, CLOSE ALL): the names of prepared statements and
    /// portals of the extended protocol are kept by the connection. A name that is not known is left alone.
    fn take_closed(&mut self) -> Vec<Closed> {
        Vec::new()
    }

    /// The settings that every client hears of at login: server_version, server_encoding, client_encoding, DateStyle,
    /// IntervalStyle, TimeZone, integer_datetimes, standard_conforming_strings and so on.
    fn initial_parameters(&self) -> Vec<(String, String)>;

    /// How values are written as text now.
    fn text_style(&self) -> TextStyle;
}

/// Something of the extended protocol that a statement has closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    /// One prepared statement.
    Statement(String),
    /// All prepared statements.
    AllStatements,
    /// One portal.
    Portal(String),
    /// All portals.
    AllPortals,
}

/// What a statement takes and gives.
#[derive(Clone, Debug)]
pub struct Description {
    /// The types of `$1`, `$2`, ...
    pub parameters: Vec<DataType>,
    /// The result's columns; `None` when it yields no rows.
    pub columns: Option<SchemaRef>,
    /// Set if the columns hang on the parameters' values, so that [`Session::describe_bound`] tells them at Bind. A client that asks before gets this error.
    pub open: Option<SqlError>,
}

/// What surrounds a running statement.
#[derive(Clone, Debug)]
pub struct StatementContext {
    /// Pulled when the statement shall stop. The row stream must look at it too.
    pub cancel: CancellationToken,
    /// Where notices go.
    pub notices: NoticeSender,
    /// Whether it came as a simple Query.
    pub simple: bool,
    /// Whether further statements of the same script follow.
    pub more_follow: bool,
}

/// Rows as they are made. Dropping the stream must stop the work behind it.
pub type RowStream = Pin<Box<dyn Stream<Item = Result<RecordBatch, SqlError>> + Send>>;

/// What a statement answers.
pub enum Response {
    /// Rows. In the extended protocol they are encoded by the described columns' formats, in order.
    Rows {
        /// The columns.
        schema: SchemaRef,
        /// The rows.
        rows: RowStream,
        /// The command tag that follows them.
        tag: RowsTag,
    },
    /// No rows.
    Done {
        /// The command tag, such as `CREATE TABLE` or `INSERT 0 3`.
        tag: String,
    },
    /// `COPY ... FROM STDIN`: the client's bytes go into the sink.
    CopyIn {
        /// How many columns a row has.
        columns: usize,
        /// Binary format.
        binary: bool,
        /// Where the bytes go.
        sink: Box<dyn CopySink>,
    },
    /// `COPY ... TO STDOUT`.
    CopyOut {
        /// The columns.
        schema: SchemaRef,
        /// The rows.
        rows: RowStream,
        /// How they are written.
        options: CopyOutOptions,
    },
}

impl std::fmt::Debug for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Response::Rows { schema, tag, .. } => f
                .debug_struct("Rows")
                .field("schema", schema)
                .field("tag", tag)
                .finish_non_exhaustive(),
            Response::Done { tag } => f.debug_struct("Done").field("tag", tag).finish(),
            Response::CopyIn { columns, binary, .. } => f
                .debug_struct("CopyIn")
                .field("columns", columns)
                .field("binary", binary)
                .finish_non_exhaustive(),
            Response::CopyOut { schema, options, .. } => f
                .debug_struct("CopyOut")
                .field("schema", schema)
                .field("options", options)
                .finish_non_exhaustive(),
        }
    }
}

/// The command tag after rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowsTag {
    /// `SELECT` becomes `SELECT n`.
    Counted(String),
    /// `SHOW` stays `SHOW`.
    Fixed(String),
    /// `INSERT` becomes `INSERT 0 n`.
    CountedAfterZero(String),
}

impl RowsTag {
    /// The tag after `rows` rows.
    pub(crate) fn complete(&self, rows: u64) -> String {
        match self {
            RowsTag::Counted(command) => format!("{command} {rows}"),
            RowsTag::Fixed(command) => command.clone(),
            RowsTag::CountedAfterZero(command) => format!("{command} 0 {rows}"),
        }
    }
}

/// Takes what a client sends after `COPY ... FROM STDIN`.
///
/// Chunks are cut anywhere, as the client's messages are. After an error the sink is dropped; so it is when the client
/// sends CopyFail, disappears, or cancels: dropping it must discard what was written.
#[async_trait]
pub trait CopySink: Send {
    /// The next bytes.
    async fn write(&mut self, bytes: Bytes) -> Result<(), SqlError>;

    /// The client has sent everything. Answers the command tag, such as `COPY 3`.
    async fn finish(self: Box<Self>) -> Result<String, SqlError>;
}

/// What ReadyForQuery tells about the transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionStatus {
    /// Outside of a transaction block.
    Idle,
    /// Inside of one.
    InTransaction,
    /// Inside of one that has failed; only ROLLBACK helps.
    Failed,
}
