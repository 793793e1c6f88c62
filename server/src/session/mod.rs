//! One client's session: what it has set, prepared and changed, and the way of each statement to the code that runs it.
//!
//! The protocol calls [`thanosql_protocol::Session`]; a statement arrives as [`crate::sql::Parsed`] and leaves as rows, a tag or a
//! COPY. `describe` and `execute` take the same turns, so that what is described is what runs.

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

pub mod settings;
pub mod transaction;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::SchemaProvider;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{LogicalPlan, ScalarUDF};
use sqlparser::ast as pg;
use thanosql_protocol::types::TextStyle;
use thanosql_protocol::{
    ClientIdentity, Closed, Description, Response, RowsTag, SqlError, SqlState,
    Statement as OpaqueStatement, StatementContext, TransactionStatus,
};

use crate::catalog::SessionCatalog;
use crate::catalog::system;
use crate::catalog::thanosql::ThanosqlSchema;
use crate::error::{not_yet, parse_error};
use crate::exec::cursors::Cursors;
use crate::exec::ddl::{NewTable, Source};
use crate::exec::explain::{explain_schema, refuse_kept};
use crate::exec::query::{result_schema, text_schema};
use crate::exec::session::{missing_prepared, setting_name};
use crate::exec::training::{Training, job_id_schema};
use crate::exec::{Control, pgvector};
use crate::plan::{self, Parameters, Scope};
use crate::search::SearchContext;
use crate::server::Server;
use crate::sql::{self, Parsed, SqlStatement, Statement};
use settings::Settings;
use thanosql_storage::Owner;
use transaction::{SessionTransaction, in_failed_block};

/// The client that gets drawings from PRINT.
const TERMINAL_CLIENT: &str = "psql";

/// The numbers of sessions, for their temporary tables.
static NEXT_SESSION: AtomicU64 = AtomicU64::new(1);

/// One client's session.
pub struct ClientSession {
    pub(crate) server: Arc<Server>,
    pub(crate) client: ClientIdentity,
    pub(crate) state: SessionState,
    pub(crate) transaction: SessionTransaction,
    /// Statements of SQL's PREPARE.
    pub(crate) prepared: HashMap<String, Prepared>,
    /// What SQL closed of the protocol's prepared statements, until the protocol has heard of it.
    pub(crate) closed: Vec<Closed>,
    pub(crate) cursors: Arc<Cursors>,
    /// Whose temporary tables are this session's.
    pub(crate) session: Option<u64>,
    /// The settings at BEGIN, for ROLLBACK.
    pub(crate) block_settings: Option<Settings>,
    /// The settings at each savepoint.
    pub(crate) savepoint_settings: Vec<Settings>,
    settings: Arc<Mutex<Settings>>,
    pg_catalog: Arc<dyn SchemaProvider>,
    information_schema: Arc<dyn SchemaProvider>,
    functions: HashMap<String, Arc<ScalarUDF>>,
}

/// A statement of SQL's PREPARE.
#[derive(Clone)]
pub(crate) struct Prepared {
    parsed: Arc<Parsed>,
    types: Vec<Option<DataType>>,
}

impl Prepared {
    fn parameters(&self) -> Parameters {
        Parameters::declared(&self.types, &self.parsed)
    }
}

impl ClientSession {
    /// A session for a client that has logged in.
    ///
    /// # Errors
    /// 22023 for a setting of the startup message with a value that it does not take.
    pub fn new(server: Arc<Server>, client: ClientIdentity) -> Result<ClientSession, SqlError> {
        let mut given = vec![("session_authorization".to_string(), client.user.clone())];
        if let Some(timeout) = server.statement_timeout {
            given.push(("statement_timeout".to_string(), timeout.as_millis().to_string()));
        }
        if let Some(name) = &client.application_name {
            given.push(("application_name".to_string(), name.clone()));
        }
        given.extend(
            client.startup_parameters.iter().map(|(name, value)| (name.clone(), value.clone())),
        );
        let settings = Arc::new(Mutex::new(Settings::new(given)?));
        let owner = Owner {
            session: Some(NEXT_SESSION.fetch_add(1, Ordering::Relaxed)),
            check: Some(server.checks.clone()),
        };
        let session = owner.session;
        let transaction =
            SessionTransaction::new(server.store.clone(), owner, server.locks.clone());
        let cursors = Arc::new(Cursors::default());
        let catalog: Arc<dyn system::CatalogSource> = Arc::new(SessionCatalog::new(
            transaction.clone(),
            server.store.clone(),
            settings.clone(),
            cursors.clone(),
            client.clone(),
        ));
        let functions = system::functions(catalog.clone())
            .into_iter()
            .flat_map(|function| {
                let function = Arc::new(function);
                let names: Vec<String> = std::iter::once(function.name())
                    .chain(function.aliases().iter().map(String::as_str))
                    .map(str::to_string)
                    .collect();
                names.into_iter().map(move |name| (name, function.clone()))
            })
            .collect();
        let mut state = server.state.clone();
        let search = SearchContext::new(server.vector_indexes.clone(), settings.clone());
        state.config_mut().set_extension(Arc::new(search));
        Ok(ClientSession {
            state,
            transaction,
            prepared: HashMap::new(),
            closed: Vec::new(),
            cursors,
            session,
            block_settings: None,
            savepoint_settings: Vec::new(),
            settings,
            pg_catalog: system::pg_catalog(catalog.clone()),
            information_schema: system::information_schema(catalog),
            functions,
            client,
            server,
        })
    }

    /// The session's settings.
    pub(crate) fn settings(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The settings as they are, to go back to.
    pub(crate) fn settings_now(&self) -> Settings {
        self.settings().clone()
    }

    /// What a statement may see now.
    pub(crate) fn scope(
        &self,
        parsed: &Parsed,
        parameters: Parameters,
        control: &Control,
    ) -> Result<Scope, SqlError> {
        self.scope_with(parsed, parameters, control.cancel.clone())
    }

    pub(crate) fn scope_with(
        &self,
        parsed: &Parsed,
        parameters: Parameters,
        cancel: tokio_util::sync::CancellationToken,
    ) -> Result<Scope, SqlError> {
        let snapshot = self.transaction.snapshot();
        Ok(Scope {
            thanosql: Arc::new(ThanosqlSchema::new(
                snapshot.clone(),
                self.server.learning.clone(),
                self.server.datasets.clone(),
            )),
            snapshot,
            database: self.client.database.clone(),
            pg_catalog: self.pg_catalog.clone(),
            information_schema: self.information_schema.clone(),
            functions: self.functions.clone(),
            learning: self.server.learning.clone(),
            files: self.server.files.clone(),
            cancel,
            parameters,
            kept: HashMap::new(),
            terminal: self
                .settings()
                .get("application_name")
                .is_ok_and(|name| name == TERMINAL_CLIENT),
            script: parsed.script.clone(),
        })
    }

    /// Takes a table's lock for changing it, or for making it: that of the session's temporary one if there is one.
    pub(crate) async fn lock(&self, table: &str, control: &Control) -> Result<(), SqlError> {
        if self.transaction.peek().temporary_table(table).is_some() {
            return self.lock_temporary(table, control).await;
        }
        self.lock_name(table, control).await
    }

    /// As [`lock`](Self::lock), of a temporary table that may not exist yet.
    pub(crate) async fn lock_temporary(
        &self,
        table: &str,
        control: &Control,
    ) -> Result<(), SqlError> {
        self.lock_name(&self.transaction.temporary_lock(table), control).await
    }

    async fn lock_name(&self, table: &str, control: &Control) -> Result<(), SqlError> {
        let timeout = self.settings().lock_timeout();
        let locked = self.transaction.write(table, timeout, &control.cancel).await;
        locked.map_err(|error| control.with_reason(error))
    }

    /// A number that no other table of rows in the making has.
    pub(crate) fn next_staging(&self) -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed)
    }

    /// # Errors
    /// 25006 if the transaction was declared to change nothing.
    pub(crate) fn refuse_in_read_only(&self) -> Result<(), SqlError> {
        if self.settings().read_only() {
            return Err(SqlError::new(
                SqlState::READ_ONLY_SQL_TRANSACTION,
                "cannot change anything in a read-only transaction",
            ));
        }
        Ok(())
    }

    /// # Errors
    /// 25001 between BEGIN and COMMIT.
    pub(crate) fn refuse_in_block(&self, command: &str) -> Result<(), SqlError> {
        if self.transaction.in_block() {
            return Err(SqlError::new(
                SqlState::ACTIVE_SQL_TRANSACTION,
                format!("{command} cannot run inside a transaction block"),
            ));
        }
        Ok(())
    }

    async fn run(
        &mut self,
        parsed: &Parsed,
        parameters: Parameters,
        control: &Control,
    ) -> Result<Response, SqlError> {
        if self.transaction.status() == TransactionStatus::Failed && !ends_transaction(parsed) {
            return Err(in_failed_block());
        }
        match &parsed.statement {
            Statement::Sql(statement) => self.run_sql(parsed, statement, parameters, control).await,
            Statement::Rows(statement) => {
                let mut scope = self.scope(parsed, parameters, control)?;
                let plan = self.plan_kept_rows(&mut scope, statement, control).await?;
                self.answer(&scope, plan, RowsTag::Counted("SELECT".to_string()), control).await
            }
            Statement::BuildModel(_) | Statement::FitModel(_) => {
                match training(&parsed.statement) {
                    Some(training) => self.train(parsed, training, parameters, control).await,
                    None => Err(crate::error::internal("not a training")),
                }
            }
            Statement::DropModel(drop) => self.drop_model(drop, control).await,
            Statement::ShowCreateModel(name) => {
                let scope = self.scope(parsed, parameters, control)?;
                self.show_create_model(&scope, name)
            }
            Statement::CreateTableUsing(create) => {
                self.create_table_using(parsed, create, parameters, control).await
            }
            Statement::CopyFile(copy) => self.copy_file(parsed, copy, parameters, control).await,
            Statement::Copy(copy) => self.copy(parsed, copy, parameters, control).await,
            Statement::GetDataset(get) => self.get_dataset(parsed, get, parameters, control).await,
            Statement::CancelJob(job) => self.cancel_job(*job, &parameters),
            Statement::WaitJob(job) => self.wait_job(*job, &parameters, control).await,
            Statement::Maintenance(maintenance) => {
                Ok(Response::Done { tag: maintenance.command.tag().to_string() })
            }
            Statement::ExportModel(export) => {
                self.export_model(parsed, export, parameters, control)
            }
            Statement::UploadModel(upload) => {
                self.upload_model(parsed, upload, parameters, control).await
            }
            Statement::GetModel(get) => self.get_model(parsed, get, parameters, control).await,
            Statement::Explain(explain) => self.explain(parsed, explain, parameters, control).await,
            Statement::DeclareCursor(declare) => {
                self.declare_cursor(parsed, declare, parameters, control).await
            }
            Statement::Fetch(fetch) => self.fetch(fetch, control).await,
            Statement::CloseCursor(name) => {
                self.close_cursor(name.as_ref().map(|name| name.value.as_str()))
            }
        }
    }

    async fn run_sql(
        &mut self,
        parsed: &Parsed,
        statement: &SqlStatement,
        parameters: Parameters,
        control: &Control,
    ) -> Result<Response, SqlError> {
        use pg::Statement as Sql;
        match statement.ast.as_ref() {
            Sql::Query(query) => {
                if let Some((into, query)) = select_into(query) {
                    let target = NewTable::of_select(&into)?;
                    let source =
                        Source { query: &query, embedded: &statement.embedded, data: true };
                    return self.create_table_as(parsed, target, source, parameters, control).await;
                }
                let mut scope = self.scope(parsed, parameters, control)?;
                self.keep_embedded(&mut scope, &statement.embedded, control).await?;
                let plan = plan::plan_sql(&self.state, &scope, statement)?;
                self.answer(&scope, plan, RowsTag::Counted("SELECT".to_string()), control).await
            }
            Sql::Explain { analyze, .. } => {
                let scope = self.scope(parsed, parameters, control)?;
                if *analyze {
                    refuse_kept(&scope, &statement.embedded)?;
                }
                let plan = plan::plan_sql(&self.state, &scope, statement)?;
                self.answer(&scope, plan, RowsTag::Fixed("EXPLAIN".to_string()), control).await
            }
            Sql::Insert(_) | Sql::Update(_) | Sql::Delete(_) => {
                self.run_change(parsed, &statement.ast, &statement.embedded, parameters, control)
                    .await
            }
            Sql::Truncate(truncate) => self.truncate(truncate, control).await,
            Sql::CreateTable(create) => {
                self.create_table(parsed, statement, create, parameters, control).await
            }
            Sql::CreateView(create) => self.create_view(parsed, statement, create, control).await,
            Sql::AlterTable(alter) => self.alter_table(parsed, alter, control).await,
            Sql::Drop { object_type, if_exists, names, .. } => {
                self.drop_relations(*object_type, names, *if_exists, control).await
            }
            Sql::StartTransaction { modes, begin, .. } => {
                self.begin(modes, control, if *begin { "BEGIN" } else { "START TRANSACTION" })
            }
            Sql::Commit { chain, .. } => self.commit(*chain, control),
            Sql::Rollback { chain, savepoint: None } => self.rollback(*chain, control),
            Sql::Rollback { savepoint: Some(name), .. } => self.rollback_to_savepoint(name),
            Sql::Savepoint { name } => self.set_savepoint(name),
            Sql::ReleaseSavepoint { name } => self.release_savepoint(name),
            Sql::Set(set) => self.set(set, control),
            Sql::Reset(reset) => self.reset(&reset.reset),
            Sql::ShowVariable { variable } => self.show(variable),
            Sql::Discard { object_type } => self.discard(object_type, control).await,
            Sql::Deallocate { name, .. } => self.deallocate(name),
            Sql::Prepare { name, data_types, statement: inner } => {
                self.prepare(parsed, statement, name, data_types, inner)
            }
            Sql::Execute { name: Some(name), parameters: given, .. } => {
                self.execute_prepared(parsed, name, given, control).await
            }
            Sql::CreateIndex(create) => self.create_index(parsed, create, control).await,
            Sql::CreateExtension(create) => pgvector::create_extension(create, control),
            Sql::LISTEN { .. } | Sql::NOTIFY { .. } => Err(not_yet("LISTEN and NOTIFY")),
            // Nothing is ever listened to.
            Sql::UNLISTEN { .. } => Ok(Response::Done { tag: "UNLISTEN".to_string() }),
            other => {
                let text = other.to_string();
                let word =
                    text.split_whitespace().next().unwrap_or("this statement").to_uppercase();
                Err(SqlError::new(
                    SqlState::FEATURE_NOT_SUPPORTED,
                    format!("{word} is not supported"),
                ))
            }
        }
    }

    fn prepare(
        &mut self,
        parsed: &Parsed,
        outer: &SqlStatement,
        name: &pg::Ident,
        data_types: &[pg::DataType],
        inner: &pg::Statement,
    ) -> Result<Response, SqlError> {
        let name = sql::fold(name);
        if self.prepared.contains_key(&name) {
            return Err(SqlError::new(
                SqlState::DUPLICATE_PREPARED_STATEMENT,
                format!("prepared statement \"{name}\" already exists"),
            ));
        }
        let mut types = Vec::with_capacity(data_types.len());
        for data_type in data_types {
            types.push(Some(plan::types::value_field_of(data_type)?.data_type().clone()));
        }
        let statement = SqlStatement {
            ast: Box::new(inner.clone()),
            embedded: outer.embedded.clone(),
            with_data: outer.with_data,
        };
        let prepared = Parsed { statement: Statement::Sql(statement), ..parsed.clone() };
        self.prepared.insert(name, Prepared { parsed: Arc::new(prepared), types });
        Ok(Response::Done { tag: "PREPARE".to_string() })
    }

    async fn execute_prepared(
        &mut self,
        parsed: &Parsed,
        name: &pg::ObjectName,
        given: &[pg::Expr],
        control: &Control,
    ) -> Result<Response, SqlError> {
        let name =
            name.0.last().and_then(pg::ObjectNamePart::as_ident).map(sql::fold).unwrap_or_default();
        let prepared = self.prepared.get(&name).cloned().ok_or_else(|| missing_prepared(&name))?;
        let parameters = prepared.parameters();
        let (types, _) = self.outline_open(&prepared.parsed, &parameters)?;
        if types.len() != given.len() {
            return Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                format!("wrong number of parameters for prepared statement \"{name}\""),
            )
            .with_detail(format!(
                "expected {} parameters but got {}",
                types.len(),
                given.len()
            )));
        }
        let scope = self.scope(parsed, Parameters::default(), control)?;
        let mut values: Vec<ArrayRef> = Vec::with_capacity(given.len());
        for (expression, data_type) in given.iter().zip(&types) {
            let value = plan::plan_constant(&self.state, &scope, expression.clone())?;
            let field = arrow::datatypes::Field::new("", data_type.clone(), true);
            values.push(self.evaluate(value, &field)?);
        }
        Box::pin(self.run(&prepared.parsed, Parameters::bound(&values)?, control)).await
    }

    /// The types of a statement's parameters, and its columns. Runs nothing.
    fn outline(
        &mut self,
        parsed: &Parsed,
        parameters: Parameters,
    ) -> Result<(Vec<DataType>, Option<SchemaRef>), SqlError> {
        let count = parsed.parameter_count;
        let mut scope =
            self.scope_with(parsed, parameters, tokio_util::sync::CancellationToken::new())?;
        let columns = match &parsed.statement {
            Statement::Sql(statement) => self.outline_sql(&mut scope, statement, count)?,
            Statement::Rows(statement) => {
                let plan = plan::rows::plan(&self.state, &scope, statement, None)?;
                plan::infer_parameters(&plan, &mut scope.parameters)?;
                Some(result_schema(&plan))
            }
            Statement::BuildModel(_) | Statement::FitModel(_) => {
                match training(&parsed.statement) {
                    Some(training) => {
                        let plan = self.plan_training(&scope, &training)?;
                        plan::infer_parameters(&plan, &mut scope.parameters)?;
                        let given = plan::rows::options(
                            &scope.parameters,
                            training.options,
                            sql::BuildModelOptions::read,
                        )?;
                        given.run_async.then(job_id_schema)
                    }
                    None => None,
                }
            }
            Statement::Copy(copy) => match &copy.direction {
                sql::CopyDirection::OutOfQuery(_) | sql::CopyDirection::OutOfTable { .. } => {
                    let plan = self.plan_copy_out(&scope, copy)?;
                    plan::infer_parameters(&plan, &mut scope.parameters)?;
                    None
                }
                sql::CopyDirection::Into { .. } => None,
            },
            Statement::CancelJob(job) | Statement::WaitJob(job) => {
                if let sql::JobIdValue::Parameter(n) = job.value {
                    scope.parameters.settle(n, DataType::Int64);
                }
                None
            }
            Statement::ShowCreateModel(_) => Some(text_schema(["model", "statement"])),
            Statement::Explain(explain) => {
                if let Some(training) = training(&explain.statement) {
                    let plan = self.plan_training(&scope, &training)?;
                    plan::infer_parameters(&plan, &mut scope.parameters)?;
                }
                Some(explain_schema())
            }
            Statement::DeclareCursor(declare) => {
                self.settled(&mut scope, count, |session, scope| {
                    plan::plan_body(&session.state, scope, &declare.body)
                })?;
                None
            }
            Statement::Fetch(fetch) if !fetch.moves => {
                let schema = self.cursors.schema(&fetch.cursor.value);
                Some(schema.map_err(|error| error.at(fetch.cursor.position))?)
            }
            Statement::DropModel(_)
            | Statement::ExportModel(_)
            | Statement::UploadModel(_)
            | Statement::CreateTableUsing(_)
            | Statement::CopyFile(_)
            | Statement::GetDataset(_)
            | Statement::GetModel(_)
            | Statement::Fetch(_)
            | Statement::CloseCursor(_)
            | Statement::Maintenance(_) => None,
        };
        Ok((scope.parameters.final_types(count), columns))
    }

    /// [`ClientSession::outline`] where the parameters' values are not known yet. The statement may name columns that only the values make: then its
    /// own columns stay open.
    fn outline_open(
        &mut self,
        parsed: &Parsed,
        known: &Parameters,
    ) -> Result<(Vec<DataType>, Option<SchemaRef>), SqlError> {
        match self.outline(parsed, known.clone()) {
            Err(_) if known.is_open() => Ok((known.final_types(parsed.parameter_count), None)),
            outline => outline,
        }
    }

    fn outline_sql(
        &mut self,
        scope: &mut Scope,
        statement: &SqlStatement,
        count: usize,
    ) -> Result<Option<SchemaRef>, SqlError> {
        use pg::Statement as Sql;
        match statement.ast.as_ref() {
            Sql::Query(_) | Sql::Explain { .. } => {
                if let Sql::Query(query) = statement.ast.as_ref()
                    && let Some((_, query)) = select_into(query)
                {
                    self.settled(scope, count, |session, scope| {
                        let ast = pg::Statement::Query(Box::new(query.clone()));
                        let tables = HashMap::new();
                        plan::plan_ast(&session.state, scope, ast, &statement.embedded, tables)
                    })?;
                    return Ok(None);
                }
                let plan = self.settled(scope, count, |session, scope| {
                    plan::plan_sql(&session.state, scope, statement)
                })?;
                Ok(Some(result_schema(&plan)))
            }
            Sql::Insert(_) | Sql::Update(_) | Sql::Delete(_) => {
                let mut change = self.plan_change(scope, &statement.ast, &statement.embedded)?;
                plan::infer_parameters(&change.plan, &mut scope.parameters)?;
                if count > 0 {
                    // Once more, with every type known.
                    scope.parameters.settle_all(count);
                    change = self.plan_change(scope, &statement.ast, &statement.embedded)?;
                }
                change.columns(self, scope)
            }
            Sql::CreateTable(create) => {
                if let Some(query) = &create.query {
                    let ast = pg::Statement::Query(query.clone());
                    self.settled(scope, count, |session, scope| {
                        plan::plan_ast(
                            &session.state,
                            scope,
                            ast.clone(),
                            &statement.embedded,
                            HashMap::new(),
                        )
                    })?;
                }
                Ok(None)
            }
            Sql::ShowVariable { variable } => {
                let name = setting_name(variable);
                if name == "all" {
                    return Ok(Some(text_schema(["name", "setting", "description"])));
                }
                self.settings().get(&name)?;
                Ok(Some(text_schema([name.as_str()])))
            }
            Sql::Execute { name: Some(name), .. } => {
                let name = name
                    .0
                    .last()
                    .and_then(pg::ObjectNamePart::as_ident)
                    .map(sql::fold)
                    .unwrap_or_default();
                let prepared =
                    self.prepared.get(&name).cloned().ok_or_else(|| missing_prepared(&name))?;
                Ok(self.outline(&prepared.parsed, prepared.parameters())?.1)
            }
            _ => Ok(None),
        }
    }

    /// Plans a query, settles the types of its parameters, and plans it again with them: a result's type may depend on
    /// a parameter's.
    fn settled(
        &self,
        scope: &mut Scope,
        count: usize,
        plan: impl Fn(&ClientSession, &Scope) -> Result<LogicalPlan, SqlError>,
    ) -> Result<LogicalPlan, SqlError> {
        let first = plan(self, scope);
        if count == 0 {
            return first;
        }
        if let Ok(first) = &first {
            plan::infer_parameters(first, &mut scope.parameters)?;
        }
        scope.parameters.settle_all(count);
        plan(self, scope)
    }
}

/// BUILD MODEL and FIT MODEL, as one.
pub(crate) fn training(statement: &Statement) -> Option<Training<'_>> {
    match statement {
        Statement::BuildModel(build) => Some(Training {
            name: &build.name,
            base: None,
            options: &build.options,
            body: &build.body,
            tag: "BUILD MODEL",
        }),
        Statement::FitModel(fit) => Some(Training {
            name: &fit.name,
            base: Some(&fit.base),
            options: &fit.options,
            body: &fit.body,
            tag: "FIT MODEL",
        }),
        _ => None,
    }
}

fn ends_transaction(parsed: &Parsed) -> bool {
    match &parsed.statement {
        Statement::Sql(statement) => {
            matches!(
                statement.ast.as_ref(),
                pg::Statement::Commit { .. } | pg::Statement::Rollback { .. }
            )
        }
        _ => false,
    }
}

/// The target of SELECT INTO, and the query without it.
fn select_into(query: &pg::Query) -> Option<(pg::SelectInto, pg::Query)> {
    let pg::SetExpr::Select(select) = query.body.as_ref() else { return None };
    select.into.as_ref()?;
    let mut query = query.clone();
    let pg::SetExpr::Select(select) = query.body.as_mut() else { return None };
    let into = select.into.take()?;
    Some((into, query))
}

fn parsed(statement: &OpaqueStatement) -> Result<Arc<Parsed>, SqlError> {
    Arc::clone(statement)
        .downcast::<Parsed>()
        .map_err(|_| crate::error::internal("a statement of another session's making"))
}

#[async_trait]
impl thanosql_protocol::Session for ClientSession {
    fn parse(&mut self, sql: &str) -> Result<Vec<OpaqueStatement>, SqlError> {
        let statements = sql::parse_script(sql).map_err(parse_error)?;
        Ok(statements.into_iter().map(|statement| Arc::new(statement) as OpaqueStatement).collect())
    }

    async fn describe(
        &mut self,
        statement: &OpaqueStatement,
        declared: &[Option<DataType>],
    ) -> Result<Description, SqlError> {
        let parsed = parsed(statement)?;
        if self.transaction.status() == TransactionStatus::Failed && !ends_transaction(&parsed) {
            return Err(in_failed_block());
        }
        let known = Parameters::declared(declared, &parsed);
        let (parameters, columns) = self.outline_open(&parsed, &known)?;
        // Most queries name the columns that they want of a SEARCH.
        let settled = known.is_open()
            && self.outline(&parsed, known.of_two_images()).is_ok_and(|(_, two)| two == columns);
        let open = (known.is_open() && !settled).then(|| {
            SqlError::new(
                SqlState::FEATURE_NOT_SUPPORTED,
                "an array of images cannot be described before its values are known",
            )
            .with_hint("Describe the portal after Bind, or give each image as a parameter of its own: images=[$1, $2].")
        });
        Ok(Description { parameters, columns, open })
    }

    async fn describe_bound(
        &mut self,
        statement: &OpaqueStatement,
        parameters: &[ArrayRef],
    ) -> Result<Option<SchemaRef>, SqlError> {
        let parsed = parsed(statement)?;
        Ok(self.outline(&parsed, Parameters::bound(parameters)?)?.1)
    }

    async fn execute(
        &mut self,
        statement: &OpaqueStatement,
        parameters: Vec<ArrayRef>,
        context: StatementContext,
    ) -> Result<Response, SqlError> {
        let parsed = parsed(statement)?;
        let control = Control::new(&context, self.settings().statement_timeout());
        let parameters = Parameters::bound(&parameters)?;
        self.run(&parsed, parameters, &control).await
    }

    async fn finish(&mut self, success: bool) -> Result<(), SqlError> {
        let in_block = self.transaction.in_block();
        let outcome = self.transaction.finish(success);
        if !in_block {
            self.end_transaction(success && outcome.is_ok());
        }
        outcome
    }

    fn transaction_status(&self) -> TransactionStatus {
        self.transaction.status()
    }

    fn take_parameter_changes(&mut self) -> Vec<(String, String)> {
        self.settings().take_changes()
    }

    fn initial_parameters(&self) -> Vec<(String, String)> {
        self.settings().reported()
    }

    fn cursor_columns(&self, name: &str) -> Option<SchemaRef> {
        self.cursors.schema(name).ok()
    }

    fn take_closed(&mut self) -> Vec<Closed> {
        std::mem::take(&mut self.closed)
    }

    fn text_style(&self) -> TextStyle {
        self.settings().text_style()
    }
}

impl Drop for ClientSession {
    /// Temporary tables end with their session. What a crash leaves is dropped when the store is next opened.
    fn drop(&mut self) {
        self.transaction.rollback();
        let (Some(session), store) = (self.session, self.server.store.clone()) else { return };
        if !store.snapshot_of(Some(session)).tables().iter().any(|table| table.is_temporary()) {
            return;
        }
        let drop_them = move || {
            if let Err(error) = store.drop_temporary(session) {
                tracing::warn!(%error, "could not drop the temporary tables of a session");
            }
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(drop_them)),
            Err(_) => drop_them(),
        }
    }
}
