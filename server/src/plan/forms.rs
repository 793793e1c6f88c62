//! Forms of PostgreSQL that DataFusion's planner does not take or takes otherwise, as those that it takes.
//!
//! | written | planned |
//! | --- | --- |
//! | `x SIMILAR TO p ESCAPE e` | `x ~ similar_to_escape(p, e)`: the whole text is matched |
//! | `(a, b) = (1, 2)`, `(a, b) IN ((1, 2), ...)` | `a = 1 AND b = 2`, joined by OR |
//! | `every(x)`, `variance(x)` | `bool_and(x)`, `var_samp(x)` |
//! | `substring(x FROM 'regex')` | what the expression matches in `x` |
//! | `x ^@ p` | `starts_with(x, p)` |
//! | `~x` | `-1 - x` |
//! | `interval '1 day 04:05'` | `'1 day 04:05'::interval` |
//! | `x AT TIME ZONE z` | `timezone(z, x)` |
//! | `extract(second FROM x)` | seconds with their fraction |
//! | `extract(year FROM x)`, `date_part('year', x)` | the same as numeric and as double precision |
//! | `RANGE BETWEEN interval '1 day' PRECEDING ...` | the interval stays one |
//! | `1e3`, `2.5e-300` | `1000.`, and `'2.5e-300'::double precision` where a decimal has too few digits |
//! | `current_schema`, `user` and their kin | calls of the functions |
//! | `FETCH FIRST n ROWS ONLY` | `LIMIT n` |
//!
//! A walk over the syntax tree, no text. Names of columns are given before (`names`), so that `every(x)` is called `every`.

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

use std::ops::ControlFlow;

use datafusion::arrow::datatypes::DECIMAL256_MAX_PRECISION;
use sqlparser::ast::{
    AccessExpr, BinaryOperator, DataType, DateTimeField, ExactNumberInfo, Expr, Fetch, Ident,
    Interval, LimitClause, ObjectNamePart, Query, Subscript, UnaryOperator, Value, ValueWithSpan,
    VisitMut, VisitorMut, WindowFrameBound, WindowSpec, WindowType,
};

use crate::functions::postgres::{EXTRACT_SECONDS, SIMILAR_TO_ESCAPE};
use crate::sql::fold;
use crate::sql::pieces::{call, cast, take};

/// Digits of the largest part of a time that `extract` gives as a whole number.
const WHOLE_PART_DIGITS: u64 = 10;

/// Rewrites a statement or an expression as this module's table says.
pub(super) fn rewrite(tree: &mut impl VisitMut) {
    let _ = tree.visit(&mut Forms);
}

struct Forms;

impl VisitorMut for Forms {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        if let Some(Fetch { with_ties: false, percent: false, quantity }) = &query.fetch {
            let count = quantity
                .clone()
                .unwrap_or_else(|| Expr::Value(Value::Number("1".to_string(), false).into()));
            match &mut query.limit_clause {
                None => {
                    query.limit_clause = Some(LimitClause::LimitOffset {
                        limit: Some(count),
                        offset: None,
                        limit_by: Vec::new(),
                    });
                    query.fetch = None;
                }
                Some(LimitClause::LimitOffset { limit: limit @ None, .. }) => {
                    *limit = Some(count);
                    query.fetch = None;
                }
                Some(_) => {}
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::SimilarTo { negated, expr: subject, pattern, escape_char } => {
                let op = match *negated {
                    true => BinaryOperator::PGRegexNotMatch,
                    false => BinaryOperator::PGRegexMatch,
                };
                let mut arguments = vec![take(pattern)];
                arguments.extend(escape_char.take().map(Expr::Value));
                let pattern = call(SIMILAR_TO_ESCAPE, arguments);
                *expr = binary(Expr::Nested(Box::new(take(subject))), op, pattern);
            }
            Expr::BinaryOp {
                left,
                op: op @ (BinaryOperator::Eq | BinaryOperator::NotEq),
                right,
            } => {
                if let (Expr::Tuple(left), Expr::Tuple(right)) = (left.as_ref(), right.as_ref())
                    && let Some(equal) = tuples_equal(left, right)
                {
                    *expr = match op {
                        BinaryOperator::Eq => equal,
                        _ => not(equal),
                    };
                }
            }
            Expr::UnaryOp { op: UnaryOperator::BitwiseNot, expr: number } => {
                let minus_one = Expr::UnaryOp {
                    op: UnaryOperator::Minus,
                    expr: Box::new(Expr::Value(Value::Number("1".to_string(), false).into())),
                };
                let number = Expr::Nested(Box::new(take(number)));
                *expr = Expr::Nested(Box::new(binary(minus_one, BinaryOperator::Minus, number)));
            }
            Expr::Interval(interval)
                if interval.leading_field.is_none() && is_text(&interval.value) =>
            {
                let text = take(&mut interval.value);
                *expr = cast(text, DataType::Interval { fields: None, precision: None });
            }
            Expr::AtTimeZone { timestamp, time_zone } => {
                *expr = call("timezone", vec![take(time_zone), take(timestamp)]);
            }
            Expr::Extract {
                field: DateTimeField::Second | DateTimeField::Seconds,
                expr: subject,
                ..
            } => {
                *expr = call(EXTRACT_SECONDS, vec![take(subject)]);
            }
            // All others but this are whole.
            Expr::Extract { field, .. } if *field != DateTimeField::Epoch => {
                let whole = ExactNumberInfo::PrecisionAndScale(WHOLE_PART_DIGITS, 0);
                *expr = cast(take(expr), DataType::Numeric(whole));
            }
            Expr::Value(ValueWithSpan { value: Value::Number(text, _), .. }) => {
                if let Some(number) = number_as_planned(text) {
                    *expr = number;
                }
            }
            Expr::Identifier(name) if is_function_without_parentheses(name) => {
                let function = name.value.to_lowercase();
                *expr = call(&function, Vec::new());
            }
            Expr::BinaryOp { left, op: BinaryOperator::PGStartsWith, right } => {
                *expr = call("starts_with", vec![take(left), take(right)]);
            }
            Expr::InList { expr: subject, list, negated } => {
                if let Expr::Tuple(subject) = subject.as_ref() {
                    let equal: Option<Vec<Expr>> = list
                        .iter()
                        .map(|item| match item {
                            Expr::Tuple(item) => tuples_equal(subject, item),
                            _ => None,
                        })
                        .collect();
                    let any = equal.and_then(|equal| {
                        equal.into_iter().reduce(|a, b| binary(a, BinaryOperator::Or, b))
                    });
                    if let Some(any) = any {
                        let any = Expr::Nested(Box::new(any));
                        *expr = if *negated { not(any) } else { any };
                    }
                }
            }
            Expr::Function(function) => {
                if let [ObjectNamePart::Identifier(name)] = function.name.0.as_mut_slice() {
                    let other = match fold(name).as_str() {
                        "every" => Some("bool_and"),
                        "variance" => Some("var_samp"),
                        _ => None,
                    };
                    if let Some(other) = other {
                        *name = Ident::new(other);
                    }
                    if fold(name) == "date_part" {
                        *expr = cast(take(expr), DataType::DoublePrecision);
                        return ControlFlow::Continue(());
                    }
                }
                if let Some(WindowType::WindowSpec(WindowSpec {
                    window_frame: Some(frame), ..
                })) = &mut function.over
                {
                    plain_interval(&mut frame.start_bound);
                    frame.end_bound.iter_mut().for_each(plain_interval);
                }
            }
            Expr::Substring {
                expr: subject,
                substring_from: Some(from),
                substring_for: None,
                ..
            } if is_text(from) => {
                let matched = call("regexp_match", vec![take(subject), take(from)]);
                *expr = Expr::CompoundFieldAccess {
                    root: Box::new(Expr::Nested(Box::new(matched))),
                    access_chain: vec![AccessExpr::Subscript(Subscript::Index {
                        index: Expr::Value(Value::Number("1".to_string(), false).into()),
                    })],
                };
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// `current_schema` and its kin: reserved words that call a function.
pub(super) fn is_function_without_parentheses(name: &Ident) -> bool {
    name.quote_style.is_none()
        && matches!(
            name.value.to_lowercase().as_str(),
            "current_schema" | "current_catalog" | "current_role" | "session_user" | "user"
        )
}

/// A number with an exponent, or with very many digits, as the planner can take it: without the exponent, which would become a
/// negative scale, or as a double where no decimal has the digits.
fn number_as_planned(text: &str) -> Option<Expr> {
    let lower = text.to_ascii_lowercase();
    let (mantissa, exponent) = lower.split_once('e').unwrap_or((&lower, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    // As many as fit no decimal anyway.
    let exponent = exponent.parse::<i64>().unwrap_or(if exponent.starts_with('-') {
        i64::from(i32::MIN)
    } else {
        i64::from(i32::MAX)
    });
    let scale = (fraction.len() as i64).saturating_sub(exponent);
    let precision = if digits.is_empty() {
        scale.max(1)
    } else {
        (digits.len() as i64).saturating_sub(scale.min(0)).max(scale)
    };
    if precision > i64::from(DECIMAL256_MAX_PRECISION) {
        let text = Expr::Value(Value::SingleQuotedString(lower).into());
        return Some(cast(text, DataType::DoublePrecision));
    }
    if scale >= 0 {
        return None;
    }
    let zeros = "0".repeat(usize::try_from(-scale).unwrap_or(0));
    let plain = if digits.is_empty() { "0.".to_string() } else { format!("{digits}{zeros}.") };
    Some(Expr::Value(Value::Number(plain, false).into()))
}

/// The planner takes the bounds of a frame as they are written, and no casts.
fn plain_interval(bound: &mut WindowFrameBound) {
    let (WindowFrameBound::Preceding(Some(length)) | WindowFrameBound::Following(Some(length))) =
        bound
    else {
        return;
    };
    if let Expr::Cast { expr: text, data_type: DataType::Interval { .. }, .. } = length.as_mut()
        && is_text(text)
    {
        let value = Box::new(take(text));
        **length = Expr::Interval(Interval {
            value,
            leading_field: None,
            leading_precision: None,
            last_field: None,
            fractional_seconds_precision: None,
        });
    }
}

fn tuples_equal(left: &[Expr], right: &[Expr]) -> Option<Expr> {
    if left.len() != right.len() {
        return None;
    }
    let pairs = left.iter().zip(right);
    let equal = pairs.map(|(a, b)| binary(a.clone(), BinaryOperator::Eq, b.clone()));
    let all = equal.reduce(|a, b| binary(a, BinaryOperator::And, b))?;
    Some(Expr::Nested(Box::new(all)))
}

fn not(expr: Expr) -> Expr {
    Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(expr) }
}

fn binary(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) }
}

fn is_text(expr: &Expr) -> bool {
    matches!(
        expr,
        Expr::Value(ValueWithSpan {
            value: Value::SingleQuotedString(_) | Value::EscapedStringLiteral(_),
            ..
        })
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_become_what_the_planner_takes() {
        let planned = |text: &str| number_as_planned(text).map(|number| number.to_string());
        let zeros = |count| "0".repeat(count);
        for text in ["1", "0", "1.5", "0.1e-2", "2e0", "1.25e2", "2.5e-70"] {
            assert_eq!(planned(text), None, "{text}");
        }
        for (text, plain) in [
            ("1e3", "1000.".to_string()),
            ("1.5E+2", "150.".to_string()),
            ("0e5", "0.".to_string()),
            ("007e1", "70.".to_string()),
            ("1e75", format!("1{}.", zeros(75))),
        ] {
            assert_eq!(planned(text), Some(plain), "{text}");
        }
        for text in ["1e76", "2.5e-300", "1e99999999999999999999", "1e-99999999999999999999"] {
            assert_eq!(planned(text), Some(format!("CAST('{text}' AS DOUBLE PRECISION)")));
        }
        assert!(planned(&"9".repeat(80)).unwrap().starts_with("CAST"));
    }
}
