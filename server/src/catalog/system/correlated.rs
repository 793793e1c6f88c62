//! Scalar sub-queries that look at the row outside, in full generality.
//!
//! DataFusion turns a correlated scalar sub-query into a join only if it is aggregated and compares inner with
//! outer columns by `=`. Clients' catalog queries (and anybody's queries) know no such limit. This rule takes the ones that
//! DataFusion refuses, by the way of T. Neumann and A. Kemper, "Unnesting Arbitrary Queries" (BTW 2015): with `D`, the distinct
//! values of the outer columns that the sub-query looks at,
//!
//! ```text
//! SELECT (SELECT e FROM t WHERE p(t, o.x)) FROM o
//! =>
//! SELECT s.e FROM o LEFT JOIN (SELECT d.x, single(e) AS e FROM t, D d WHERE p(t, d.x) GROUP BY d.x) s
//!     ON s.x IS NOT DISTINCT FROM o.x
//! ```
//!
//! `D` is pushed down into the sub-query's plan until nothing below looks outside ([`Unnesting::attach`]). More than one row
//! for an outer row is PostgreSQL's error 21000. EXISTS outside of WHERE becomes such a sub-query, `count(*) > 0`; EXISTS and IN
//! in WHERE are left to DataFusion, which takes any condition there. A sub-query whose plan has a node that `D` cannot pass (a
//! correlated UNION, a recursive query) stays as it is, and DataFusion says that it cannot run it.

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, ExprSchema, JoinType, NullEquality, Result, Spans};
use datafusion::config::ConfigOptions;
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::functions_aggregate::expr_fn::{array_agg, count};
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::expr::Exists;
use datafusion::logical_expr::logical_plan::check_subquery_expr;
use datafusion::logical_expr::{
    Aggregate, Distinct, Expr, ExprFunctionExt, ExprSchemable, FetchType, Join, Limit, LogicalPlan,
    LogicalPlanBuilder, SkipType, Subquery, lit,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::optimizer::decorrelate::PullUpCorrelatedExpr;

use super::functions::single_row;

/// Makes joins of the correlated scalar sub-queries that DataFusion itself does not.
#[derive(Debug, Default)]
pub struct CorrelatedSubqueries;

impl AnalyzerRule for CorrelatedSubqueries {
    fn name(&self) -> &str {
        "correlated_subqueries"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        Unnesting::default().rewrite(plan)
    }
}

/// Column names of the outer values, in `D`.
fn outer_name(position: usize) -> String {
    format!("c{position}")
}

/// The name of the sub-query's value.
const VALUE: &str = "value";

#[derive(Default)]
struct Unnesting {
    /// Aliases given out so far.
    aliases: usize,
}

impl Unnesting {
    /// Outside first, so that no sub-query is worked on while it still looks further out.
    fn rewrite(&mut self, plan: LogicalPlan) -> Result<LogicalPlan> {
        let plan = self.rewrite_node(plan)?;
        let plan = plan.map_children(|child| Ok(Transformed::yes(self.rewrite(child)?)))?.data;
        Ok(plan
            .map_subqueries(|plan| match plan {
                LogicalPlan::Subquery(subquery) => {
                    let inner = self.rewrite(Arc::unwrap_or_clone(subquery.subquery))?;
                    Ok(Transformed::yes(LogicalPlan::Subquery(Subquery {
                        subquery: Arc::new(inner),
                        ..subquery
                    })))
                }
                other => Ok(Transformed::no(other)),
            })?
            .data)
    }

    /// Joins the values of the sub-queries in this node's expressions to its input.
    fn rewrite_node(&mut self, plan: LogicalPlan) -> Result<LogicalPlan> {
        let [input] = plan.inputs()[..] else {
            return Ok(plan);
        };
        if !matches!(
            plan,
            LogicalPlan::Projection(_)
                | LogicalPlan::Filter(_)
                | LogicalPlan::Aggregate(_)
                | LogicalPlan::Sort(_)
                | LogicalPlan::Window(_)
        ) {
            return Ok(plan);
        }
        let mut joined = input.clone();
        let mut values: Vec<(Expr, Expr)> = Vec::new();
        for expression in self.candidates(&plan)? {
            let subquery = as_scalar(&expression)?;
            if let Some((with_value, value)) = self.join(joined.clone(), &subquery)? {
                joined = with_value;
                values.push((expression, value));
            }
        }
        if values.is_empty() {
            return Ok(plan);
        }
        let replace = |expression: Expr| -> Result<Expr> {
            Ok(expression
                .transform_down(|part| match values.iter().find(|(old, _)| *old == part) {
                    Some((_, value)) => {
                        Ok(Transformed::new(value.clone(), true, TreeNodeRecursion::Jump))
                    }
                    None => Ok(Transformed::no(part)),
                })?
                .data)
        };
        let keeps_input = !matches!(plan, LogicalPlan::Projection(_) | LogicalPlan::Aggregate(_));
        let names_output = matches!(plan, LogicalPlan::Projection(_) | LogicalPlan::Aggregate(_));
        let expressions = plan
            .expressions()
            .into_iter()
            .map(|expression| {
                let name = expression.schema_name().to_string();
                let replaced = replace(expression)?;
                let renamed = names_output && replaced.schema_name().to_string() != name;
                Ok(if renamed { replaced.alias(name) } else { replaced })
            })
            .collect::<Result<Vec<_>>>()?;
        let columns: Vec<Expr> = plan.schema().columns().into_iter().map(Expr::Column).collect();
        let rebuilt = match plan {
            LogicalPlan::Projection(_) => {
                LogicalPlanBuilder::from(joined).project(expressions)?.build()?
            }
            other => other.with_new_exprs(expressions, vec![joined])?.recompute_schema()?,
        };
        if keeps_input {
            return LogicalPlanBuilder::from(rebuilt).project(columns)?.build();
        }
        Ok(rebuilt)
    }

    /// The sub-query expressions of a node that DataFusion would refuse.
    fn candidates(&self, plan: &LogicalPlan) -> Result<Vec<Expr>> {
        let mut found: Vec<Expr> = Vec::new();
        plan.apply_expressions(|expression| {
            expression.apply(|part| {
                let wanted = match part {
                    Expr::ScalarSubquery(subquery) => {
                        !outer_columns(&subquery.subquery)?.is_empty()
                            && !is_native(plan, part, subquery)
                    }
                    Expr::Exists(_) => !matches!(plan, LogicalPlan::Filter(_)),
                    _ => false,
                };
                if wanted && !found.contains(part) {
                    found.push(part.clone());
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })?;
        Ok(found)
    }

    /// `input` with the sub-query's value as a further column, and that column; `None` if it cannot be done.
    fn join(
        &mut self,
        input: LogicalPlan,
        subquery: &LogicalPlan,
    ) -> Result<Option<(LogicalPlan, Expr)>> {
        let outer: Vec<Column> = outer_columns(subquery)?
            .into_iter()
            .filter(|column| input.schema().has_column(column))
            .collect();
        let single = subquery.max_rows().is_some_and(|rows| rows <= 1);
        let domain = Domain { input: input.clone(), outer: outer.clone() };
        let Some((attached, keys)) = self.attach(subquery.clone(), &domain)? else {
            return Ok(None);
        };
        let Some(value) = subquery.schema().columns().into_iter().next() else {
            return Ok(None);
        };
        let value = Expr::Column(value);
        let key_columns = || {
            keys.iter()
                .enumerate()
                .map(|(position, key)| Expr::Column(key.clone()).alias(outer_name(position)))
        };
        let alias = self.alias("__subquery");
        let named = LogicalPlanBuilder::from(attached)
            .project(std::iter::once(value.alias(VALUE)).chain(key_columns()))?;
        let named = if single {
            named
        } else {
            let groups: Vec<Expr> = (0..keys.len())
                .map(|position| Expr::Column(Column::new_unqualified(outer_name(position))))
                .collect();
            let all = array_agg(Expr::Column(Column::new_unqualified(VALUE)));
            let grouped = named.aggregate(groups.clone(), vec![all.clone()])?;
            let all = Expr::Column(Column::new_unqualified(all.schema_name().to_string()));
            grouped.project(std::iter::once(single_row(all).alias(VALUE)).chain(groups))?
        };
        let right = named.alias(alias.as_str())?.build()?;
        let right_keys: Vec<Column> = (0..keys.len())
            .map(|position| Column::new(Some(alias.as_str()), outer_name(position)))
            .collect();
        let joined = join_on_keys(input, right, JoinType::Left, outer, right_keys)?;
        Ok(Some((joined, Expr::Column(Column::new(Some(alias.as_str()), VALUE)))))
    }

    fn alias(&mut self, prefix: &str) -> String {
        self.aliases += 1;
        format!("{prefix}_{}", self.aliases)
    }

    /// The distinct outer values as a relation of its own, and its columns.
    fn domain(&mut self, domain: &Domain) -> Result<(LogicalPlan, Vec<Column>)> {
        let alias = self.alias("__outer");
        let columns = domain
            .outer
            .iter()
            .enumerate()
            .map(|(position, column)| Expr::Column(column.clone()).alias(outer_name(position)));
        let plan = LogicalPlanBuilder::from(domain.input.clone())
            .project(columns)?
            .distinct()?
            .alias(alias.as_str())?
            .build()?;
        let keys = (0..domain.outer.len())
            .map(|position| Column::new(Some(alias.as_str()), outer_name(position)))
            .collect();
        Ok((plan, keys))
    }

    /// The union, over the rows of the domain, of the row with what `plan` yields for it; and the columns that hold the row.
    /// Every column of `plan` keeps its name.
    fn attach(
        &mut self,
        plan: LogicalPlan,
        domain: &Domain,
    ) -> Result<Option<(LogicalPlan, Vec<Column>)>> {
        if domain.is_free(&plan)? {
            let (outer, keys) = self.domain(domain)?;
            if keys.is_empty() {
                return Ok(Some((plan, keys)));
            }
            return Ok(Some((LogicalPlanBuilder::from(plan).cross_join(outer)?.build()?, keys)));
        }
        match plan {
            LogicalPlan::Join(join) => self.attach_join(join, domain),
            LogicalPlan::Aggregate(aggregate) => self.attach_aggregate(aggregate, domain),
            LogicalPlan::Limit(limit) => self.attach_limit(limit, domain),
            LogicalPlan::SubqueryAlias(alias) => {
                let names: Vec<(Column, Column)> = alias
                    .input
                    .schema()
                    .columns()
                    .into_iter()
                    .zip(alias.schema.columns())
                    .collect();
                let Some((input, keys)) = self.attach(Arc::unwrap_or_clone(alias.input), domain)?
                else {
                    return Ok(None);
                };
                let columns = names
                    .into_iter()
                    .map(|(inner, outer)| {
                        Expr::Column(inner).alias_qualified(outer.relation, outer.name)
                    })
                    .chain(keys.iter().cloned().map(Expr::Column));
                Ok(Some((LogicalPlanBuilder::from(input).project(columns)?.build()?, keys)))
            }
            LogicalPlan::Projection(projection) => {
                let Some((input, keys)) =
                    self.attach(Arc::unwrap_or_clone(projection.input), domain)?
                else {
                    return Ok(None);
                };
                let mut columns = Vec::with_capacity(projection.expr.len() + keys.len());
                for expression in projection.expr {
                    let name = expression.schema_name().to_string();
                    let replaced = domain.replace(expression, &keys, input.schema())?;
                    let renamed = replaced.schema_name().to_string() != name;
                    columns.push(if renamed { replaced.alias(name) } else { replaced });
                }
                columns.extend(keys.iter().cloned().map(Expr::Column));
                Ok(Some((LogicalPlanBuilder::from(input).project(columns)?.build()?, keys)))
            }
            LogicalPlan::Filter(filter) => {
                let Some((input, keys)) =
                    self.attach(Arc::unwrap_or_clone(filter.input), domain)?
                else {
                    return Ok(None);
                };
                let predicate = domain.replace(filter.predicate, &keys, input.schema())?;
                Ok(Some((LogicalPlanBuilder::from(input).filter(predicate)?.build()?, keys)))
            }
            LogicalPlan::Sort(sort) => self.attach(Arc::unwrap_or_clone(sort.input), domain),
            LogicalPlan::Distinct(Distinct::All(input)) => {
                let Some((input, keys)) = self.attach(Arc::unwrap_or_clone(input), domain)? else {
                    return Ok(None);
                };
                Ok(Some((LogicalPlanBuilder::from(input).distinct()?.build()?, keys)))
            }
            LogicalPlan::Unnest(unnest) => {
                let Some((input, keys)) =
                    self.attach(Arc::unwrap_or_clone(unnest.input), domain)?
                else {
                    return Ok(None);
                };
                let plan = LogicalPlanBuilder::from(input)
                    .unnest_columns_with_options(unnest.exec_columns, unnest.options)?
                    .build()?;
                Ok(Some((plan, keys)))
            }
            LogicalPlan::Subquery(subquery) => {
                self.attach(Arc::unwrap_or_clone(subquery.subquery), domain)
            }
            // Nodes through which the outer row cannot be carried, or that clients' sub-queries do not have.
            _ => Ok(None),
        }
    }

    fn attach_join(
        &mut self,
        join: Join,
        domain: &Domain,
    ) -> Result<Option<(LogicalPlan, Vec<Column>)>> {
        let free_left = domain.is_free(&join.left)?;
        let free_right = domain.is_free(&join.right)?;
        // Rows of the right that match nothing, and rows of the left that do, would need the outer row on the right too.
        let inner = join.join_type == JoinType::Inner;
        if !inner && join.join_type != JoinType::Left {
            return Ok(None);
        }
        let (left, right) = (Arc::unwrap_or_clone(join.left), Arc::unwrap_or_clone(join.right));
        let (left, right, keys, more) = if inner && free_left && !free_right {
            let Some((right, keys)) = self.attach(right, domain)? else { return Ok(None) };
            (left, right, keys, Vec::new())
        } else {
            let Some((left, keys)) = self.attach(left, domain)? else { return Ok(None) };
            if free_right {
                (left, right, keys, Vec::new())
            } else {
                let Some((right, other)) = self.attach(right, domain)? else { return Ok(None) };
                let same = keys.iter().zip(other).map(|(key, other)| {
                    let (key, other) = (Expr::Column(key.clone()), Expr::Column(other));
                    Expr::BinaryExpr(datafusion::logical_expr::BinaryExpr::new(
                        Box::new(key),
                        datafusion::logical_expr::Operator::IsNotDistinctFrom,
                        Box::new(other),
                    ))
                });
                let same = same.collect();
                (left, right, keys, same)
            }
        };
        let both = left.schema().join(right.schema())?;
        let mut conditions: Vec<Expr> = more;
        for (one, other) in join.on {
            conditions.push(one.eq(other));
        }
        conditions.extend(join.filter);
        let conditions = conditions
            .into_iter()
            .map(|condition| domain.replace(condition, &keys, &both))
            .collect::<Result<Vec<_>>>()?;
        let plan =
            LogicalPlanBuilder::from(left).join_on(right, join.join_type, conditions)?.build()?;
        Ok(Some((plan, keys)))
    }

    /// Groups by the outer row too. Without groups of its own an aggregate has a row even where there is no input.
    fn attach_aggregate(
        &mut self,
        aggregate: Aggregate,
        domain: &Domain,
    ) -> Result<Option<(LogicalPlan, Vec<Column>)>> {
        let schema = Arc::clone(&aggregate.schema);
        let ungrouped = aggregate.group_expr.is_empty();
        let input_schema = Arc::clone(aggregate.input.schema());
        let Some((input, keys)) = self.attach(Arc::unwrap_or_clone(aggregate.input), domain)?
        else {
            return Ok(None);
        };
        let replace = |expressions: Vec<Expr>| {
            expressions
                .into_iter()
                .map(|expression| domain.replace(expression, &keys, input.schema()))
                .collect::<Result<Vec<_>>>()
        };
        let mut groups = replace(aggregate.group_expr)?;
        groups.extend(keys.iter().cloned().map(Expr::Column));
        let names: Vec<String> = aggregate
            .aggr_expr
            .iter()
            .map(|expression| expression.schema_name().to_string())
            .collect();
        let empty = aggregate
            .aggr_expr
            .iter()
            .map(|expression| value_of_nothing(expression, &input_schema))
            .collect::<Result<Vec<_>>>()?;
        let aggregates = replace(aggregate.aggr_expr)?
            .into_iter()
            .zip(names)
            .map(|(expression, name)| {
                if expression.schema_name().to_string() == name {
                    expression
                } else {
                    expression.alias(name)
                }
            })
            .collect::<Vec<_>>();
        let grouped = LogicalPlanBuilder::from(input).aggregate(groups, aggregates)?.build()?;
        if !ungrouped {
            return Ok(Some((grouped, keys)));
        }
        let (outer, outer_keys) = self.domain(domain)?;
        let all = join_on_keys(outer, grouped, JoinType::Left, outer_keys.clone(), keys)?;
        let columns = schema
            .columns()
            .into_iter()
            .zip(empty)
            .map(|(column, empty)| match empty {
                Some(value) => coalesce(vec![Expr::Column(column.clone()), value])
                    .alias_qualified(column.relation, column.name),
                None => Expr::Column(column),
            })
            .chain(outer_keys.iter().cloned().map(Expr::Column));
        Ok(Some((LogicalPlanBuilder::from(all).project(columns)?.build()?, outer_keys)))
    }

    /// LIMIT and OFFSET count within each outer row.
    fn attach_limit(
        &mut self,
        limit: Limit,
        domain: &Domain,
    ) -> Result<Option<(LogicalPlan, Vec<Column>)>> {
        let (SkipType::Literal(skip), FetchType::Literal(fetch)) =
            (limit.get_skip_type()?, limit.get_fetch_type()?)
        else {
            return Ok(None);
        };
        let (input, order) = match Arc::unwrap_or_clone(limit.input) {
            LogicalPlan::Sort(sort) => (Arc::unwrap_or_clone(sort.input), sort.expr),
            LogicalPlan::Projection(projection)
                if matches!(*projection.input, LogicalPlan::Sort(_)) =>
            {
                return Ok(None);
            }
            other => (other, Vec::new()),
        };
        let Some((input, keys)) = self.attach(input, domain)? else {
            return Ok(None);
        };
        let columns: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
        let order = order
            .into_iter()
            .map(|mut sort| {
                sort.expr = domain.replace(sort.expr, &keys, input.schema())?;
                Ok(sort)
            })
            .collect::<Result<Vec<_>>>()?;
        let number = row_number()
            .partition_by(keys.iter().cloned().map(Expr::Column).collect())
            .order_by(order)
            .build()?;
        let position = Expr::Column(Column::new_unqualified(number.schema_name().to_string()));
        let mut condition = position.clone().gt(lit(skip as u64));
        if let Some(fetch) = fetch {
            condition = condition.and(position.lt_eq(lit((skip + fetch) as u64)));
        }
        let plan = LogicalPlanBuilder::from(input)
            .window(vec![number])?
            .filter(condition)?
            .project(columns)?
            .build()?;
        Ok(Some((plan, keys)))
    }
}

/// What an aggregate yields over no rows, unless it is NULL.
fn value_of_nothing(aggregate: &Expr, input: &DFSchema) -> Result<Option<Expr>> {
    match aggregate {
        Expr::Alias(alias) => value_of_nothing(&alias.expr, input),
        Expr::AggregateFunction(function) => {
            let value = function.func.default_value(&aggregate.get_type(input)?)?;
            Ok((!value.is_null()).then(|| lit(value)))
        }
        _ => Ok(None),
    }
}

fn join_on_keys(
    left: LogicalPlan,
    right: LogicalPlan,
    join_type: JoinType,
    left_keys: Vec<Column>,
    right_keys: Vec<Column>,
) -> Result<LogicalPlan> {
    if left_keys.is_empty() {
        return LogicalPlanBuilder::from(left).join_on(right, join_type, vec![lit(true)])?.build();
    }
    LogicalPlanBuilder::from(left)
        .join_detailed(
            right,
            join_type,
            (left_keys, right_keys),
            None,
            NullEquality::NullEqualsNull,
        )?
        .build()
}

/// A sub-query expression as a scalar sub-query's plan.
fn as_scalar(expression: &Expr) -> Result<LogicalPlan> {
    match expression {
        Expr::Exists(Exists { subquery, negated }) => {
            let rows = count(lit(1));
            let counted = LogicalPlanBuilder::from(Arc::clone(&subquery.subquery))
                .aggregate(Vec::<Expr>::new(), vec![rows.clone()])?;
            let rows = Expr::Column(Column::new_unqualified(rows.schema_name().to_string()));
            let exists = if *negated { rows.eq(lit(0_i64)) } else { rows.gt(lit(0_i64)) };
            counted.project(vec![exists.alias(VALUE)])?.build()
        }
        Expr::ScalarSubquery(subquery) => Ok(subquery.subquery.as_ref().clone()),
        other => {
            Err(datafusion::error::DataFusionError::Internal(format!("{other} is not a sub-query")))
        }
    }
}

/// Whether DataFusion plans this correlated scalar sub-query by itself.
fn is_native(plan: &LogicalPlan, expression: &Expr, subquery: &Subquery) -> bool {
    if !matches!(plan, LogicalPlan::Projection(_) | LogicalPlan::Filter(_))
        || subquery.outer_ref_columns.is_empty()
        || check_subquery_expr(plan, &subquery.subquery, expression).is_err()
        || has_subqueries(&subquery.subquery)
        || has_lateral(&subquery.subquery)
    {
        return false;
    }
    let mut pull_up = PullUpCorrelatedExpr::new().with_need_handle_count_bug(true);
    subquery.subquery.as_ref().clone().rewrite(&mut pull_up).is_ok() && pull_up.can_pull_up
}

fn has_subqueries(plan: &LogicalPlan) -> bool {
    let mut found = false;
    // The closure never fails.
    let _ = plan.apply(|node| {
        node.apply_expressions(|expression| {
            expression.apply(|part| {
                found |= subquery_of(part).is_some();
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    found
}

/// DataFusion does not look into what is lateral when it decorrelates what stands around it.
fn has_lateral(plan: &LogicalPlan) -> bool {
    matches!(plan, LogicalPlan::Subquery(_)) || plan.inputs().into_iter().any(has_lateral)
}

fn subquery_of(expression: &Expr) -> Option<&Subquery> {
    match expression {
        Expr::ScalarSubquery(subquery) => Some(subquery),
        Expr::Exists(exists) => Some(&exists.subquery),
        Expr::InSubquery(list) => Some(&list.subquery),
        Expr::SetComparison(comparison) => Some(&comparison.subquery),
        _ => None,
    }
}

/// The columns that a plan takes from outside of it.
fn outer_columns(plan: &LogicalPlan) -> Result<BTreeSet<Column>> {
    let mut columns = BTreeSet::new();
    plan.apply_expressions(|expression| {
        expression.apply(|part| {
            if let Expr::OuterReferenceColumn(_, column) = part {
                columns.insert(column.clone());
            }
            if let Some(subquery) = subquery_of(part) {
                let inner = outer_columns(&subquery.subquery)?;
                columns.extend(inner.into_iter().filter(|column| !provides(plan, column)));
            }
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    let lateral = matches!(plan, LogicalPlan::Join(_));
    let inputs = plan.inputs();
    for (position, input) in inputs.iter().enumerate() {
        let inner = outer_columns(input)?;
        if lateral && position == 1 && is_lateral(input) {
            columns
                .extend(inner.into_iter().filter(|column| !inputs[0].schema().has_column(column)));
        } else {
            columns.extend(inner);
        }
    }
    Ok(columns)
}

/// The right side of a join that looks at the left one.
fn is_lateral(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Subquery(_) => true,
        LogicalPlan::SubqueryAlias(alias) => is_lateral(&alias.input),
        _ => false,
    }
}

/// Whether a node's input has the column, so that a sub-query in the node's expressions finds it there.
fn provides(plan: &LogicalPlan, column: &Column) -> bool {
    plan.inputs().iter().any(|input| input.schema().has_column(column))
}

/// The outer row: where its values come from, and which they are.
struct Domain {
    input: LogicalPlan,
    outer: Vec<Column>,
}

impl Domain {
    /// Nothing in the plan looks at the outer row.
    fn is_free(&self, plan: &LogicalPlan) -> Result<bool> {
        let columns = outer_columns(plan)?;
        Ok(!self.outer.iter().any(|column| columns.contains(column)))
    }

    /// The expression over `keys` instead of over the outer row. Inside a further sub-query the keys are outer columns in turn.
    fn replace(&self, expression: Expr, keys: &[Column], schema: &DFSchema) -> Result<Expr> {
        let map: HashMap<&Column, &Column> = self.outer.iter().zip(keys).collect();
        replace_outer(expression, &map, schema, false)
    }
}

fn replace_outer(
    expression: Expr,
    map: &HashMap<&Column, &Column>,
    schema: &DFSchema,
    nested: bool,
) -> Result<Expr> {
    Ok(expression
        .transform_down(|part| match part {
            Expr::OuterReferenceColumn(field, column) => match map.get(&column) {
                Some(key) if nested => {
                    Ok(Transformed::yes(Expr::OuterReferenceColumn(field, (*key).clone())))
                }
                Some(key) => Ok(Transformed::yes(Expr::Column((*key).clone()))),
                None => Ok(Transformed::no(Expr::OuterReferenceColumn(field, column))),
            },
            Expr::ScalarSubquery(subquery) => Ok(Transformed::yes(Expr::ScalarSubquery(
                replace_in_subquery(subquery, map, schema)?,
            ))),
            Expr::Exists(mut exists) => {
                exists.subquery = replace_in_subquery(exists.subquery, map, schema)?;
                Ok(Transformed::yes(Expr::Exists(exists)))
            }
            Expr::InSubquery(mut list) => {
                list.subquery = replace_in_subquery(list.subquery, map, schema)?;
                Ok(Transformed::yes(Expr::InSubquery(list)))
            }
            Expr::SetComparison(mut comparison) => {
                comparison.subquery = replace_in_subquery(comparison.subquery, map, schema)?;
                Ok(Transformed::yes(Expr::SetComparison(comparison)))
            }
            other => Ok(Transformed::no(other)),
        })?
        .data)
}

fn replace_in_subquery(
    subquery: Subquery,
    map: &HashMap<&Column, &Column>,
    schema: &DFSchema,
) -> Result<Subquery> {
    // A column of the node that the sub-query stands in hides one further out.
    let map: &HashMap<&Column, &Column> = &map
        .iter()
        .filter(|(column, _)| !schema.has_column(column))
        .map(|(column, key)| (*column, *key))
        .collect();
    let plan = Arc::unwrap_or_clone(subquery.subquery)
        .transform_down(|node| {
            node.map_expressions(|expression| {
                Ok(Transformed::yes(replace_outer(expression, map, schema, true)?))
            })
        })?
        .data;
    let outer_ref_columns = outer_columns(&plan)?
        .into_iter()
        .map(|column| {
            let field = schema.field_from_column(&column).cloned().or_else(|error| {
                // A column of a query still further out.
                subquery
                    .outer_ref_columns
                    .iter()
                    .find_map(|old| match old {
                        Expr::OuterReferenceColumn(field, found) if *found == column => {
                            Some(Arc::clone(field))
                        }
                        _ => None,
                    })
                    .ok_or(error)
            })?;
            Ok(Expr::OuterReferenceColumn(field, column))
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(Subquery { subquery: Arc::new(plan), outer_ref_columns, spans: Spans::new() })
}
