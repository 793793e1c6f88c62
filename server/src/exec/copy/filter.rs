//! The WHERE of COPY FROM: a condition over the table's columns, planned once and asked for each chunk of rows.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::common::tree_node::TreeNode as _;
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::logical_expr::{Expr, LogicalPlan, TableSource};
use datafusion::physical_expr::PhysicalExpr;
use sqlparser::ast as pg;
use thanosql_protocol::{SqlError, SqlState};

use crate::error::datafusion_error;
use crate::exec::dml::{quoted, template};
use crate::plan::{self, Scope};
use crate::session::ClientSession;

/// The name of the table in the query that the condition is planned in.
const TARGET: &str = "__thanosql_copied";

impl ClientSession {
    /// The condition, to be asked with rows of the table's columns.
    ///
    /// # Errors
    /// 42703 for a column that the table does not have, 0A000 for what needs more than the row (subqueries, models).
    pub(super) fn copy_filter(
        &self,
        scope: &Scope,
        table: &str,
        schema: &SchemaRef,
        condition: &pg::Expr,
    ) -> Result<Arc<dyn PhysicalExpr>, SqlError> {
        let failed = |error| datafusion_error(error, Some(&scope.script));
        let mut query = template(&format!("SELECT 1 FROM {TARGET} AS {}", quoted(table)))?;
        let pg::SetExpr::Select(select) = query.body.as_mut() else {
            return Err(crate::error::internal("the template is no SELECT"));
        };
        select.selection = Some(condition.clone());
        let fields: Vec<Field> = schema
            .fields()
            .iter()
            .map(|field| field.as_ref().clone().with_nullable(true))
            .collect();
        let rows =
            MemTable::try_new(Arc::new(Schema::new(fields)), vec![Vec::new()]).map_err(failed)?;
        let target: Arc<dyn TableSource> = provider_as_source(Arc::new(rows));
        let tables = HashMap::from([(TARGET.to_string(), target)]);
        let query = pg::Statement::Query(Box::new(query));
        let plan = plan::plan_ast(&self.state, scope, query, &[], tables)?;
        let plan = plan::bind(plan, &scope.parameters)?;
        let (predicate, columns) = condition_of(&plan)?;
        if predicate.exists(|expr| Ok(needs_more(expr))).map_err(failed)? {
            return Err(SqlError::new(
                SqlState::FEATURE_NOT_SUPPORTED,
                "COPY FROM WHERE takes conditions over the row's own columns only",
            ));
        }
        plan::physical(&self.state, predicate, &columns).map_err(failed)
    }
}

/// The condition of `SELECT ... WHERE condition`, and the columns that it is over.
fn condition_of(plan: &LogicalPlan) -> Result<(Expr, DFSchema), SqlError> {
    #[allow(clippy::wildcard_enum_match_arm)] // every other node would be a fault of the template
    match plan {
        LogicalPlan::Projection(projection) => condition_of(&projection.input),
        LogicalPlan::Filter(filter) => {
            Ok((filter.predicate.clone(), filter.input.schema().as_ref().clone()))
        }
        _ => Err(SqlError::new(
            SqlState::FEATURE_NOT_SUPPORTED,
            "COPY FROM WHERE takes conditions over the row's own columns only",
        )),
    }
}

/// Whether an expression cannot be computed from a row alone.
fn needs_more(expr: &Expr) -> bool {
    #[allow(clippy::wildcard_enum_match_arm)] // only these reach beyond the row
    match expr {
        Expr::ScalarSubquery(_)
        | Expr::Exists(_)
        | Expr::InSubquery(_)
        | Expr::SetComparison(_)
        | Expr::AggregateFunction(_)
        | Expr::WindowFunction(_)
        | Expr::OuterReferenceColumn(..) => true,
        Expr::ScalarFunction(function) => function.func.as_async().is_some(),
        _ => false,
    }
}
