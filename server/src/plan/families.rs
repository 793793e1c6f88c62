//! Which types PostgreSQL assigns to which, without being asked by a cast.

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

use arrow::datatypes::{DataType, Field};
use thanosql_protocol::types::{sql_type_name, type_oid};

use super::rows::{is_binary, is_text};

/// What texts in the data are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Texts {
    /// Texts, and nothing else.
    Typed,
    /// Literals: a date, a uuid or a number may be written as one, because nothing says that it is none.
    Literals,
}

/// The kinds of types between which PostgreSQL assigns.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Number,
    Text,
    Bytes,
    Boolean,
    Date,
    Time,
    Timestamp,
    Interval,
    Uuid,
    Other,
}

fn family(data_type: &DataType) -> Family {
    match data_type {
        data_type if is_text(data_type) => Family::Text,
        data_type if is_binary(data_type) => Family::Bytes,
        data_type if data_type.is_numeric() => Family::Number,
        DataType::Boolean => Family::Boolean,
        DataType::Date32 => Family::Date,
        DataType::Time32(_) | DataType::Time64(_) => Family::Time,
        DataType::Date64 | DataType::Timestamp(..) => Family::Timestamp,
        DataType::Interval(_) | DataType::Duration(_) => Family::Interval,
        DataType::FixedSizeBinary(16) => Family::Uuid,
        DataType::FixedSizeBinary(_) => Family::Bytes,
        DataType::Dictionary(_, value) => family(value),
        _ => Family::Other,
    }
}

/// Whether values of one type become values of another by an assignment.
pub fn assignable(given: &DataType, target: &DataType, texts: Texts) -> bool {
    if given == target || matches!(given, DataType::Null) {
        return true;
    }
    if let (Some(given), Some(target)) = (element(given), element(target)) {
        return assignable(given, target, texts);
    }
    match (family(given), family(target)) {
        // Everything has a text form.
        (_, Family::Text) => true,
        (Family::Text, _) => texts == Texts::Literals,
        (Family::Date, Family::Timestamp) | (Family::Timestamp, Family::Date | Family::Time) => {
            true
        }
        (Family::Other, _) | (_, Family::Other) => false,
        (given, target) => given == target,
    }
}

/// The type of an array's or vector's elements.
fn element(data_type: &DataType) -> Option<&DataType> {
    match data_type {
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field)
        | DataType::FixedSizeList(field, _) => Some(field.data_type()),
        _ => None,
    }
}

/// A type's name in SQL.
pub fn type_name(field: &Field) -> String {
    sql_type_name(type_oid(field)).unwrap_or_else(|| field.data_type().to_string())
}
