//! Which stored column a result's column is: what clients ask for that let people edit what they see, such as JDBC's updatable results.
//!
//! As in PostgreSQL a column is one wherever it comes through unchanged, under any name, out of subqueries and joins; a computed one is none. Unlike
//! there a view's columns are its tables'; those of the system catalog and of RETURNING are none.

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

use datafusion::catalog::default_table_source::source_as_provider;
use datafusion::logical_expr::{Distinct, Expr, JoinType, LogicalPlan};
use thanosql_protocol::types::Origin;

use crate::catalog::table::as_stored;

/// Where a plan's column comes from.
pub fn origin(plan: &LogicalPlan, column: usize) -> Option<Origin> {
    match plan {
        LogicalPlan::Projection(node) => of_expr(node.expr.get(column)?, &node.input),
        LogicalPlan::Filter(node) => origin(&node.input, column),
        LogicalPlan::Sort(node) => origin(&node.input, column),
        LogicalPlan::Limit(node) => origin(&node.input, column),
        LogicalPlan::SubqueryAlias(node) => origin(&node.input, column),
        LogicalPlan::Distinct(Distinct::All(input)) => origin(input, column),
        LogicalPlan::Distinct(Distinct::On(node)) => {
            of_expr(node.select_expr.get(column)?, &node.input)
        }
        LogicalPlan::Join(node) => {
            if matches!(node.join_type, JoinType::LeftSemi | JoinType::LeftAnti) {
                // INTERSECT or EXCEPT: as of UNION, a column is of no table.
                return None;
            }
            match column.checked_sub(node.left.schema().fields().len()) {
                None => origin(&node.left, column),
                Some(column) => origin(&node.right, column),
            }
        }
        LogicalPlan::Aggregate(node) => of_expr(node.group_expr.get(column)?, &node.input),
        LogicalPlan::Window(node) if column < node.input.schema().fields().len() => {
            origin(&node.input, column)
        }
        LogicalPlan::TableScan(scan) => {
            let number = match &scan.projection {
                Some(kept) => *kept.get(column)?,
                None => column,
            };
            let provider = source_as_provider(&scan.source).ok()?;
            let table = as_stored(provider.as_ref())?.table();
            // Behind a table's own columns there may be the rows' numbers.
            (number < table.schema().fields().len())
                .then(|| Origin { table: table.oid(), column: number + 1 })
        }
        _ => None,
    }
}

fn of_expr(expr: &Expr, input: &LogicalPlan) -> Option<Origin> {
    match expr {
        Expr::Alias(alias) => of_expr(&alias.expr, input),
        Expr::Column(column) => origin(input, input.schema().maybe_index_of_column(column)?),
        _ => None,
    }
}
