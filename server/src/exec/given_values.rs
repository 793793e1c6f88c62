//! The values that INSERT and UPDATE spell out: for which columns they are, what DEFAULT stands for, which types parameters get.

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

use std::collections::HashMap;

use arrow::datatypes::{DataType, Field, SchemaRef};
use sqlparser::ast as pg;
use thanosql_protocol::{SqlError, SqlState};

use super::targets::missing_column;
use crate::catalog::sequences::ColumnDefault;
use crate::error::unsupported;
use crate::plan::{self, Scope};
use crate::sql;

/// The columns that an INSERT gives, as indexes into the table's.
pub(super) fn insert_columns(
    names: &[pg::ObjectName],
    schema: &SchemaRef,
    table: &str,
) -> Result<Vec<usize>, SqlError> {
    if names.is_empty() {
        return Ok((0..schema.fields().len()).collect());
    }
    let mut columns = Vec::with_capacity(names.len());
    for name in names {
        let column = match name.0.last().and_then(pg::ObjectNamePart::as_ident) {
            Some(ident) => sql::fold(ident),
            None => return Err(unsupported("this name of a column")),
        };
        let index = schema.index_of(&column).map_err(|_| missing_column(&column, table, schema))?;
        if columns.contains(&index) {
            return Err(SqlError::new(
                SqlState::DUPLICATE_COLUMN,
                format!("column \"{column}\" specified more than once"),
            ));
        }
        columns.push(index);
    }
    Ok(columns)
}

/// The values that SET gives, by column. Settles the types of parameters that stand alone.
pub(super) fn assigned_values(
    scope: &mut Scope,
    assignments: &[pg::Assignment],
    schema: &SchemaRef,
    table: &str,
) -> Result<HashMap<usize, pg::Expr>, SqlError> {
    let mut assigned: HashMap<usize, pg::Expr> = HashMap::new();
    let mut assign = |scope: &mut Scope, column: &pg::ObjectName, value: &pg::Expr| {
        let name = match column.0.last().and_then(pg::ObjectNamePart::as_ident) {
            Some(ident) => sql::fold(ident),
            None => return Err(unsupported("this target of an assignment")),
        };
        let index = schema.index_of(&name).map_err(|_| missing_column(&name, table, schema))?;
        let field = schema.field(index);
        let value = if is_default(value) {
            default_expression(field)?.unwrap_or_else(null)
        } else {
            refuse_generated(field, || {
                format!("column \"{name}\" can only be updated to DEFAULT")
            })?;
            value.clone()
        };
        if let Some(n) = placeholder(&value) {
            scope.parameters.settle(n, field.data_type().clone());
        }
        if assigned.insert(index, value).is_some() {
            return Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                format!("multiple assignments to same column \"{name}\""),
            ));
        }
        Ok(())
    };
    for assignment in assignments {
        match (&assignment.target, &assignment.value) {
            (pg::AssignmentTarget::ColumnName(column), value) => assign(scope, column, value)?,
            // SET (a, b) = (1, 2)
            (pg::AssignmentTarget::Tuple(columns), pg::Expr::Tuple(values)) => {
                if columns.len() != values.len() {
                    return Err(SqlError::new(
                        SqlState::SYNTAX_ERROR,
                        "number of columns does not match number of values",
                    ));
                }
                for (column, value) in columns.iter().zip(values) {
                    assign(scope, column, value)?;
                }
            }
            (pg::AssignmentTarget::Tuple(_), _) => {
                return Err(unsupported("assigning several columns from a query"));
            }
        }
    }
    Ok(assigned)
}

/// Whether a value is the word DEFAULT.
fn is_default(value: &pg::Expr) -> bool {
    matches!(value, pg::Expr::Identifier(ident)
        if ident.quote_style.is_none() && ident.value.eq_ignore_ascii_case("default"))
}

/// # Errors
/// 428C9 if a column takes no value but its sequence's.
fn refuse_generated(field: &Field, message: impl FnOnce() -> String) -> Result<(), SqlError> {
    match ColumnDefault::of(field) {
        ColumnDefault::Identity { always: true, .. } => {
            Err(SqlError::new(SqlState::GENERATED_ALWAYS, message()).with_detail(format!(
                "Column \"{}\" is an identity column defined as GENERATED ALWAYS.",
                field.name()
            )))
        }
        ColumnDefault::Identity { .. } | ColumnDefault::Expression(_) | ColumnDefault::Null => {
            Ok(())
        }
    }
}

/// A column's default, if it has one.
pub(super) fn default_expression(field: &Field) -> Result<Option<pg::Expr>, SqlError> {
    let text = ColumnDefault::of(field).text();
    text.map(|text| sql::parse_expression(&text)).transpose().map_err(crate::error::parse_error)
}

/// NULL.
pub(super) fn null() -> pg::Expr {
    pg::Expr::Value(pg::Value::Null.into())
}

/// Parameters that stand alone in VALUES have the types of their columns; DEFAULT there is the column's default.
pub(super) fn settle_values(
    source: &mut pg::Query,
    scope: &mut Scope,
    schema: &SchemaRef,
    given: &[usize],
) -> Result<(), SqlError> {
    let pg::SetExpr::Values(values) = source.body.as_mut() else {
        return given.iter().try_for_each(|column| refuse_value(schema.field(*column)));
    };
    for values in &mut values.rows {
        for (position, value) in values.content.iter_mut().enumerate() {
            let Some(column) = given.get(position) else { continue };
            let field = schema.field(*column);
            if is_default(value) {
                *value = default_expression(field)?.unwrap_or_else(null);
            } else {
                refuse_value(field)?;
            }
            if let Some(n) = placeholder(value) {
                scope.parameters.settle(n, field.data_type().clone());
            } else {
                plan::as_vector(value, field.data_type());
                as_number(value, field.data_type());
            }
        }
    }
    Ok(())
}

/// Makes a value among VALUES a number where its column has numbers. Otherwise the rows of VALUES would decide together which kind of number they are,
/// and `'NaN'` is no decimal, and `2.5e-300` none that is stored. What decimals and whole numbers are among themselves may wait for the column.
fn as_number(value: &mut pg::Expr, column: &DataType) {
    let is_text = matches!(
        value,
        pg::Expr::Value(pg::ValueWithSpan { value: pg::Value::SingleQuotedString(_), .. })
    );
    let data_type = match column {
        DataType::Int16 if is_text => pg::DataType::SmallInt(None),
        DataType::Int32 if is_text => pg::DataType::Integer(None),
        DataType::Int64 if is_text => pg::DataType::BigInt(None),
        DataType::Float32 => pg::DataType::Real,
        DataType::Float64 => pg::DataType::DoublePrecision,
        _ => return,
    };
    let expr = std::mem::replace(value, null());
    *value = pg::Expr::Cast {
        kind: pg::CastKind::DoubleColon,
        expr: Box::new(pg::Expr::Nested(Box::new(expr))),
        data_type,
        array: false,
        format: None,
    };
}

fn refuse_value(field: &Field) -> Result<(), SqlError> {
    refuse_generated(field, || {
        format!("cannot insert a non-DEFAULT value into column \"{}\"", field.name())
    })
}

/// The `n` of an expression that is `$n` and nothing else.
pub(super) fn placeholder(expr: &pg::Expr) -> Option<usize> {
    match expr {
        pg::Expr::Value(pg::ValueWithSpan { value: pg::Value::Placeholder(name), .. }) => {
            name.strip_prefix('$')?.parse().ok()
        }
        _ => None,
    }
}
