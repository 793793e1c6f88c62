//! From a parsed statement to DataFusion's logical plan.
//!
//! A ThanoSQL statement that yields rows is planned as the plain SQL it means (`rows`), under the placeholder name that the
//! grammar put in its place; so it composes with everything that DataFusion plans. A plan is made from one [`Scope`], in
//! one go, without waiting; nothing here runs a query, trains or writes.
//!
//! Parameters keep their places (`$1`) in plans of plain SQL and in the images of SEARCH; option values are needed while
//! planning, so a statement is planned anew for each execution.

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

pub mod coerce;
mod common_types;
mod compute;
mod context;
mod evaluate;
pub mod families;
mod forms;
mod inference;
mod integers;
pub mod json;
pub mod names;
pub mod operators;
pub mod origins;
mod predict;
pub mod provenance;
pub(crate) mod rewrite;
pub mod rows;
pub mod scores;
pub mod types;
mod vectors;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::Array;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::catalog::SchemaProvider;
use datafusion::common::{DFSchema, ParamValues, ScalarValue, TableReference};
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::planner::ContextProvider as _;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, ScalarUDF, TableSource};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_plan::PhysicalExpr;
use sqlparser::ast as pg;
use thanosql_protocol::{SqlError, SqlState};
use thanosql_storage::{Snapshot, Table};
use tokio_util::sync::CancellationToken;

use crate::error::{datafusion_error, parse_error};
use crate::files::FileAccess;
use crate::functions::{EmbedContext, embed_function};
use crate::learning::{Learning, OnError};
use crate::sql::{self, Body, Embedded, OptionKind, OptionValue, Parsed, SqlStatement};
use context::Context;
pub use vectors::as_vector;

/// How deep views may stand in views.
pub const MAX_VIEW_DEPTH: usize = 32;

/// Everything that one statement may see.
#[derive(Clone)]
pub struct Scope {
    /// Tables, views and models as they are for this statement.
    pub snapshot: Snapshot,
    /// The name of the database, for qualified names.
    pub database: String,
    /// `pg_catalog`.
    pub pg_catalog: Arc<dyn SchemaProvider>,
    /// `information_schema`.
    pub information_schema: Arc<dyn SchemaProvider>,
    /// `thanosql`.
    pub thanosql: Arc<dyn SchemaProvider>,
    /// Functions that belong to this session or this statement, by name.
    pub functions: HashMap<String, Arc<ScalarUDF>>,
    /// Models at work.
    pub learning: Arc<Learning>,
    /// The files that may be read.
    pub files: FileAccess,
    /// Pulled when the statement shall stop.
    pub cancel: CancellationToken,
    /// The statement's parameters.
    pub parameters: Parameters,
    /// What each CONVERT with `table_name` has kept, by placeholder; filled only while a statement runs.
    pub kept: HashMap<String, Table>,
    /// Whether the client is a terminal that wants drawings (psql).
    pub terminal: bool,
    /// The text that positions count in.
    pub script: Arc<str>,
}

impl Scope {
    fn system_schema(&self, name: &str) -> Option<&Arc<dyn SchemaProvider>> {
        match name {
            "pg_catalog" => Some(&self.pg_catalog),
            "information_schema" => Some(&self.information_schema),
            "thanosql" => Some(&self.thanosql),
            _ => None,
        }
    }

    /// `embed` for this statement.
    pub fn embed(&self, on_error: OnError, batch_size: Option<usize>) -> ScalarUDF {
        embed_function(self.embed_context(on_error, batch_size))
    }

    /// What embedding rests on in this statement.
    pub fn embed_context(&self, on_error: OnError, batch_size: Option<usize>) -> Arc<EmbedContext> {
        Arc::new(EmbedContext::new(
            self.learning.clone(),
            self.snapshot.clone(),
            self.files.clone(),
            on_error,
            batch_size,
            self.cancel.clone(),
        ))
    }
}

/// The parameters of a statement: types that are known, and values once it runs.
#[derive(Clone, Debug, Default)]
pub struct Parameters {
    types: Vec<Option<DataType>>,
    values: Option<Vec<ScalarValue>>,
    /// Set while planning if the result's columns hang on values that are not known yet.
    open: Arc<AtomicBool>,
    /// Whether an array of images that is not known yet is taken to hold two, not one.
    two_images: bool,
}

impl Parameters {
    /// What a client declared before the statement runs; there may be fewer types than parameters. Those that it left open and that are the
    /// value of an option are of the option's kind; those that are cast are what they are cast to.
    pub fn declared(types: &[Option<DataType>], parsed: &Parsed) -> Parameters {
        let mut types = types.to_vec();
        types.resize(parsed.parameter_count.max(types.len()), None);
        let mut parameters = Parameters { types, ..Parameters::default() };
        for (n, kind) in &parsed.option_parameters {
            if let Some(data_type) = option_type(*kind) {
                parameters.settle(*n, data_type);
            }
        }
        for (n, sql_type) in &parsed.cast_parameters {
            if let Some(data_type) = types::parameter_type(sql_type) {
                parameters.settle(*n, data_type);
            }
        }
        parameters
    }

    /// Values to run with.
    ///
    /// # Errors
    /// 08P01 for an array that is not one value long.
    pub fn bound(arrays: &[arrow::array::ArrayRef]) -> Result<Parameters, SqlError> {
        let mut values = Vec::with_capacity(arrays.len());
        for array in arrays {
            if array.len() != 1 {
                return Err(SqlError::new(
                    SqlState::PROTOCOL_VIOLATION,
                    "a parameter is one value",
                ));
            }
            values.push(
                ScalarValue::try_from_array(array, 0)
                    .map_err(|error| datafusion_error(error, None))?,
            );
        }
        Ok(Parameters {
            types: arrays.iter().map(|array| Some(array.data_type().clone())).collect(),
            values: Some(values),
            ..Parameters::default()
        })
    }

    /// The type of `$n`, if it is known.
    pub fn data_type(&self, n: usize) -> Option<&DataType> {
        self.types.get(n.checked_sub(1)?)?.as_ref()
    }

    /// The value of `$n`, if the statement runs.
    pub fn value(&self, n: usize) -> Option<&ScalarValue> {
        self.values.as_ref()?.get(n.checked_sub(1)?)
    }

    /// Settles a type that the client left open.
    pub fn settle(&mut self, n: usize, data_type: DataType) {
        let Some(index) = n.checked_sub(1) else { return };
        if self.types.len() <= index {
            self.types.resize(index + 1, None);
        }
        self.types[index].get_or_insert(data_type);
    }

    /// Settles what nothing decides.
    pub fn settle_all(&mut self, count: usize) {
        self.types = self.final_types(count).into_iter().map(Some).collect();
    }

    /// Whether there are values.
    pub fn is_bound(&self) -> bool {
        self.values.is_some()
    }

    /// Notes that the result's columns hang on values that are not known yet.
    pub fn leave_open(&self) {
        self.open.store(true, Ordering::Relaxed);
    }

    /// Whether the result's columns hang on values that are not known yet.
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    /// The same, with two images in arrays that are not known yet: what is described alike for one and for two hangs on no number.
    pub fn of_two_images(&self) -> Parameters {
        Parameters { two_images: true, ..self.clone() }
    }

    /// How many images an array that is not known yet is taken to hold.
    pub fn assumed_images(&self) -> usize {
        if self.two_images { 2 } else { 1 }
    }

    /// The types of all parameters; what nothing decides is text, as in PostgreSQL.
    pub fn final_types(&self, count: usize) -> Vec<DataType> {
        (1..=count.max(self.types.len()))
            .map(|n| self.data_type(n).cloned().unwrap_or(DataType::Utf8))
            .collect()
    }

    fn fields(&self) -> Vec<Option<FieldRef>> {
        self.types
            .iter()
            .map(|data_type| {
                data_type
                    .as_ref()
                    .map(|data_type| Arc::new(Field::new("", data_type.clone(), true)))
            })
            .collect()
    }

    /// The values as options read them; `None` before the statement runs.
    pub fn option_values(&self) -> Option<Vec<OptionValue>> {
        Some(self.values.as_ref()?.iter().map(option_value).collect())
    }

    /// The text of a parameter that stands for a path; `None` before the statement runs.
    ///
    /// # Errors
    /// 42P02 for a parameter that was not given, 22023 for one that is no text.
    pub fn text(&self, n: usize) -> Result<Option<String>, SqlError> {
        if self.values.is_none() {
            return Ok(None);
        }
        let value = self.value(n).ok_or_else(|| no_parameter(n))?;
        match value.try_as_str() {
            Some(Some(text)) => Ok(Some(text.to_string())),
            Some(None) | None => Err(SqlError::new(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("parameter ${n} must be a text that is not NULL"),
            )),
        }
    }
}

/// The type of an option's values; none where there are several.
fn option_type(kind: OptionKind) -> Option<DataType> {
    match kind {
        OptionKind::Text | OptionKind::Word(_) => Some(DataType::Utf8),
        OptionKind::Boolean => Some(DataType::Boolean),
        OptionKind::Integer { .. } => Some(DataType::Int64),
        OptionKind::Number { .. } => Some(DataType::Float64),
        // A text or a list of texts; a path or an image.
        OptionKind::TextList | OptionKind::Image => None,
    }
}

/// A value as an option's value. What options have no form for is handed on as its text.
fn option_value(value: &ScalarValue) -> OptionValue {
    if value.is_null() {
        return OptionValue::Null;
    }
    if let Some(Some(text)) = value.try_as_str() {
        return OptionValue::String(text.to_string());
    }
    match value {
        ScalarValue::Boolean(Some(value)) => OptionValue::Bool(*value),
        ScalarValue::Binary(Some(bytes)) => OptionValue::Bytes(bytes.clone()),
        ScalarValue::List(list) => {
            let elements = list.value(0);
            let element = |index| {
                ScalarValue::try_from_array(&elements, index)
                    .map_or(OptionValue::Null, |value| option_value(&value))
            };
            OptionValue::List((0..elements.len()).map(element).collect())
        }
        value if value.data_type().is_numeric() => OptionValue::Number(value.to_string()),
        value => OptionValue::String(value.to_string()),
    }
}

/// Plans a statement of plain SQL that DataFusion plans by itself: queries, EXPLAIN of queries, INSERT.
///
/// # Errors
/// What [`crate::error::datafusion_error`] makes of DataFusion's errors.
pub fn plan_sql(
    state: &SessionState,
    scope: &Scope,
    statement: &SqlStatement,
) -> Result<LogicalPlan, SqlError> {
    plan_ast(state, scope, statement.ast.as_ref().clone(), &statement.embedded, HashMap::new())
}

/// Plans a tree that was taken from a statement or made for one. `tables` are further names that it may use.
pub fn plan_ast(
    state: &SessionState,
    scope: &Scope,
    ast: pg::Statement,
    embedded: &[Embedded],
    tables: HashMap<String, Arc<dyn TableSource>>,
) -> Result<LogicalPlan, SqlError> {
    plan_at_depth(state, scope, ast, embedded, tables, 0)
}

/// Plans a query with the row statements in it.
pub fn plan_body(
    state: &SessionState,
    scope: &Scope,
    body: &Body,
) -> Result<LogicalPlan, SqlError> {
    plan_ast(state, scope, pg::Statement::Query(body.query.clone()), &body.embedded, HashMap::new())
}

/// Plans all rows of a table or a view. The name may hold a schema.
///
/// # Errors
/// 42P01, and what a view's plan gives.
pub fn plan_relation(
    state: &SessionState,
    scope: &Scope,
    name: &str,
) -> Result<LogicalPlan, SqlError> {
    let reference = match name.split_once('.') {
        Some((schema, table)) => TableReference::partial(schema, table),
        None => TableReference::bare(name),
    };
    Context::new(state, scope, HashMap::new(), 0)
        .get_table_source(reference.clone())
        .and_then(|source| LogicalPlanBuilder::scan(reference, source, None)?.build())
        .and_then(coerce::read_texts)
        .map_err(|error| datafusion_error(error, Some(&scope.script)))
}

/// Plans an expression over no columns.
pub fn plan_constant(
    state: &SessionState,
    scope: &Scope,
    expression: pg::Expr,
) -> Result<Expr, SqlError> {
    Context::new(state, scope, HashMap::new(), 0)
        .plan_constant(adapted(expression))
        .and_then(|planned| postgres_types(planned, &DFSchema::empty()))
        .map_err(|error| datafusion_error(error, Some(&scope.script)))
}

/// What is done with the types of a plan's expressions, for one over the columns of `schema`.
pub fn postgres_types(expression: Expr, schema: &DFSchema) -> datafusion::common::Result<Expr> {
    let expression = common_types::common_types_in(expression, schema)?.data;
    Ok(coerce::read_texts_in(expression, schema)?.data)
}

/// Makes an expression over the columns of `schema` ready to run. `now()` in it is the time of this.
pub fn physical(
    state: &SessionState,
    expression: Expr,
    schema: &DFSchema,
) -> datafusion::common::Result<Arc<dyn PhysicalExpr>> {
    let context = SimplifyContext::builder()
        .with_schema(Arc::new(schema.clone()))
        .with_config_options(state.config_options().clone())
        .with_current_time()
        .build();
    let simplifier = ExprSimplifier::new(context);
    let expression = simplifier.coerce(expression, schema)?;
    state.create_physical_expr(simplifier.simplify(expression)?, schema)
}

/// An expression in the forms that DataFusion's planner takes.
pub fn adapted(mut expression: pg::Expr) -> pg::Expr {
    forms::rewrite(&mut expression);
    crate::catalog::system::adapt_expression(&mut expression);
    vectors::count_dimensions(&mut expression, &Parameters::default());
    integers::integers(&mut expression);
    expression
}

/// Puts the parameters' values into a plan.
///
/// # Errors
/// 42P02 for a parameter without a value.
pub fn bind(plan: LogicalPlan, parameters: &Parameters) -> Result<LogicalPlan, SqlError> {
    let failed = |error| datafusion_error(error, None);
    let values = parameters.values.as_deref().unwrap_or_default();
    if let Some(n) = inference::parameter_above(&plan, values.len()).map_err(failed)? {
        return Err(no_parameter(n));
    }
    if values.is_empty() {
        return Ok(plan);
    }
    plan.with_param_values(ParamValues::from(values.to_vec())).map_err(failed)
}

fn no_parameter(n: usize) -> SqlError {
    SqlError::new(SqlState::UNDEFINED_PARAMETER, format!("there is no parameter ${n}"))
}

/// The types that a plan's parameters take, as far as the plan tells.
pub fn infer_parameters(plan: &LogicalPlan, parameters: &mut Parameters) -> Result<(), SqlError> {
    inference::infer(plan, parameters).map_err(|error| datafusion_error(error, None))
}

fn plan_at_depth(
    state: &SessionState,
    scope: &Scope,
    mut ast: pg::Statement,
    embedded: &[Embedded],
    mut tables: HashMap<String, Arc<dyn TableSource>>,
    depth: usize,
) -> Result<LogicalPlan, SqlError> {
    for part in embedded {
        let plan = rows::plan(state, scope, &part.statement, Some(&part.placeholder))?;
        let source = provider_as_source(Arc::new(ViewTable::new(plan, None)));
        tables.insert(part.placeholder.clone(), source);
    }
    let beside_wildcards = names::name_items(&mut ast);
    forms::rewrite(&mut ast);
    crate::catalog::system::adapt(&mut ast);
    vectors::count_dimensions(&mut ast, &scope.parameters);
    integers::integers(&mut ast);
    let nulls_first = scores::says_nulls_first(&ast);
    let plan = |context: &Context<'_>, ast| {
        context
            .plan(ast)
            .and_then(integers::integers_in_values)
            .and_then(common_types::common_types)
            .and_then(coerce::read_texts)
            .and_then(|plan| if nulls_first { Ok(plan) } else { scores::nulls_last(plan) })
            .map_err(|error| datafusion_error(error, Some(&scope.script)))
    };
    let context = Context::new(state, scope, tables, depth);
    if !beside_wildcards {
        return plan(&context, ast);
    }
    // `SELECT *, a`: a name that comes twice is seen only where the columns are known.
    plan(&context, ast.clone()).or_else(|error| {
        names::number_beside_wildcards(&mut ast, &|query| {
            let plan = context.plan(pg::Statement::Query(Box::new(query))).ok()?;
            Some(plan.schema().fields().iter().map(|field| field.name().clone()).collect())
        });
        plan(&context, ast).map_err(|_| error)
    })
}

/// Plans a view's definition.
fn plan_view(
    state: &SessionState,
    scope: &Scope,
    definition: &str,
    depth: usize,
) -> Result<LogicalPlan, SqlError> {
    let body = sql::parse_query(definition).map_err(parse_error)?;
    // A view has no parameters, and positions in its text mean nothing to the client.
    let scope = Scope { parameters: Parameters::default(), script: Arc::from(""), ..scope.clone() };
    let ast = pg::Statement::Query(body.query);
    let plan = plan_at_depth(state, &scope, ast, &body.embedded, HashMap::new(), depth);
    plan.map_err(|error| SqlError { position: None, ..error })
}
