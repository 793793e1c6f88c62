//! Which queries an index serves: `ORDER BY` one distance to something constant, nearest first, `LIMIT k`, over a table as it is.
//!
//! Only names may stand between the order and the table (columns chosen, renamed or computed, views of such): whatever drops or adds rows
//! in between would make `k` nearest rows of the table too few, or too many. The scan then reads the rows among which the nearest are, and
//! the order above it is computed as ever.

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

use std::sync::Arc;

use datafusion::catalog::default_table_source::{DefaultTableSource, source_as_provider};
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::execution::config::SessionConfig;
use datafusion::logical_expr::{Expr, LogicalPlan, SubqueryAlias, TableScan};
use thanosql_storage::Table;

use super::SearchContext;
use super::scan::Nearest;
use crate::catalog::table::as_stored;
use crate::catalog::vector_index::vector_indexes;
use crate::functions::vector::Metric;
use crate::functions::vector_column::Vectors;

/// An order that puts the nearest first.
#[derive(Clone)]
struct Order {
    metric: Metric,
    ascending: bool,
    nulls_first: bool,
    k: usize,
    /// What is near.
    vectors: Expr,
    /// To what.
    query: Expr,
}

/// Narrows the scans of a plan, which is optimized, by the indexes that serve it.
///
/// # Errors
/// DataFusion's, of rebuilding the plan.
pub fn use_indexes(plan: LogicalPlan, config: &SessionConfig) -> Result<LogicalPlan> {
    let Some(context) = config.get_extension::<SearchContext>() else { return Ok(plan) };
    let Some(breadth) = context.breadth() else { return Ok(plan) };
    let plan = plan.transform_down_with_subqueries(|node| {
        let LogicalPlan::Sort(sort) = &node else { return Ok(Transformed::no(node)) };
        let ([key], Some(k)) = (sort.expr.as_slice(), sort.fetch) else {
            return Ok(Transformed::no(node));
        };
        let mut narrower = Narrower { context: &context, breadth, k };
        let narrowed = narrower.below(&sort.input, &key.expr, (key.asc, key.nulls_first))?;
        match narrowed {
            Some(input) => {
                let mut sort = sort.clone();
                sort.input = Arc::new(input);
                Ok(Transformed::yes(LogicalPlan::Sort(sort)))
            }
            None => Ok(Transformed::no(node)),
        }
    })?;
    Ok(plan.data)
}

struct Narrower<'a> {
    context: &'a SearchContext,
    breadth: usize,
    k: usize,
}

impl Narrower<'_> {
    /// The plan with its scan narrowed, if an order by `key` of its rows is one that an index of the table below serves.
    fn below(
        &mut self,
        plan: &LogicalPlan,
        key: &Expr,
        direction: (bool, bool),
    ) -> Result<Option<LogicalPlan>> {
        match plan {
            LogicalPlan::Projection(projection) => {
                let Some(key) = through(key, |index| projection.expr.get(index).cloned(), plan)
                else {
                    return Ok(None);
                };
                self.rebuilt(plan, &projection.input, &key, direction)
            }
            LogicalPlan::SubqueryAlias(SubqueryAlias { input, .. }) => {
                let columns = input.schema().columns();
                let column = |index: usize| columns.get(index).cloned().map(Expr::Column);
                let Some(key) = through(key, column, plan) else { return Ok(None) };
                self.rebuilt(plan, input, &key, direction)
            }
            LogicalPlan::TableScan(scan) => {
                let order = order_of(key, direction, self.k);
                Ok(order.and_then(|order| self.narrowed(scan, &order)))
            }
            _ => Ok(None),
        }
    }

    fn rebuilt(
        &mut self,
        plan: &LogicalPlan,
        input: &LogicalPlan,
        key: &Expr,
        direction: (bool, bool),
    ) -> Result<Option<LogicalPlan>> {
        match self.below(input, key, direction)? {
            Some(input) => plan.with_new_exprs(plan.expressions(), vec![input]).map(Some),
            None => Ok(None),
        }
    }

    fn narrowed(&self, scan: &TableScan, order: &Order) -> Option<LogicalPlan> {
        if !scan.filters.is_empty() || scan.fetch.is_some() {
            return None;
        }
        let provider = source_as_provider(&scan.source).ok()?;
        let stored = as_stored(provider.as_ref())?;
        let table = stored.table();
        let Expr::Column(column) = &order.vectors else { return None };
        let column = table.schema().index_of(&column.name).ok()?;
        let index = vector_indexes(&table.schema()).into_iter().find(|index| {
            index.column == column && index.operators.serves(order.metric, order.ascending)
        })?;
        let breadth = self.breadth.max(order.k);
        let vector = match vector_of(&order.query) {
            Query::Vector(vector) => Some(vector),
            Query::NotComputed => None,
            Query::Unsuitable => return None,
        };
        let rows = usize::try_from(table.row_count()).unwrap_or(usize::MAX);
        // A walk compares the vector with about so many others.
        if breadth.saturating_mul(2 * index.m) >= rows
            || (order.nulls_first && may_have_nulls(table, column))
        {
            return None;
        }
        let indexes = self.context.indexes.clone();
        let narrowed = stored.narrowed(Nearest { indexes, index, vector, k: order.k, breadth })?;
        let source = Arc::new(DefaultTableSource::new(Arc::new(narrowed)));
        Some(LogicalPlan::TableScan(TableScan { source, ..scan.clone() }))
    }
}

/// An expression over a plan's columns as one over what they are made of.
fn through(
    key: &Expr,
    made_of: impl Fn(usize) -> Option<Expr>,
    plan: &LogicalPlan,
) -> Option<Expr> {
    let replaced = key.clone().transform(|part| match &part {
        Expr::Column(column) => {
            let index = plan.schema().maybe_index_of_column(column);
            Ok(match index.and_then(&made_of) {
                Some(made_of) => Transformed::yes(made_of.unalias()),
                None => Transformed::no(part),
            })
        }
        _ => Ok(Transformed::no(part)),
    });
    replaced.ok().map(|replaced| replaced.data)
}

fn order_of(key: &Expr, (ascending, nulls_first): (bool, bool), k: usize) -> Option<Order> {
    let key = key.clone().unalias_nested().data;
    let Expr::ScalarFunction(call) = &key else { return None };
    let metric = Metric::ALL.into_iter().find(|metric| metric.name() == call.name())?;
    let [a, b] = call.args.as_slice() else { return None };
    let (vectors, query) = match (is_constant(a), is_constant(b)) {
        (false, true) => (a, b),
        (true, false) => (b, a),
        _ => return None,
    };
    let (vectors, query) = (vectors.clone(), query.clone());
    Some(Order { metric, ascending, nulls_first, k, vectors, query })
}

fn is_constant(expr: &Expr) -> bool {
    let varies = |part: &Expr| {
        matches!(
            part,
            Expr::Column(_)
                | Expr::OuterReferenceColumn(..)
                | Expr::ScalarSubquery(_)
                | Expr::InSubquery(_)
                | Expr::Exists(_)
        )
    };
    !expr.exists(|part| Ok(varies(part))).unwrap_or(true)
}

enum Query {
    Vector(Arc<[f32]>),
    /// It is computed when the statement runs, and now it does not: `embed` under EXPLAIN.
    NotComputed,
    Unsuitable,
}

fn vector_of(query: &Expr) -> Query {
    let Expr::Literal(value, _) = query else { return Query::NotComputed };
    let vector = value.to_array().and_then(|array| {
        let vectors = Vectors::of(&array)?;
        Ok(vectors.get(0)?.map(Arc::from))
    });
    match vector {
        Ok(Some(vector)) => Query::Vector(vector),
        // NULL, or an error that is the same without an index.
        Ok(None) | Err(_) => Query::Unsuitable,
    }
}

fn may_have_nulls(table: &Table, column: usize) -> bool {
    (0..table.groups()).any(|group| table.group_statistics(group).columns[column].null_count > 0)
}
