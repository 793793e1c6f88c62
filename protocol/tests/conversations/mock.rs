//! A backend that does what the words of its statements say. A script's statements are divided by semicolons:
//!
//! | statement | what it does |
//! | --- | --- |
//! | `series N [BATCH]` | rows 0 to N - 1 (int4), in batches |
//! | `echo [TYPE ...]` | its parameters as one row; a type is an OID's name |
//! | `values TYPE LITERAL ...` | one row of these |
//! | `wide N` | one row of a text of N bytes |
//! | `wait` | sends a notice every 20 ms until it is cancelled |
//! | `stubborn` | never answers, and takes no notice of being cancelled |
//! | `endless` | rows without end, without looking at its token |
//! | `hesitant` | three rows, and then none for ever |
//! | `notice TEXT`, `fail`, `panic`, `panic later` | as they say; `later` means within the rows |
//! | `fail after N` | N rows, then an error |
//! | `begin`, `commit`, `rollback` | transactions |
//! | `commit fails` | makes the next successful finish fail |
//! | `set NAME VALUE` | changes a parameter |
//! | `copy in [binary] [fails]`, `copy out text`, `csv`, `binary`, `fails` | COPY of three columns |
//! | `changed` | described as int8, yields int4; `changed columns`: yields two columns |
//! | `close NAME`, `close all` | closes prepared statements |
//! | `open` | one row of as many int4 columns as its parameter says; described only with its value |
//! | `done TAG` | answers the tag |

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};
use thanosql_protocol::types::{self, PG_TYPE_KEY, TextStyle};
use thanosql_protocol::{
    Backend, ClientIdentity, Closed, CopyOutOptions, CopySink, Description, Notice, ProtocolError,
    ProtocolOptions, Response, RowStream, RowsTag, Session, SqlError, SqlState, Statement,
    StatementContext, TransactionStatus, serve,
};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A running server, stopped when it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) events: Events,
    pub(crate) shutdown: CancellationToken,
    pub(crate) ended: Option<JoinHandle<Result<(), ProtocolError>>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// What the sessions were asked to do, in order.
#[derive(Clone, Default)]
pub(crate) struct Events(Arc<Mutex<Vec<String>>>);

impl Events {
    fn add(&self, event: impl Into<String>) {
        self.0.lock().unwrap().push(event.into());
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// Waits until this has happened.
    pub(crate) async fn wait_for(&self, event: &str) {
        for _ in 0..300 {
            if self.all().iter().any(|seen| seen == event) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{event} did not happen, but {:?}", self.all());
    }
}

pub(crate) async fn start() -> Server {
    start_with(ProtocolOptions::default()).await
}

pub(crate) async fn start_with(options: ProtocolOptions) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let events = Events::default();
    let shutdown = CancellationToken::new();
    let backend = Arc::new(Mock { events: events.clone() });
    let ended = tokio::spawn(serve(listener, backend, options, shutdown.clone()));
    Server { address, events, shutdown, ended: Some(ended) }
}

/// Serves on a listener until it cannot.
pub(crate) async fn serve_on(
    listener: TcpListener,
    options: ProtocolOptions,
) -> Result<(), ProtocolError> {
    let backend = Arc::new(Mock { events: Events::default() });
    serve(listener, backend, options, CancellationToken::new()).await
}

struct Mock {
    events: Events,
}

#[async_trait]
impl Backend for Mock {
    async fn connect(&self, client: ClientIdentity) -> Result<Box<dyn Session>, SqlError> {
        match client.database.as_str() {
            "missing" => {
                return Err(SqlError::new(
                    SqlState::INVALID_CATALOG_NAME,
                    "database \"missing\" does not exist",
                ));
            }
            "panic" => panic!("in connect"),
            _ => {}
        }
        self.events.add(format!("connect {} tls={}", client.user, client.tls));
        Ok(Box::new(MockSession {
            events: self.events.clone(),
            status: TransactionStatus::Idle,
            changes: Vec::new(),
            closed: Vec::new(),
            finish_fails: false,
        }))
    }
}

struct MockSession {
    events: Events,
    status: TransactionStatus,
    changes: Vec<(String, String)>,
    closed: Vec<Closed>,
    finish_fails: bool,
}

impl Drop for MockSession {
    fn drop(&mut self) {
        self.events.add("session dropped");
    }
}

fn text_of(statement: &Statement) -> &str {
    statement.downcast_ref::<String>().unwrap()
}

fn field(type_name: &str) -> Field {
    let oid = types::oid_by_name(type_name).unwrap();
    Field::new("?column?", types::data_type(oid).unwrap(), true)
        .with_metadata(HashMap::from([(PG_TYPE_KEY.to_owned(), type_name.to_owned())]))
}

/// What `open` yields.
fn open_row(parameters: &[ArrayRef]) -> RecordBatch {
    let count = parameters[0].as_any().downcast_ref::<Int32Array>().unwrap().value(0);
    let columns = (0..count)
        .map(|number| (format!("c{number}"), Arc::new(Int32Array::from(vec![number])) as ArrayRef));
    RecordBatch::try_from_iter(columns).unwrap()
}

fn int4_column() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("n", DataType::Int32, false)]))
}

fn int4_batch(values: Vec<i32>) -> RecordBatch {
    RecordBatch::try_new(int4_column(), vec![Arc::new(Int32Array::from(values))]).unwrap()
}

fn rows(schema: SchemaRef, rows: RowStream) -> Response {
    Response::Rows { schema, rows, tag: RowsTag::Counted("SELECT".to_owned()) }
}

fn failure() -> SqlError {
    SqlError::new(SqlState::UNDEFINED_COLUMN, "column \"x\" does not exist")
        .with_detail("There is no x.")
        .with_hint("Take y.")
        .at(8)
}

/// Three columns with NULLs and everything that COPY must escape.
fn copy_batch() -> RecordBatch {
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(Int32Array::from(vec![Some(1), Some(2), None]))),
        ("name", Arc::new(StringArray::from(vec![Some("a\tb\\c\nd"), Some(""), None]))),
        ("note", Arc::new(StringArray::from(vec![Some("x,\"y\""), Some("\\N"), Some("z")]))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

#[async_trait]
impl Session for MockSession {
    fn parse(&mut self, sql: &str) -> Result<Vec<Statement>, SqlError> {
        if sql.contains("syntax error") {
            return Err(SqlError::new(SqlState::SYNTAX_ERROR, "syntax error").at(1));
        }
        assert!(!sql.contains("parse panic"), "in parse");
        Ok(sql
            .split(';')
            .map(str::trim)
            .filter(|text| !text.is_empty())
            .map(|text| Arc::new(text.to_owned()) as Statement)
            .collect())
    }

    async fn describe(
        &mut self,
        statement: &Statement,
        declared: &[Option<DataType>],
    ) -> Result<Description, SqlError> {
        let words: Vec<&str> = text_of(statement).split_whitespace().collect();
        self.events.add(format!("describe {}", words.join(" ")));
        let columns = |fields: Vec<Field>| Some(Arc::new(Schema::new(fields)));
        Ok(match words.as_slice() {
            ["echo", names @ ..] => {
                let fields: Vec<Field> = names.iter().map(|name| field(name)).collect();
                let parameters = fields
                    .iter()
                    .enumerate()
                    .map(|(index, field)| match declared.get(index) {
                        Some(Some(declared)) => declared.clone(),
                        Some(None) | None => field.data_type().clone(),
                    })
                    .collect();
                Description { parameters, columns: columns(fields), open: None }
            }
            ["series", ..]
            | ["endless"]
            | ["hesitant"]
            | ["fail", "after", ..]
            | ["panic", "later"] => {
                Description { parameters: Vec::new(), columns: Some(int4_column()), open: None }
            }
            ["values", rest @ ..] => {
                let fields = rest.chunks(2).map(|pair| field(pair[0])).collect();
                Description { parameters: Vec::new(), columns: columns(fields), open: None }
            }
            ["changed", ..] => Description {
                parameters: Vec::new(),
                columns: columns(vec![field("int8")]),
                open: None,
            },
            ["open"] => Description {
                parameters: vec![DataType::Int32],
                columns: None,
                open: Some(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, "bind first")),
            },
            ["describe", "fails"] => return Err(failure()),
            ["describe", "panics"] => panic!("in describe"),
            _ => Description { parameters: Vec::new(), columns: None, open: None },
        })
    }

    async fn describe_bound(
        &mut self,
        _statement: &Statement,
        parameters: &[ArrayRef],
    ) -> Result<Option<SchemaRef>, SqlError> {
        Ok(Some(open_row(parameters).schema()))
    }

    async fn execute(
        &mut self,
        statement: &Statement,
        parameters: Vec<ArrayRef>,
        context: StatementContext,
    ) -> Result<Response, SqlError> {
        let text = text_of(statement);
        self.events.add(format!("execute {text}"));
        let words: Vec<&str> = text.split_whitespace().collect();
        if self.status == TransactionStatus::Failed && !matches!(words[0], "rollback" | "commit") {
            return Err(SqlError::new(
                SqlState::IN_FAILED_SQL_TRANSACTION,
                "current transaction is aborted, commands ignored until end of transaction block",
            ));
        }
        let done = |tag: &str| Ok(Response::Done { tag: tag.to_owned() });
        match words.as_slice() {
            ["series", count, rest @ ..] => {
                let count: i32 = count.parse().unwrap();
                let batch: usize = rest.first().map_or(3, |batch| batch.parse().unwrap());
                let events = self.events.clone();
                let guard = Guard(events);
                let batches = stream::iter((0..count).step_by(batch)).map(move |start| {
                    let _ = &guard;
                    let end = count.min(start + batch as i32);
                    Ok(int4_batch((start..end).collect()))
                });
                Ok(rows(int4_column(), batches.boxed()))
            }
            ["echo", names @ ..] => {
                let fields = names
                    .iter()
                    .zip(&parameters)
                    .map(|(name, array)| field(name).with_data_type(array.data_type().clone()));
                let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
                let batch = RecordBatch::try_new(schema.clone(), parameters).unwrap();
                Ok(rows(schema, stream::iter([Ok(batch)]).boxed()))
            }
            ["values", rest @ ..] => {
                let fields: Vec<Field> = rest.chunks(2).map(|pair| field(pair[0])).collect();
                let arrays = rest.chunks(2).zip(&fields).map(|(pair, field)| {
                    types::parse_text(&pair[1].replace('_', " "), field.data_type())
                });
                let arrays: Vec<ArrayRef> = arrays.collect::<Result<_, _>>()?;
                let actual = fields
                    .iter()
                    .zip(&arrays)
                    .map(|(field, array)| field.clone().with_data_type(array.data_type().clone()));
                let schema = Arc::new(Schema::new(actual.collect::<Vec<_>>()));
                let batch = RecordBatch::try_new(schema.clone(), arrays).unwrap();
                Ok(rows(schema, stream::iter([Ok(batch)]).boxed()))
            }
            ["open"] => {
                let batch = open_row(&parameters);
                Ok(rows(batch.schema(), stream::iter([Ok(batch)]).boxed()))
            }
            ["wide", bytes] => {
                let text = "x".repeat(bytes.parse().unwrap());
                let columns: Vec<(&str, ArrayRef)> =
                    vec![("text", Arc::new(StringArray::from(vec![text])))];
                let batch = RecordBatch::try_from_iter(columns).unwrap();
                Ok(rows(batch.schema(), stream::iter([Ok(batch)]).boxed()))
            }
            ["wait"] => loop {
                tokio::select! {
                    () = context.cancel.cancelled() => {
                        self.events.add("wait cancelled");
                        return Err(SqlError::new(SqlState::QUERY_CANCELED, "the wait was cancelled"));
                    }
                    () = tokio::time::sleep(Duration::from_millis(20)) => {
                        context.notices.send(Notice::new("still waiting"));
                    }
                }
            },
            ["stubborn"] => std::future::pending().await,
            ["endless"] => {
                let guard = Guard(self.events.clone());
                let batches = stream::repeat_with(move || {
                    let _ = &guard;
                    Ok(int4_batch((0..1000).collect()))
                });
                Ok(rows(int4_column(), batches.boxed()))
            }
            ["hesitant"] => {
                let first = stream::iter([Ok(int4_batch(vec![0, 1, 2]))]);
                Ok(rows(int4_column(), first.chain(stream::pending()).boxed()))
            }
            ["notice", text @ ..] => {
                context.notices.send(
                    Notice::warning(SqlState::WARNING, text.join(" ")).with_hint("Look here."),
                );
                done("NOTICE")
            }
            ["fail"] => Err(failure()),
            ["fail", "after", count] => {
                let batch = int4_batch((0..count.parse().unwrap()).collect());
                Ok(rows(int4_column(), stream::iter([Ok(batch), Err(failure())]).boxed()))
            }
            ["panic"] => panic!("in execute"),
            ["panic", "later"] => {
                let batches = stream::iter([0, 1]).map(|step| {
                    assert!(step == 0, "in the rows");
                    Ok(int4_batch(vec![1]))
                });
                Ok(rows(int4_column(), batches.boxed()))
            }
            ["begin"] => {
                self.status = TransactionStatus::InTransaction;
                done("BEGIN")
            }
            ["commit"] => {
                let failed = self.status == TransactionStatus::Failed;
                self.status = TransactionStatus::Idle;
                done(if failed { "ROLLBACK" } else { "COMMIT" })
            }
            ["rollback"] => {
                self.status = TransactionStatus::Idle;
                done("ROLLBACK")
            }
            ["commit", "fails"] => {
                self.finish_fails = true;
                done("INSERT 0 1")
            }
            ["set", name, value] => {
                self.changes.push(((*name).to_owned(), (*value).to_owned()));
                done("SET")
            }
            ["close", "all"] => {
                self.closed.extend([Closed::AllStatements, Closed::AllPortals]);
                done("DISCARD ALL")
            }
            ["close", name] => {
                self.closed.push(Closed::Statement((*name).to_owned()));
                done("DEALLOCATE")
            }
            ["copy", "in", how @ ..] => Ok(Response::CopyIn {
                columns: 2,
                binary: how.contains(&"binary"),
                sink: Box::new(MockSink {
                    events: self.events.clone(),
                    bytes: Vec::new(),
                    fails: how.contains(&"fails"),
                    finished: false,
                }),
            }),
            ["copy", "out", how] => {
                let batch = copy_batch();
                let options = match *how {
                    "csv" => CopyOutOptions { header: true, ..CopyOutOptions::csv() },
                    "binary" => CopyOutOptions::binary(),
                    _ => CopyOutOptions::text(),
                };
                let mut batches = vec![Ok(batch.clone())];
                if *how == "fails" {
                    batches.push(Err(failure()));
                }
                Ok(Response::CopyOut {
                    schema: batch.schema(),
                    rows: stream::iter(batches).boxed(),
                    options,
                })
            }
            ["changed"] => Ok(rows(int4_column(), stream::iter([Ok(int4_batch(vec![7]))]).boxed())),
            ["changed", "columns"] => {
                let batch = copy_batch();
                Ok(rows(batch.schema(), stream::iter([Ok(batch)]).boxed()))
            }
            ["done", tag @ ..] => done(&tag.join(" ")),
            other => Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                format!("syntax error at or near \"{}\"", other[0]),
            )
            .at(1)),
        }
    }

    async fn finish(&mut self, success: bool) -> Result<(), SqlError> {
        self.events.add(format!("finish {success}"));
        if !success && self.status == TransactionStatus::InTransaction {
            self.status = TransactionStatus::Failed;
        }
        if success && std::mem::take(&mut self.finish_fails) {
            return Err(SqlError::new(
                SqlState::SERIALIZATION_FAILURE,
                "could not serialize access due to concurrent update",
            ));
        }
        Ok(())
    }

    fn transaction_status(&self) -> TransactionStatus {
        self.status
    }

    fn take_parameter_changes(&mut self) -> Vec<(String, String)> {
        std::mem::take(&mut self.changes)
    }

    fn take_closed(&mut self) -> Vec<Closed> {
        std::mem::take(&mut self.closed)
    }

    fn initial_parameters(&self) -> Vec<(String, String)> {
        [("server_version", "16.0"), ("client_encoding", "UTF8")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec()
    }

    fn text_style(&self) -> TextStyle {
        TextStyle::default()
    }
}

/// Tells that a row stream was dropped.
struct Guard(Events);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.add("rows dropped");
    }
}

struct MockSink {
    events: Events,
    bytes: Vec<u8>,
    fails: bool,
    finished: bool,
}

#[async_trait]
impl CopySink for MockSink {
    async fn write(&mut self, bytes: Bytes) -> Result<(), SqlError> {
        if self.fails {
            return Err(SqlError::new(
                SqlState::BAD_COPY_FILE_FORMAT,
                "missing data for column \"b\"",
            ));
        }
        self.bytes.extend_from_slice(&bytes);
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<String, SqlError> {
        self.finished = true;
        self.events.add(format!("copied {}", String::from_utf8_lossy(&self.bytes)));
        let lines = self.bytes.iter().filter(|byte| **byte == b'\n').count();
        Ok(format!("COPY {lines}"))
    }
}

impl Drop for MockSink {
    fn drop(&mut self) {
        if !self.finished {
            self.events.add("copy discarded");
        }
    }
}
