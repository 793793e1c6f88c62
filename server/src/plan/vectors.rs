//! Lengths of vectors, found in the syntax tree.
//!
//! A column of vectors has one length, and a plan must know it. `'[1,2,3]'::vector` says it without a number; so do an array of literals and a
//! parameter whose value is at hand. They are planned as `::vector(3)`.

use std::ops::ControlFlow;

use arrow::array::Array as _;
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use sqlparser::ast::{CastKind, Expr, Value, ValueWithSpan, VisitMut, VisitorMut};
use thanosql_protocol::types::parse_vector;

use super::Parameters;
use super::types::{is_open_vector, vector_type_name};

/// Writes the number of dimensions into every cast to `vector` whose operand tells it.
pub(super) fn count_dimensions(tree: &mut impl VisitMut, parameters: &Parameters) {
    let _ = tree.visit(&mut Dimensions { parameters });
}

/// Makes a value of VALUES one of a column of vectors, so that a text and an array can stand in one column there. DEFAULT and values for
/// other columns stay.
pub fn as_vector(value: &mut Expr, column: &DataType) {
    let DataType::FixedSizeList(_, dimensions) = column else { return };
    let is_default = matches!(value, Expr::Identifier(name) if name.quote_style.is_none() && name.value.eq_ignore_ascii_case("default"));
    let (false, Ok(dimensions)) = (is_default, usize::try_from(*dimensions)) else { return };
    let expr = std::mem::replace(value, Expr::Value(Value::Null.into()));
    *value = Expr::Cast {
        kind: CastKind::DoubleColon,
        expr: Box::new(expr),
        data_type: vector_type_name(dimensions),
        array: false,
        format: None,
    };
}

struct Dimensions<'a> {
    parameters: &'a Parameters,
}

impl VisitorMut for Dimensions<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Cast { expr, data_type, .. } = expr
            && is_open_vector(data_type)
            && let Some(count) = self.count(expr)
        {
            *data_type = vector_type_name(count);
        }
        ControlFlow::Continue(())
    }
}

impl Dimensions<'_> {
    /// How many elements an expression has, if it tells.
    fn count(&self, expr: &Expr) -> Option<usize> {
        match expr {
            Expr::Nested(inner) => self.count(inner),
            // ARRAY[1,2]::real[]::vector
            Expr::Cast { expr, .. } => self.count(expr),
            Expr::Array(array) => Some(array.elem.len()).filter(|count| *count > 0),
            Expr::Value(ValueWithSpan { value, .. }) => match value {
                Value::Placeholder(name) => {
                    let number = name.strip_prefix('$')?.parse().ok()?;
                    count_of_value(self.parameters.value(number)?)
                }
                // A text that is no vector has any length: what is wrong with it is said when it is read.
                value => Some(
                    parse_vector(value.clone().into_string().as_deref()?)
                        .map_or(1, |vector| vector.len()),
                ),
            },
            _ => None,
        }
    }
}

fn count_of_value(value: &ScalarValue) -> Option<usize> {
    if let Some(Some(text)) = value.try_as_str() {
        return Some(parse_vector(text).map_or(1, |vector| vector.len()));
    }
    match value {
        ScalarValue::List(list) if list.is_valid(0) => Some(list.value(0).len()),
        _ => None,
    }
    .filter(|count| *count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(sql: &str) -> String {
        let mut statement =
            sqlparser::parser::Parser::parse_sql(&sqlparser::dialect::PostgreSqlDialect {}, sql)
                .unwrap()
                .remove(0);
        let text = ScalarValue::Utf8(Some("[1,2,3,4]".to_string()));
        let parameters = Parameters::bound(&[text.to_array().unwrap()]).unwrap();
        count_dimensions(&mut statement, &parameters);
        statement.to_string()
    }

    #[test]
    fn literals_and_parameters_tell_their_length() {
        assert_eq!(counted("SELECT '[1,2]'::vector"), "SELECT '[1,2]'::vector(2)");
        assert_eq!(counted("SELECT CAST('[1]' AS vector)"), "SELECT CAST('[1]' AS vector(1))");
        assert_eq!(
            counted("SELECT (ARRAY[1, 2, 3])::real[]::vector"),
            "SELECT (ARRAY[1, 2, 3])::REAL[]::vector(3)"
        );
        assert_eq!(counted("SELECT $1::vector"), "SELECT $1::vector(4)");
        assert_eq!(counted("SELECT 'x'::vector"), "SELECT 'x'::vector(1)");
        for unchanged in ["SELECT x::vector", "SELECT '[1]'::vector(2)", "SELECT NULL::vector"] {
            assert_eq!(counted(unchanged), unchanged);
        }
    }
}
