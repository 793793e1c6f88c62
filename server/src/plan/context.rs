//! What DataFusion's planner asks while it turns a tree into a plan: which tables, functions and types there are.
//!
//! Names are looked up in one statement's [`Scope`]: its snapshot, the row statements that stand in it, the system
//! schemas, and views, which are planned on the spot. So planning never waits and never sees another statement's commit.
//! Views nest up to a fixed depth, since each level is a recursion here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::catalog::cte_worktable::CteWorkTable;
use datafusion::common::{DFSchema, Result, TableReference};
use datafusion::config::ConfigOptions;
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::planner::{
    ContextProvider, ExprPlanner, RelationPlanner, TypePlanner,
};
use datafusion::logical_expr::{
    AggregateUDF, Expr, HigherOrderUDF, LogicalPlan, ScalarUDF, TableSource, WindowUDF,
};
use datafusion::sql::planner::{ParserOptions, PlannerContext, SqlToRel};
use futures::FutureExt as _;
use sqlparser::ast as pg;
use thanosql_protocol::{SqlError, SqlState};
use thanosql_storage::Table;

use super::types::PostgresTypes;
use super::{MAX_VIEW_DEPTH, Scope};
use crate::catalog::system::TEMPORARY_SCHEMA;
use crate::catalog::table::StoredTable;
use crate::error::{through_datafusion, undefined_table};
use crate::exec::targets::is_temporary_schema;
use crate::learning::OnError;

type PlannedView = std::result::Result<Arc<dyn TableSource>, SqlError>;

/// The planner's view of one statement.
pub(super) struct Context<'a> {
    state: &'a SessionState,
    scope: &'a Scope,
    /// Tables that only this plan knows: row statements, and the target of a change.
    overlay: HashMap<String, Arc<dyn TableSource>>,
    depth: usize,
    /// `embed`, once it is called: one for all of its calls, so that equal calls are equal expressions.
    embed: OnceLock<Arc<ScalarUDF>>,
    /// The views that were asked for. A statement may be planned again, and views nest: each is planned once.
    views: Mutex<HashMap<String, PlannedView>>,
}

impl<'a> Context<'a> {
    pub(super) fn new(
        state: &'a SessionState,
        scope: &'a Scope,
        overlay: HashMap<String, Arc<dyn TableSource>>,
        depth: usize,
    ) -> Context<'a> {
        Context { state, scope, overlay, depth, embed: OnceLock::new(), views: Mutex::default() }
    }

    /// Plans a statement that DataFusion knows.
    pub(super) fn plan(&self, statement: pg::Statement) -> Result<LogicalPlan> {
        let planner = SqlToRel::new_with_options(self, parser_options(self.state));
        let mut context =
            PlannerContext::new().with_prepare_param_data_types(self.scope.parameters.fields());
        planner.sql_statement_to_plan_with_context(statement, &mut context)
    }

    /// Plans an expression over no columns, such as a default.
    pub(super) fn plan_constant(&self, expression: pg::Expr) -> Result<Expr> {
        let planner = SqlToRel::new_with_options(self, parser_options(self.state));
        planner.sql_to_expr(expression, &DFSchema::empty(), &mut PlannerContext::new())
    }

    fn relation(&self, schema: Option<&str>, name: &str) -> Result<Option<Arc<dyn TableSource>>> {
        match schema {
            None => {
                if let Some(source) = self.overlay.get(name) {
                    return Ok(Some(source.clone()));
                }
                // Temporary tables and pg_catalog come before others in every search path, as in PostgreSQL.
                for schema in [TEMPORARY_SCHEMA, "pg_catalog", "public"] {
                    if let Some(source) = self.relation(Some(schema), name)? {
                        return Ok(Some(source));
                    }
                }
                Ok(None)
            }
            Some("public") => {
                if let Some(table) = self.scope.snapshot.permanent_table(name) {
                    return Ok(Some(stored(table)));
                }
                match self.scope.snapshot.view(name) {
                    Some(view) => self.view(name, view.definition()).map(Some),
                    None => Ok(None),
                }
            }
            Some(schema) if is_temporary_schema(schema) => {
                self.scope.snapshot.temporary_table(name).map(|table| Ok(stored(table))).transpose()
            }
            Some(schema) => match self.scope.system_schema(schema) {
                Some(provider) => {
                    let table = provider.table(name).now_or_never().ok_or_else(|| {
                        through_datafusion(crate::error::internal(format!(
                            "{schema}.{name} made planning wait"
                        )))
                    })??;
                    Ok(table.map(provider_as_source))
                }
                None => Err(through_datafusion(SqlError::new(
                    SqlState::INVALID_SCHEMA_NAME,
                    format!("schema \"{schema}\" does not exist"),
                ))),
            },
        }
    }

    fn view(&self, name: &str, definition: &str) -> Result<Arc<dyn TableSource>> {
        let known = self.views().get(name).cloned();
        let view = known.unwrap_or_else(|| {
            let view = self.plan_view(name, definition);
            self.views().insert(name.to_owned(), view.clone());
            view
        });
        view.map_err(through_datafusion)
    }

    fn views(&self) -> MutexGuard<'_, HashMap<String, PlannedView>> {
        self.views.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn plan_view(&self, name: &str, definition: &str) -> PlannedView {
        if self.depth >= MAX_VIEW_DEPTH {
            return Err(SqlError::new(
                SqlState::STATEMENT_TOO_COMPLEX,
                format!("views are nested more than {MAX_VIEW_DEPTH} deep at \"{name}\""),
            ));
        }
        let plan = super::plan_view(self.state, self.scope, definition, self.depth + 1)?;
        Ok(provider_as_source(Arc::new(ViewTable::new(plan, Some(definition.to_string())))))
    }
}

fn parser_options(state: &SessionState) -> ParserOptions {
    let options = &state.config_options().sql_parser;
    ParserOptions::new()
        .with_parse_float_as_decimal(options.parse_float_as_decimal)
        .with_enable_ident_normalization(true)
        .with_support_varchar_with_length(true)
        .with_map_string_types_to_utf8view(false)
        .with_collect_spans(true)
        .with_default_null_ordering(datafusion::sql::planner::NullOrdering::NullsMax)
}

impl ContextProvider for Context<'_> {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        let found = match &name {
            TableReference::Bare { table } => self.relation(None, table)?,
            TableReference::Partial { schema, table } => self.relation(Some(schema), table)?,
            TableReference::Full { catalog, schema, table } => {
                if catalog.as_ref() != self.scope.database {
                    return Err(through_datafusion(SqlError::new(
                        SqlState::FEATURE_NOT_SUPPORTED,
                        format!("cross-database references are not implemented: \"{name}\""),
                    )));
                }
                self.relation(Some(schema), table)?
            }
        };
        found.ok_or_else(|| through_datafusion(undefined_table(&name.to_string())))
    }

    fn get_table_function_source(
        &self,
        name: &str,
        args: Vec<Expr>,
    ) -> Result<Arc<dyn TableSource>> {
        let Some(function) = self.state.table_functions().get(name) else {
            return Err(through_datafusion(SqlError::new(
                SqlState::UNDEFINED_FUNCTION,
                format!("function {name} does not exist"),
            )));
        };
        let arguments = datafusion::catalog::TableFunctionArgs::new(&args, self.state);
        Ok(provider_as_source(function.create_table_provider_with_args(arguments)?))
    }

    fn create_cte_work_table(&self, name: &str, schema: SchemaRef) -> Result<Arc<dyn TableSource>> {
        Ok(provider_as_source(Arc::new(CteWorkTable::new(name, schema))))
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        self.state.expr_planners()
    }

    fn get_relation_planners(&self) -> &[Arc<dyn RelationPlanner>] {
        self.state.relation_planners()
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(Arc::new(PostgresTypes))
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        // Built-in functions may be called by their schema.
        let name = name.strip_prefix("pg_catalog.").unwrap_or(name);
        if name == "embed" {
            let embed = || Arc::new(self.scope.embed(OnError::Fail, None));
            return Some(self.embed.get_or_init(embed).clone());
        }
        self.scope.functions.get(name).or_else(|| self.state.scalar_functions().get(name)).cloned()
    }

    fn get_higher_order_meta(&self, name: &str) -> Option<Arc<HigherOrderUDF>> {
        self.state.higher_order_functions().get(name).cloned()
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        let name = name.strip_prefix("pg_catalog.").unwrap_or(name);
        self.state.aggregate_functions().get(name).cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.state.window_functions().get(name).cloned()
    }

    fn get_variable_type(&self, _variable_names: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        self.state.config_options()
    }

    fn udf_names(&self) -> Vec<String> {
        self.state.scalar_functions().keys().chain(self.scope.functions.keys()).cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        self.state.higher_order_functions().keys().cloned().collect()
    }

    fn udaf_names(&self) -> Vec<String> {
        self.state.aggregate_functions().keys().cloned().collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        self.state.window_functions().keys().cloned().collect()
    }
}

fn stored(table: Table) -> Arc<dyn TableSource> {
    provider_as_source(Arc::new(StoredTable::new(table)))
}
