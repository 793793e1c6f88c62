//! CHECK: planned once a schema, asked by the storage before rows are appended, so that no way into a table goes around it.

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::common::tree_node::TreeNode as _;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{Expr, ExprSchemable, Volatility, lit};
use datafusion::physical_plan::PhysicalExpr;
use datafusion::sql::sqlparser::ast::ExprWithAlias;
use sqlparser::ast as pg;
use thanosql_protocol::types::{TextStyle, text_value};
use thanosql_protocol::{ErrorSubject, SqlError, SqlState};
use thanosql_storage::RowCheck;

use crate::catalog::constraints::{Check, checks_of};
use crate::error::{datafusion_error, parse_error};
use crate::{plan, sql};

/// How many characters of a value an error shows.
const SHOWN_CHARACTERS: usize = 64;

/// The checks of all tables. Those of the schema that was asked for last are kept.
pub struct Checks {
    state: SessionState,
    last: Mutex<Option<(SchemaRef, Arc<Vec<Compiled>>)>>,
}

/// A check, ready to run.
struct Compiled {
    check: Check,
    expression: Arc<dyn PhysicalExpr>,
}

impl Checks {
    /// Checks over what functions `state` has.
    pub fn new(state: SessionState) -> Checks {
        Checks { state, last: Mutex::new(None) }
    }

    fn of(&self, table: &str, schema: &SchemaRef) -> Result<Arc<Vec<Compiled>>, SqlError> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, compiled)) = last.as_ref()
            && Arc::ptr_eq(known, schema)
        {
            return Ok(compiled.clone());
        }
        let checks = checks_of(schema);
        if checks.is_empty() {
            return Ok(Arc::default());
        }
        let (mut compiled, mut stays) = (Vec::new(), true);
        for check in checks {
            let expression = sql::parse_expression(&check.expression).map_err(parse_error)?;
            let (planned, columns) = plan_check(&self.state, table, schema, expression)?;
            stays &= !depends_on_time(&planned);
            let expression = plan::physical(&self.state, planned, &columns)
                .map_err(|error| datafusion_error(error, None))?;
            compiled.push(Compiled { check, expression });
        }
        let compiled = Arc::new(compiled);
        if stays {
            *last = Some((schema.clone(), compiled.clone()));
        }
        Ok(compiled)
    }

    /// The first row that a check refuses, and the check's name.
    fn first_refused(
        &self,
        table: &str,
        schema: &SchemaRef,
        rows: &RecordBatch,
    ) -> Result<Option<(usize, String)>, SqlError> {
        for Compiled { check, expression } in self.of(table, schema)?.iter() {
            let holds = expression
                .evaluate(rows)
                .and_then(|value| value.into_array(rows.num_rows()))
                .map_err(|error| datafusion_error(error, None))?;
            // What is unknown is no violation.
            let refused = holds.as_boolean().iter().position(|holds| holds == Some(false));
            if let Some(row) = refused {
                return Ok(Some((row, check.name.clone())));
            }
        }
        Ok(None)
    }

    /// Whether rows that are there hold to a schema's checks.
    ///
    /// # Errors
    /// 23514.
    pub fn verify_existing(
        &self,
        table: &str,
        schema: &SchemaRef,
        rows: &RecordBatch,
    ) -> Result<(), SqlError> {
        match self.first_refused(table, schema, rows)? {
            None => Ok(()),
            Some((_, name)) => Err(SqlError::new(
                SqlState::CHECK_VIOLATION,
                format!(
                    "check constraint \"{name}\" of relation \"{table}\" is violated by some row"
                ),
            )
            .about(subject(table, &name))),
        }
    }
}

impl RowCheck for Checks {
    fn check(
        &self,
        table: &str,
        schema: &SchemaRef,
        rows: &RecordBatch,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        match self.first_refused(table, schema, rows)? {
            None => Ok(()),
            Some((row, name)) => Err(Box::new(
                SqlError::new(
                    SqlState::CHECK_VIOLATION,
                    format!(
                        "new row for relation \"{table}\" violates check constraint \"{name}\""
                    ),
                )
                .with_detail(format!("Failing row contains ({}).", row_text(rows, row)))
                .about(subject(table, &name)),
            )),
        }
    }
}

fn subject(table: &str, constraint: &str) -> ErrorSubject {
    ErrorSubject {
        schema: Some("public".to_string()),
        table: Some(table.to_string()),
        constraint: Some(constraint.to_string()),
        column: None,
    }
}

/// A check over a table's columns.
///
/// # Errors
/// 42703 for a column that is not there, 42804 for an expression that is no boolean, 0A000 for a sub-query, 42803 for an
/// aggregate.
pub fn plan_check(
    state: &SessionState,
    table: &str,
    schema: &Schema,
    expression: pg::Expr,
) -> Result<(Expr, DFSchema), SqlError> {
    let failed = |error| datafusion_error(error, None);
    let plain = Schema::new(schema.fields().clone());
    let columns = DFSchema::try_from_qualified_schema(
        datafusion::common::TableReference::bare(table.to_string()),
        &plain,
    )
    .map_err(failed)?;
    if has_subquery(&expression) {
        return Err(SqlError::new(
            SqlState::FEATURE_NOT_SUPPORTED,
            "cannot use subquery in check constraint",
        ));
    }
    let planned = state
        .create_logical_expr_from_sql_expr(
            ExprWithAlias { expr: plan::adapted(expression), alias: None },
            &columns,
        )
        .and_then(|planned| plan::postgres_types(planned, &columns))
        .map_err(failed)?;
    if planned.contains_outer() || has_aggregate(&planned) {
        return Err(SqlError::new(
            SqlState::GROUPING_ERROR,
            "aggregate functions are not allowed in check constraints",
        ));
    }
    match planned.get_type(&columns).map_err(failed)? {
        DataType::Boolean => Ok((planned, columns)),
        DataType::Null => Ok((lit(ScalarValue::Boolean(None)), columns)),
        other => Err(SqlError::new(
            SqlState::DATATYPE_MISMATCH,
            format!("argument of CHECK must be type boolean, not type {other}"),
        )),
    }
}

/// Whether the same row may be answered otherwise at another time, as with `now()`.
fn depends_on_time(expression: &Expr) -> bool {
    let depends = |expression: &Expr| match expression {
        Expr::ScalarFunction(call) => call.func.signature().volatility != Volatility::Immutable,
        _ => false,
    };
    expression.exists(|expression| Ok(depends(expression))).unwrap_or(true)
}

fn has_subquery(expression: &pg::Expr) -> bool {
    struct Finder;
    impl pg::Visitor for Finder {
        type Break = ();
        fn pre_visit_query(&mut self, _: &pg::Query) -> std::ops::ControlFlow<()> {
            std::ops::ControlFlow::Break(())
        }
    }
    pg::Visit::visit(expression, &mut Finder).is_break()
}

fn has_aggregate(expression: &Expr) -> bool {
    expression
        .exists(|part| Ok(matches!(part, Expr::AggregateFunction(_) | Expr::WindowFunction(_))))
        .unwrap_or(false)
}

/// A row as errors show it: its values, cut where they are long.
pub fn row_text(rows: &RecordBatch, row: usize) -> String {
    let schema = rows.schema();
    let values: Vec<String> = rows
        .columns()
        .iter()
        .zip(schema.fields())
        .map(|(column, field)| {
            let text = text_value(column, row, field, &TextStyle::default());
            let text = text.unwrap_or_else(|| "null".to_string());
            match text.char_indices().nth(SHOWN_CHARACTERS) {
                Some((end, _)) => format!("{}...", &text[..end]),
                None => text,
            }
        })
        .collect();
    values.join(", ")
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int32Array, StringArray};
    use arrow::datatypes::Field;

    use super::*;
    use crate::catalog::constraints::TableDefinition;

    fn definition(expression: &str) -> TableDefinition {
        let mut definition = TableDefinition::new(vec![
            Field::new("a", DataType::Int32, true),
            Field::new("b", DataType::Utf8, true),
        ]);
        definition.checks.push(Check {
            oid: 1,
            name: "t_check".to_string(),
            expression: expression.to_string(),
        });
        definition
    }

    fn rows(schema: &SchemaRef, a: Vec<Option<i32>>, b: Vec<Option<&str>>) -> RecordBatch {
        let columns: Vec<arrow::array::ArrayRef> =
            vec![Arc::new(Int32Array::from(a)), Arc::new(StringArray::from(b))];
        RecordBatch::try_new(schema.clone(), columns).unwrap()
    }

    #[test]
    fn what_is_false_is_refused_and_what_is_unknown_is_not() {
        let checks = Checks::new(datafusion::prelude::SessionContext::new().state());
        let schema = definition("a > 0 AND length(b) < 5").schema();
        let good = rows(&schema, vec![Some(1), None], vec![Some("x"), None]);
        checks.check("t", &schema, &good).unwrap();
        let bad = rows(&schema, vec![Some(1), Some(-2)], vec![Some("x"), None]);
        let error = checks.check("t", &schema, &bad).unwrap_err();
        let error = error.downcast::<SqlError>().unwrap();
        assert_eq!(error.code, SqlState::CHECK_VIOLATION);
        assert_eq!(error.detail.as_deref(), Some("Failing row contains (-2, null)."));
    }

    #[test]
    fn an_expression_that_is_no_check_is_refused() {
        let state = datafusion::prelude::SessionContext::new().state();
        let schema = definition("true").schema();
        for (expression, code) in [
            ("a + 1", SqlState::DATATYPE_MISMATCH),
            ("nope > 1", SqlState::UNDEFINED_COLUMN),
            ("a > (SELECT 1)", SqlState::FEATURE_NOT_SUPPORTED),
            ("sum(a) > 1", SqlState::GROUPING_ERROR),
        ] {
            let parsed = sql::parse_expression(expression).unwrap();
            let error = plan_check(&state, "t", &schema, parsed).unwrap_err();
            assert_eq!(error.code, code, "{expression}: {error}");
        }
    }
}
