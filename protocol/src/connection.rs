//! A logged-in client's conversation: the simple and the extended query protocol over one session.
//!
//! Errors follow PostgreSQL's rules. In the simple protocol an error ends the script and ReadyForQuery follows. In the
//! extended protocol everything up to the next Sync is skipped. A fatal error closes the connection. Prepared statements
//! live until they are closed, portals until their transaction ends.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use pgwire::messages::copy::{CopyDone, CopyInResponse, CopyOutResponse};
use pgwire::messages::data::{NoData, ParameterDescription};
use pgwire::messages::extendedquery::{
    BindComplete, CloseComplete, ParseComplete, PortalSuspended,
};
use pgwire::messages::response::{CommandComplete, EmptyQueryResponse};
use pgwire::messages::startup::ParameterStatus;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span};

use crate::backend::{
    Closed, CopySink, Description, Response, RowStream, RowsTag, Session, Statement,
    StatementContext, TransactionStatus,
};
use crate::client::{Client, Failure, guarded};
use crate::copy::{CopyEncoder, CopyOutOptions};
use crate::error::{ErrorSeverity, SqlError, SqlState};
use crate::frontend::{self, Message, Target, malformed};
use crate::messages::{format_of, ready_for_query, row_description, without_zeros};
use crate::rows::{DataRowEncoder, RowWriter, Rows, Sent};
use crate::types::{self, Format};
use crate::wire::Frame;

/// How many prepared statements, and how many portals, one connection may keep.
const MAX_NAMES: usize = 16_384;

/// One client's connection.
pub(crate) struct Connection {
    client: Client,
    session: Box<dyn Session>,
    statements: HashMap<String, Arc<Prepared>>,
    portals: HashMap<String, Portal>,
    /// Messages are skipped until Sync, because one of the extended protocol has failed.
    skipping: bool,
    /// Its place among `max_connections`.
    _place: OwnedSemaphorePermit,
}

/// A prepared statement.
struct Prepared {
    /// `None` for an empty one.
    statement: Option<Statement>,
    parameter_oids: Vec<u32>,
    parameter_types: Vec<DataType>,
    columns: Option<SchemaRef>,
    /// Why the columns are not known before the parameters are.
    open: Option<SqlError>,
    sql: String,
}

/// A statement bound to its parameters.
struct Portal {
    prepared: Arc<Prepared>,
    columns: Option<SchemaRef>,
    parameters: Vec<ArrayRef>,
    formats: Vec<Format>,
    state: PortalState,
}

enum PortalState {
    Bound,
    /// Some of its rows have been sent.
    Suspended(Box<Rows>),
    /// All of its rows have been sent.
    Exhausted(RowsTag),
    /// It yields no rows and has run, or it has failed.
    Done,
}

/// What a statement's log entry tells.
struct Ended {
    rows: u64,
}

impl Connection {
    pub(crate) fn new(
        client: Client,
        session: Box<dyn Session>,
        place: OwnedSemaphorePermit,
    ) -> Connection {
        Connection {
            client,
            session,
            statements: HashMap::new(),
            portals: HashMap::new(),
            skipping: false,
            _place: place,
        }
    }

    /// Serves the client until it leaves or has to.
    pub(crate) async fn serve(mut self) {
        let started = Instant::now();
        let failure = loop {
            let frame = match self.client.next_frame().await {
                Ok(frame) => frame,
                Err(failure) => break failure,
            };
            if self.skipping && !matches!(frame.kind, b'S' | b'X') {
                continue;
            }
            if let Err(failure) = self.handle(frame).await {
                break failure;
            }
        };
        // Whatever still runs for a suspended portal is stopped before the session goes.
        self.portals.clear();
        drop(self.session);
        if let Failure::Sql(error) = failure {
            self.client.farewell(&error).await;
        }
        tracing::info!(duration_ms = started.elapsed().as_millis() as u64, "disconnected");
    }

    /// Answers one message. An error that is returned ends the connection.
    async fn handle(&mut self, frame: Frame) -> Result<(), Failure> {
        let extended = frontend::is_extended(frame.kind);
        let result = match frontend::decode(frame) {
            Ok(message) => self.dispatch(message).await,
            Err(error) => Err(Failure::Sql(error)),
        };
        self.client.stop();
        match result {
            Ok(()) => Ok(()),
            Err(Failure::Sql(error)) if error.severity == ErrorSeverity::Error => {
                self.client.put_error(&error);
                if extended {
                    self.skipping = true;
                    self.client.flush().await
                } else {
                    self.finish(false).await;
                    self.ready().await
                }
            }
            Err(failure) => Err(failure),
        }
    }

    async fn dispatch(&mut self, message: Message) -> Result<(), Failure> {
        match message {
            Message::Query { sql } => self.query(&sql).await,
            Message::Parse { statement, sql, parameter_oids } => {
                self.parse(statement, sql, parameter_oids).await
            }
            Message::Bind { portal, statement, parameter_formats, parameters, result_formats } => {
                self.bind(portal, &statement, &parameter_formats, &parameters, &result_formats)
                    .await
            }
            Message::Describe(target) => self.describe(&target),
            Message::Execute { portal, max_rows } => self.execute(portal, max_rows).await,
            Message::Close(target) => {
                match target {
                    Target::Statement(name) => drop(self.statements.remove(&name)),
                    Target::Portal(name) => drop(self.portals.remove(&name)),
                }
                self.client.wire.put(&CloseComplete::new());
                Ok(())
            }
            Message::Flush => self.client.flush().await,
            Message::Sync => self.sync().await,
            // The client may still be sending after a COPY that has failed.
            Message::CopyData(_) | Message::CopyDone | Message::CopyFail { .. } => Ok(()),
            Message::FunctionCall => Err(SqlError::new(
                SqlState::FEATURE_NOT_SUPPORTED,
                "the function call protocol is not supported",
            )
            .with_hint("Call the function in a SELECT.")
            .into()),
            Message::Password => Err(SqlError::fatal(
                SqlState::PROTOCOL_VIOLATION,
                "unexpected password message: login is complete",
            )
            .into()),
            Message::Terminate => Err(Failure::Gone),
        }
    }

    /// Tells the session that the implicit transaction ends. An error is the client's answer.
    async fn finish(&mut self, success: bool) -> bool {
        match self.client.complete(self.session.finish(success)).await {
            Ok(()) => true,
            Err(error) => {
                self.client.put_error(&error);
                false
            }
        }
    }

    /// Sends ReadyForQuery, and what comes with it.
    async fn ready(&mut self) -> Result<(), Failure> {
        self.skipping = false;
        for (name, value) in self.session.take_parameter_changes() {
            let status = ParameterStatus::new(without_zeros(&name), without_zeros(&value));
            self.client.wire.put(&status);
        }
        let status = self.session.transaction_status();
        if status == TransactionStatus::Idle {
            self.portals.clear();
        }
        self.client.wire.put(&ready_for_query(status));
        self.client.flush().await
    }

    async fn sync(&mut self) -> Result<(), Failure> {
        let success = !self.skipping;
        self.finish(success).await;
        self.ready().await
    }

    /// Forgets the names that the session's statement has closed.
    fn close_names(&mut self) {
        for closed in self.session.take_closed() {
            match closed {
                Closed::Statement(name) => drop(self.statements.remove(&name)),
                Closed::AllStatements => self.statements.clear(),
                Closed::Portal(name) => drop(self.portals.remove(&name)),
                Closed::AllPortals => self.portals.clear(),
            }
        }
    }

    // The simple protocol.

    async fn query(&mut self, sql: &str) -> Result<(), Failure> {
        self.statements.remove("");
        self.portals.remove("");
        let statements = guarded(|| self.session.parse(sql))?;
        if statements.is_empty() {
            self.client.wire.put(&EmptyQueryResponse::new());
            return self.ready().await;
        }
        let count = statements.len();
        for (index, statement) in statements.iter().enumerate() {
            let span = statement_span("simple");
            tracing::debug!(parent: &span, sql, "statement");
            let last = index + 1 == count;
            let work = logged(self.simple_statement(statement, last));
            work.instrument(span).await?;
        }
        self.ready().await
    }

    async fn simple_statement(
        &mut self,
        statement: &Statement,
        last: bool,
    ) -> Result<Ended, Failure> {
        let cancel = CancellationToken::new();
        let response = self.start(statement, Vec::new(), &cancel, true, !last).await?;
        let (tag, rows) = match response {
            Response::Rows { schema, rows, tag } => {
                self.client.wire.put(&row_description(&schema, &[]));
                let encoder = DataRowEncoder::new(&schema, &[], self.session.text_style());
                let writer = RowWriter::Data(encoder);
                let mut rows = Rows::new(rows, writer, tag, Vec::new(), cancel);
                let sent = match rows.send(&mut self.client, u64::MAX).await? {
                    Sent::All(sent) | Sent::Some(sent) => sent,
                };
                (rows.tag().complete(sent), sent)
            }
            Response::Done { tag } => (tag, 0),
            Response::CopyIn { columns, binary, sink } => {
                (self.copy_in(columns, binary, sink, &cancel).await?, 0)
            }
            Response::CopyOut { schema, rows, options } => {
                self.copy_out(&schema, rows, options, cancel).await?
            }
        };
        self.client.stop();
        if last {
            self.client.complete(self.session.finish(true)).await?;
        }
        self.close_names();
        self.client.wire.put(&CommandComplete::new(tag));
        Ok(Ended { rows })
    }

    /// Hands a statement to the session.
    async fn start(
        &mut self,
        statement: &Statement,
        parameters: Vec<ArrayRef>,
        cancel: &CancellationToken,
        simple: bool,
        more_follow: bool,
    ) -> Result<Response, Failure> {
        self.client.start(cancel);
        let context = StatementContext {
            cancel: cancel.clone(),
            notices: self.client.notice_sender(),
            simple,
            more_follow,
        };
        let work = self.session.execute(statement, parameters, context);
        self.client.run(cancel, work).await
    }

    // The extended protocol.

    async fn parse(
        &mut self,
        name: String,
        sql: String,
        parameter_oids: Vec<u32>,
    ) -> Result<(), Failure> {
        if name.is_empty() {
            self.statements.remove("");
        } else if self.statements.contains_key(&name) {
            return Err(SqlError::new(
                SqlState::DUPLICATE_PREPARED_STATEMENT,
                format!("prepared statement \"{name}\" already exists"),
            )
            .into());
        }
        check_room(self.statements.len(), "prepared statements")?;
        let mut statements = guarded(|| self.session.parse(&sql))?;
        if statements.len() > 1 {
            return Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                "cannot insert multiple commands into a prepared statement",
            )
            .into());
        }
        let declared =
            parameter_oids.iter().map(|oid| declared_type(*oid)).collect::<Result<Vec<_>, _>>()?;
        let statement = statements.pop();
        let description = match &statement {
            None => Description { parameters: Vec::new(), columns: None, open: None },
            Some(statement) => {
                let cancel = CancellationToken::new();
                self.client.start(&cancel);
                let work = self.session.describe(statement, &declared);
                self.client.run(&cancel, work).await?
            }
        };
        let types = description.parameters;
        let parameter_oids = types
            .iter()
            .enumerate()
            .map(|(index, data_type)| match parameter_oids.get(index).copied() {
                // Only an oid is unsigned.
                None | Some(0 | types::oid::UNKNOWN) if *data_type == DataType::UInt32 => {
                    types::oid::OID
                }
                None | Some(0 | types::oid::UNKNOWN) => {
                    types::type_oid(&Field::new("", data_type.clone(), true))
                }
                Some(declared) => declared,
            })
            .collect();
        let prepared = Prepared {
            statement,
            parameter_oids,
            parameter_types: types,
            columns: description.columns,
            open: description.open,
            sql,
        };
        self.statements.insert(name, Arc::new(prepared));
        self.client.wire.put(&ParseComplete::new());
        Ok(())
    }

    async fn bind(
        &mut self,
        name: String,
        statement: &str,
        parameter_formats: &[i16],
        values: &[Option<Bytes>],
        result_formats: &[i16],
    ) -> Result<(), Failure> {
        if name.is_empty() {
            self.portals.remove("");
        } else if self.portals.contains_key(&name) {
            return Err(SqlError::new(
                SqlState::DUPLICATE_CURSOR,
                format!("cursor \"{name}\" already exists"),
            )
            .into());
        }
        check_room(self.portals.len(), "portals")?;
        let prepared = self.prepared(statement)?;
        let formats = formats(parameter_formats)?;
        if formats.len() > 1 && formats.len() != values.len() {
            return Err(malformed(format!(
                "bind message has {} parameter formats but {} parameters",
                formats.len(),
                values.len()
            ))
            .into());
        }
        if values.len() != prepared.parameter_types.len() {
            return Err(malformed(format!(
                "bind message supplies {} parameters, but prepared statement \"{statement}\" requires {}",
                values.len(),
                prepared.parameter_types.len()
            ))
            .into());
        }
        let style = self.session.text_style();
        let types = prepared.parameter_types.iter().zip(&prepared.parameter_oids);
        let parameters = values
            .iter()
            .zip(types)
            .enumerate()
            .map(|(index, (value, (data_type, oid)))| {
                let format = format_of(&formats, index);
                guarded(|| {
                    types::read_parameter(
                        value.as_deref(),
                        format,
                        *oid,
                        data_type,
                        &style.time_zone,
                    )
                })
                .map_err(|error| match error.detail {
                    None => error.with_detail(format!("parameter ${}", index + 1)),
                    Some(_) => error,
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let formats = self::formats(result_formats)?;
        let columns = match (&prepared.open, &prepared.statement) {
            (Some(_), Some(statement)) => {
                let cancel = CancellationToken::new();
                self.client.start(&cancel);
                let work = self.session.describe_bound(statement, &parameters);
                self.client.run(&cancel, work).await?
            }
            (None, _) | (_, None) => prepared.columns.clone(),
        };
        let count = columns.as_ref().map_or(0, |columns| columns.fields().len());
        if formats.len() > 1 && formats.len() != count {
            return Err(malformed(format!(
                "bind message has {} result formats but query has {count} columns",
                formats.len()
            ))
            .into());
        }
        let portal = Portal { prepared, columns, parameters, formats, state: PortalState::Bound };
        self.portals.insert(name, portal);
        self.client.wire.put(&BindComplete::new());
        Ok(())
    }

    fn describe(&mut self, target: &Target) -> Result<(), Failure> {
        let (columns, formats) = match target {
            Target::Statement(name) => {
                let prepared = self.prepared(name)?;
                let oids = prepared.parameter_oids.clone();
                if let Some(error) = &prepared.open {
                    return Err(error.clone().into());
                }
                self.client.wire.put(&ParameterDescription::new(oids));
                (prepared.columns.clone(), Vec::new())
            }
            Target::Portal(name) => {
                match self.portals.get(name) {
                    Some(portal) => (portal.columns.clone(), portal.formats.clone()),
                    // A cursor of SQL is a portal, too.
                    None => match self.session.cursor_columns(name) {
                        Some(columns) => (Some(columns), Vec::new()),
                        None => return Err(no_portal(name).into()),
                    },
                }
            }
        };
        match columns {
            Some(columns) => self.client.wire.put(&row_description(&columns, &formats)),
            None => self.client.wire.put(&NoData::new()),
        }
        Ok(())
    }

    fn prepared(&self, name: &str) -> Result<Arc<Prepared>, SqlError> {
        self.statements.get(name).cloned().ok_or_else(|| {
            let message = if name.is_empty() {
                "unnamed prepared statement does not exist".to_owned()
            } else {
                format!("prepared statement \"{name}\" does not exist")
            };
            SqlError::new(SqlState::INVALID_SQL_STATEMENT_NAME, message)
        })
    }

    async fn execute(&mut self, name: String, max_rows: i32) -> Result<(), Failure> {
        let mut portal = self.portals.remove(&name).ok_or_else(|| no_portal(&name))?;
        if portal.prepared.statement.is_none() {
            self.client.wire.put(&EmptyQueryResponse::new());
            self.portals.insert(name, portal);
            return Ok(());
        }
        let span = statement_span("extended");
        tracing::debug!(parent: &span, sql = portal.prepared.sql, "statement");
        // Zero and below mean all rows.
        let limit = u64::try_from(max_rows).ok().filter(|limit| *limit > 0).unwrap_or(u64::MAX);
        let work = logged(self.run_portal(&mut portal, &name, limit));
        let result = work.instrument(span).await;
        if result.is_err() {
            portal.state = PortalState::Done;
        }
        self.portals.insert(name, portal);
        result
    }

    async fn run_portal(
        &mut self,
        portal: &mut Portal,
        name: &str,
        limit: u64,
    ) -> Result<Ended, Failure> {
        let rows = match std::mem::replace(&mut portal.state, PortalState::Done) {
            PortalState::Suspended(rows) => rows,
            PortalState::Exhausted(tag) => {
                self.client.wire.put(&CommandComplete::new(tag.complete(0)));
                portal.state = PortalState::Exhausted(tag);
                return Ok(Ended { rows: 0 });
            }
            PortalState::Done => {
                return Err(SqlError::new(
                    SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                    format!("portal \"{name}\" cannot be run"),
                )
                .into());
            }
            PortalState::Bound => match self.start_portal(portal).await? {
                Started::Rows(rows) => rows,
                Started::Done(ended) => return Ok(ended),
            },
        };
        self.send_portal(portal, rows, limit).await
    }

    async fn start_portal(&mut self, portal: &mut Portal) -> Result<Started, Failure> {
        let prepared = portal.prepared.clone();
        let Some(statement) = &prepared.statement else {
            return Ok(Started::Done(Ended { rows: 0 }));
        };
        let cancel = CancellationToken::new();
        let parameters = std::mem::take(&mut portal.parameters);
        let response = self.start(statement, parameters, &cancel, false, false).await?;
        let (tag, rows) = match response {
            Response::Rows { schema, rows, tag } => {
                let (schema, casts) = described_as(portal.columns.as_ref(), schema)?;
                let style = self.session.text_style();
                let writer = RowWriter::Data(DataRowEncoder::new(&schema, &portal.formats, style));
                let rows = Rows::new(rows, writer, tag, casts, cancel);
                return Ok(Started::Rows(Box::new(rows)));
            }
            Response::Done { tag } => (tag, 0),
            Response::CopyIn { columns, binary, sink } => {
                (self.copy_in(columns, binary, sink, &cancel).await?, 0)
            }
            Response::CopyOut { schema, rows, options } => {
                self.copy_out(&schema, rows, options, cancel).await?
            }
        };
        self.close_names();
        self.client.wire.put(&CommandComplete::new(tag));
        Ok(Started::Done(Ended { rows }))
    }

    async fn send_portal(
        &mut self,
        portal: &mut Portal,
        mut rows: Box<Rows>,
        limit: u64,
    ) -> Result<Ended, Failure> {
        self.client.start(rows.cancel());
        let sent = rows.send(&mut self.client, limit).await?;
        self.client.stop();
        match sent {
            Sent::All(sent) => {
                self.client.wire.put(&CommandComplete::new(rows.tag().complete(sent)));
                portal.state = PortalState::Exhausted(rows.tag().clone());
                Ok(Ended { rows: sent })
            }
            Sent::Some(sent) => {
                self.client.wire.put(&PortalSuspended::new());
                portal.state = PortalState::Suspended(rows);
                Ok(Ended { rows: sent })
            }
        }
    }

    // COPY, the same in both protocols.

    async fn copy_in(
        &mut self,
        columns: usize,
        binary: bool,
        mut sink: Box<dyn CopySink>,
        cancel: &CancellationToken,
    ) -> Result<String, Failure> {
        let format = i16::from(binary);
        let columns = copy_columns(columns)?;
        self.client.wire.put(&CopyInResponse::new(
            format as i8,
            columns,
            vec![format; columns as usize],
        ));
        self.client.flush().await?;
        loop {
            let frame = self.client.next_frame_of(cancel).await?;
            let kind = frame.kind;
            match frontend::decode(frame)? {
                Message::CopyData(bytes) => self.client.run(cancel, sink.write(bytes)).await?,
                Message::CopyDone => return self.client.run(cancel, sink.finish()).await,
                Message::CopyFail { reason } => {
                    return Err(SqlError::new(
                        SqlState::QUERY_CANCELED,
                        format!("COPY from stdin failed: {reason}"),
                    )
                    .into());
                }
                // Clients that do not know yet that their statement was a COPY send these.
                Message::Flush | Message::Sync => {}
                Message::Terminate => return Err(Failure::Gone),
                Message::Query { .. }
                | Message::Parse { .. }
                | Message::Bind { .. }
                | Message::Describe(_)
                | Message::Execute { .. }
                | Message::Close(_)
                | Message::FunctionCall
                | Message::Password => {
                    return Err(malformed(format!(
                        "unexpected message type 0x{kind:02X} during COPY from stdin"
                    ))
                    .into());
                }
            }
        }
    }

    async fn copy_out(
        &mut self,
        schema: &Schema,
        rows: RowStream,
        options: CopyOutOptions,
        cancel: CancellationToken,
    ) -> Result<(String, u64), Failure> {
        let format = options.wire_format().code();
        let columns = copy_columns(schema.fields().len())?;
        let encoder = CopyEncoder::new(schema, options, self.session.text_style());
        self.client.wire.put(&CopyOutResponse::new(
            format as i8,
            columns,
            vec![format; columns as usize],
        ));
        encoder.write_start(self.client.wire.output())?;
        let tag = RowsTag::Counted("COPY".to_owned());
        let end = encoder.end();
        let mut rows = Rows::new(rows, RowWriter::Copy(encoder), tag, Vec::new(), cancel);
        let sent = match rows.send(&mut self.client, u64::MAX).await? {
            Sent::All(sent) | Sent::Some(sent) => sent,
        };
        self.client.wire.output().extend_from_slice(end);
        self.client.wire.put(&CopyDone::new());
        Ok((rows.tag().complete(sent), sent))
    }
}

/// What executing a portal for the first time gives.
enum Started {
    Rows(Box<Rows>),
    Done(Ended),
}

/// pgwire sends no COPY of more columns than fit in 30,000 bytes.
fn copy_columns(columns: usize) -> Result<i16, SqlError> {
    i16::try_from(columns).ok().filter(|columns| *columns <= 14_000).ok_or_else(|| {
        SqlError::new(
            SqlState::TOO_MANY_COLUMNS,
            format!("COPY of {columns} columns is not possible"),
        )
    })
}

fn check_room(count: usize, what: &str) -> Result<(), SqlError> {
    if count < MAX_NAMES {
        return Ok(());
    }
    Err(SqlError::new(
        SqlState::CONFIGURATION_LIMIT_EXCEEDED,
        format!("a connection keeps at most {MAX_NAMES} {what}"),
    )
    .with_hint("Close those that are no longer needed."))
}

fn no_portal(name: &str) -> SqlError {
    SqlError::new(SqlState::INVALID_CURSOR_NAME, format!("portal \"{name}\" does not exist"))
}

fn formats(codes: &[i16]) -> Result<Vec<Format>, SqlError> {
    codes.iter().map(|code| Format::from_code(*code)).collect()
}

/// What a client says a parameter is; 0 and `unknown` leave it open.
fn declared_type(oid: u32) -> Result<Option<DataType>, SqlError> {
    if matches!(oid, 0 | types::oid::UNKNOWN) {
        return Ok(None);
    }
    match types::data_type(oid) {
        Some(data_type) => Ok(Some(data_type)),
        None if types::type_name(oid).is_some() => Err(SqlError::new(
            SqlState::FEATURE_NOT_SUPPORTED,
            format!(
                "parameters of type {} are not supported",
                types::sql_type_name(oid).unwrap_or_default()
            ),
        )),
        None => Err(SqlError::new(
            SqlState::UNDEFINED_OBJECT,
            format!("type with OID {oid} does not exist"),
        )),
    }
}

/// The columns as the client knows them, and how the result's are converted to these. A client decodes what comes by
/// what was described; columns that have become others since then cannot be sent.
fn described_as(
    described: Option<&SchemaRef>,
    actual: SchemaRef,
) -> Result<(SchemaRef, Vec<Option<DataType>>), SqlError> {
    let Some(described) = described else {
        return Ok((actual, Vec::new()));
    };
    let changed = || {
        SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, "cached plan must not change result type")
            .with_hint("Prepare the statement again.")
    };
    if described.fields().len() != actual.fields().len() {
        return Err(changed());
    }
    let mut casts = Vec::with_capacity(actual.fields().len());
    let mut fields = Vec::with_capacity(actual.fields().len());
    for (described, actual) in described.fields().iter().zip(actual.fields()) {
        if types::type_oid(described) == types::type_oid(actual) {
            casts.push(None);
            // The actual layout, under the described type's name.
            fields.push(actual.as_ref().clone().with_metadata(described.metadata().clone()));
        } else if arrow::compute::can_cast_types(actual.data_type(), described.data_type()) {
            casts.push(Some(described.data_type().clone()));
            fields.push(described.as_ref().clone());
        } else {
            return Err(changed());
        }
    }
    Ok((Arc::new(Schema::new(fields)), casts))
}

fn statement_span(protocol: &'static str) -> Span {
    tracing::info_span!(
        "statement",
        protocol,
        rows = tracing::field::Empty,
        duration_ms = tracing::field::Empty,
        sqlstate = tracing::field::Empty,
    )
}

/// Runs a statement and writes down how long it took, how many rows it sent and how it ended.
async fn logged(work: impl Future<Output = Result<Ended, Failure>>) -> Result<(), Failure> {
    let started = Instant::now();
    let result = work.await;
    let (rows, sqlstate) = match &result {
        Ok(ended) => (ended.rows, SqlState::SUCCESSFUL_COMPLETION.0),
        Err(Failure::Sql(error)) => (0, error.code.0),
        Err(Failure::Gone) => (0, SqlState::CONNECTION_FAILURE.0),
    };
    let span = Span::current();
    let duration_ms = started.elapsed().as_millis() as u64;
    span.record("rows", rows);
    span.record("duration_ms", duration_ms);
    span.record("sqlstate", sqlstate);
    tracing::info!(rows, duration_ms, sqlstate, "statement ended");
    result.map(|_| ())
}
