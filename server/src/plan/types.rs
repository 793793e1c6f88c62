//! PostgreSQL's type names, as they stand in CREATE TABLE and in casts, to Arrow types.
//!
//! The same mapping serves both, so that `x::vector(3)` and a column `x vector(3)` are one type. What differs from
//! Arrow's own types (varchar's limit, json, oid) travels in the field's metadata under [`PG_TYPE`] and [`PG_TYPMOD`].

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, IntervalUnit, TimeUnit};
use datafusion::common::Result;
use datafusion::logical_expr::planner::TypePlanner;
use sqlparser::ast::{
    ArrayElemTypeDef, CharacterLength, DataType as SqlType, ExactNumberInfo, ObjectName,
    ObjectNamePart, TimezoneInfo,
};
use thanosql_protocol::types::MAX_VECTOR_DIMENSIONS;
use thanosql_protocol::{SqlError, SqlState};

/// Metadata key: the PostgreSQL type where Arrow's type alone does not tell.
pub const PG_TYPE: &str = "pg_type";
/// Metadata key: PostgreSQL's type modifier.
pub const PG_TYPMOD: &str = "pg_typmod";
/// Metadata key: the SQL text of a column's default.
pub const COLUMN_DEFAULT: &str = "default";

/// numeric without precision: what an i128 holds with room on both sides of the point.
const NUMERIC_PRECISION: u8 = 38;
const NUMERIC_SCALE: i8 = 10;

/// The Arrow field of a SQL type; its name is empty.
///
/// # Errors
/// 42704 for a type that does not exist, 0A000 for one that PostgreSQL has and this server has not, 22023 for
/// modifiers out of range.
pub fn field_of(sql_type: &SqlType) -> Result<Field, SqlError> {
    let plain = |data_type| Ok(Field::new("", data_type, true));
    let named = |data_type, name: &str| {
        Ok(Field::new("", data_type, true)
            .with_metadata(HashMap::from([(PG_TYPE.to_string(), name.to_string())])))
    };
    match sql_type {
        SqlType::Boolean | SqlType::Bool => plain(DataType::Boolean),
        SqlType::SmallInt(_) | SqlType::Int2(_) | SqlType::TinyInt(_) => plain(DataType::Int16),
        SqlType::Int(_) | SqlType::Integer(_) | SqlType::Int4(_) | SqlType::MediumInt(_) => {
            plain(DataType::Int32)
        }
        SqlType::BigInt(_) | SqlType::Int8(_) => plain(DataType::Int64),
        SqlType::Real | SqlType::Float4 => plain(DataType::Float32),
        SqlType::Double(_) | SqlType::DoublePrecision | SqlType::Float8 => plain(DataType::Float64),
        SqlType::Float(info) => match info {
            ExactNumberInfo::Precision(bits) if *bits <= 24 => plain(DataType::Float32),
            ExactNumberInfo::None
            | ExactNumberInfo::Precision(_)
            | ExactNumberInfo::PrecisionAndScale(..) => plain(DataType::Float64),
        },
        SqlType::Numeric(info) | SqlType::Decimal(info) | SqlType::Dec(info) => numeric(info),
        SqlType::Text | SqlType::String(_) | SqlType::Clob(_) => plain(DataType::Utf8),
        SqlType::Varchar(length)
        | SqlType::CharacterVarying(length)
        | SqlType::CharVarying(length) => character("varchar", length.as_ref(), None),
        SqlType::Char(length) | SqlType::Character(length) => {
            character("bpchar", length.as_ref(), Some(1))
        }
        SqlType::Bytea | SqlType::Blob(_) | SqlType::Varbinary(_) | SqlType::Binary(_) => {
            plain(DataType::Binary)
        }
        SqlType::Date => plain(DataType::Date32),
        SqlType::Time(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
            plain(DataType::Time64(TimeUnit::Microsecond))
        }
        SqlType::Timestamp(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone)
        | SqlType::Datetime(_) => plain(DataType::Timestamp(TimeUnit::Microsecond, None)),
        SqlType::Timestamp(_, TimezoneInfo::WithTimeZone | TimezoneInfo::Tz) => {
            plain(DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())))
        }
        SqlType::Interval { .. } => plain(DataType::Interval(IntervalUnit::MonthDayNano)),
        SqlType::Uuid => plain(DataType::FixedSizeBinary(16)),
        SqlType::JSON => named(DataType::Utf8, "json"),
        SqlType::JSONB => named(DataType::Utf8, "jsonb"),
        SqlType::Array(
            ArrayElemTypeDef::SquareBracket(element, _)
            | ArrayElemTypeDef::AngleBracket(element)
            | ArrayElemTypeDef::Parenthesis(element),
        ) => {
            let element = field_of(element)?.with_name("item");
            plain(DataType::List(Arc::new(element)))
        }
        SqlType::Custom(name, modifiers) => custom(name, modifiers),
        other => Err(SqlError::new(
            SqlState::FEATURE_NOT_SUPPORTED,
            format!("type {} is not supported", other.to_string().to_lowercase()),
        )),
    }
}

fn numeric(info: &ExactNumberInfo) -> Result<Field, SqlError> {
    let (precision, scale) = match info {
        ExactNumberInfo::None => (NUMERIC_PRECISION, NUMERIC_SCALE),
        ExactNumberInfo::Precision(precision) => (numeric_precision(*precision)?, 0),
        ExactNumberInfo::PrecisionAndScale(precision, scale) => {
            let digits = numeric_precision(*precision)?;
            let scale = i8::try_from(*scale)
                .ok()
                .filter(|scale| (0..=digits as i8).contains(scale))
                .ok_or_else(|| {
                    SqlError::new(
                        SqlState::INVALID_PARAMETER_VALUE,
                        format!(
                            "NUMERIC scale {scale} must be between 0 and precision {precision}"
                        ),
                    )
                })?;
            (digits, scale)
        }
    };
    Ok(Field::new("", DataType::Decimal128(precision, scale), true))
}

fn numeric_precision(precision: u64) -> Result<u8, SqlError> {
    u8::try_from(precision)
        .ok()
        .filter(|digits| (1..=NUMERIC_PRECISION).contains(digits))
        .ok_or_else(|| {
            SqlError::new(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("NUMERIC precision {precision} must be between 1 and {NUMERIC_PRECISION}"),
            )
        })
}

/// varchar(n) and char(n). PostgreSQL's modifier is the length plus four.
fn character(
    name: &str,
    length: Option<&CharacterLength>,
    default: Option<u64>,
) -> Result<Field, SqlError> {
    let mut metadata = HashMap::from([(PG_TYPE.to_string(), name.to_string())]);
    let length = match length {
        Some(CharacterLength::IntegerLength { length, .. }) => Some(*length),
        Some(CharacterLength::Max) | None => default,
    };
    if let Some(length) = length {
        if !(1..=10_485_760).contains(&length) {
            return Err(SqlError::new(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("length for type {name} must be between 1 and 10485760, not {length}"),
            ));
        }
        metadata.insert(PG_TYPMOD.to_string(), (length + 4).to_string());
    }
    Ok(Field::new("", DataType::Utf8, true).with_metadata(metadata))
}

/// The last part of a possibly qualified type name, folded as PostgreSQL folds it.
fn type_name(name: &ObjectName) -> String {
    match name.0.last() {
        Some(ObjectNamePart::Identifier(ident)) => crate::sql::fold(ident),
        Some(ObjectNamePart::Function(function)) => function.name.value.to_lowercase(),
        None => String::new(),
    }
}

fn custom(name: &ObjectName, modifiers: &[String]) -> Result<Field, SqlError> {
    let name = type_name(name);
    let plain = |data_type| Ok(Field::new("", data_type, true));
    let named = |data_type| {
        Ok(Field::new("", data_type, true)
            .with_metadata(HashMap::from([(PG_TYPE.to_string(), name.clone())])))
    };
    match name.as_str() {
        "vector" => match modifiers {
            [dimensions] => {
                let count = dimensions
                    .parse::<usize>()
                    .ok()
                    .filter(|count| (1..=MAX_VECTOR_DIMENSIONS).contains(count))
                    .ok_or_else(|| {
                        SqlError::new(
                            SqlState::INVALID_PARAMETER_VALUE,
                            format!("dimensions of type vector must be between 1 and {MAX_VECTOR_DIMENSIONS}, not {dimensions}"),
                        )
                    })?;
                plain(crate::learning::vector_type(count))
            }
            _ => Err(SqlError::new(
                SqlState::INVALID_PARAMETER_VALUE,
                "type vector needs its number of dimensions",
            )
            .with_hint("Write vector(n), for example vector(128).")),
        },
        "bool" => plain(DataType::Boolean),
        "int2" => plain(DataType::Int16),
        "int4" => plain(DataType::Int32),
        "int8" => plain(DataType::Int64),
        "float4" => plain(DataType::Float32),
        "float8" => plain(DataType::Float64),
        "text" | "citext" => plain(DataType::Utf8),
        "name" | "bpchar" | "varchar" | "json" | "jsonb" => named(DataType::Utf8),
        "oid" | "regclass" | "regtype" | "regproc" | "xid" => named(DataType::Int64),
        "numeric" => numeric(&ExactNumberInfo::None),
        "date" => plain(DataType::Date32),
        "timestamp" => plain(DataType::Timestamp(TimeUnit::Microsecond, None)),
        "timestamptz" => plain(DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))),
        "time" => plain(DataType::Time64(TimeUnit::Microsecond)),
        "interval" => plain(DataType::Interval(IntervalUnit::MonthDayNano)),
        "uuid" => plain(DataType::FixedSizeBinary(16)),
        "bytea" => plain(DataType::Binary),
        "serial" | "bigserial" | "smallserial" | "serial4" | "serial8" | "serial2" => {
            Err(SqlError::new(
                SqlState::FEATURE_NOT_SUPPORTED,
                format!("type {name} is for columns of tables alone"),
            ))
        }
        _ => Err(SqlError::new(
            SqlState::UNDEFINED_OBJECT,
            format!("type \"{name}\" does not exist"),
        )),
    }
}

/// What a parameter is that is cast to this type; modifiers, as a length, are left to the cast. `None` for a type whose values are read from text here: a name for
/// an oid, and a vector, whose length is another's.
pub(super) fn parameter_type(sql_type: &SqlType) -> Option<DataType> {
    let field = field_of(sql_type).ok()?;
    match parameter_of(&field) {
        // A reg type.
        DataType::Int64 if field.metadata().contains_key(PG_TYPE) => None,
        DataType::FixedSizeList(..) => None,
        data_type => Some(data_type),
    }
}

/// What a parameter is that has the type of this field. The protocol's oid is unsigned; columns of oids are wider, so that they compare with any integer. A numeric
/// parameter has all of its digits, whatever those of the number beside it.
pub(super) fn parameter_of(field: &Field) -> DataType {
    match field.metadata().get(PG_TYPE) {
        Some(name) if name == "oid" => DataType::UInt32,
        _ => match field.data_type() {
            DataType::Decimal128(..) => DataType::Decimal128(NUMERIC_PRECISION, NUMERIC_SCALE),
            data_type => data_type.clone(),
        },
    }
}

/// The Arrow field of a SQL type where no column is made: `vector` without its number of dimensions stands for any.
///
/// # Errors
/// As [`field_of`].
pub fn value_field_of(sql_type: &SqlType) -> Result<Field, SqlError> {
    match sql_type {
        open if is_open_vector(open) => Ok(Field::new("", vector(0), true)),
        other => field_of(other),
    }
}

/// Whether a type is `vector` without its number of dimensions.
pub(super) fn is_open_vector(sql_type: &SqlType) -> bool {
    matches!(sql_type, SqlType::Custom(name, modifiers) if modifiers.is_empty() && type_name(name) == "vector")
}

/// `vector(dimensions)` in a syntax tree.
pub(crate) fn vector_type_name(dimensions: usize) -> SqlType {
    let name = ObjectName(vec![ObjectNamePart::Identifier(sqlparser::ast::Ident::new("vector"))]);
    SqlType::Custom(name, vec![dimensions.to_string()])
}

/// The type of a vector of `dimensions` elements; 0 stands for any.
pub fn vector(dimensions: i32) -> DataType {
    DataType::FixedSizeList(Arc::new(Field::new("item", DataType::Float32, true)), dimensions)
}

/// The number of dimensions of a vector's type; 0 stands for any.
pub fn vector_length(data_type: &DataType) -> Option<i32> {
    match data_type {
        DataType::FixedSizeList(item, length) if *item.data_type() == DataType::Float32 => {
            Some(*length)
        }
        _ => None,
    }
}

/// Plans casts (`x::vector(3)`) with the mapping of column types.
#[derive(Debug)]
pub struct PostgresTypes;

impl TypePlanner for PostgresTypes {
    fn plan_type_field(&self, sql_type: &SqlType) -> Result<Option<FieldRef>> {
        match value_field_of(sql_type) {
            Ok(field) => Ok(Some(Arc::new(field))),
            Err(error) => Err(datafusion::error::DataFusionError::External(Box::new(error))),
        }
    }
}
