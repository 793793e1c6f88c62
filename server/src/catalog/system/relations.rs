//! The shape of every relation in `pg_catalog` and `information_schema`: names, OIDs, columns and their types.
//!
//! Clients look for columns by name, and one that is missing usually empties their whole tree, so the list is
//! PostgreSQL 15's own and complete: `data/relations.tsv` has a line a relation, written by a query over a real
//! server's pg_class and pg_attribute. What rows they hold is not decided here; a relation for which nobody makes rows is empty.
//!
//! Rows are made one at a time from [`Value`]s and turned into Arrow columns here, so that those who make rows do not
//! think about Arrow.

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Decimal128Builder, Float32Builder, Float64Builder,
    Int16Builder, Int32Builder, Int64Builder, IntervalMonthDayNanoBuilder, ListArray, RecordBatch,
    RecordBatchOptions, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, IntervalUnit, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use thanosql_protocol::types::PG_TYPE_KEY;

/// `schema.relation`, OID, relkind (`f` for a function without arguments that stands in FROM), and `column:type` with `!` where it is NOT NULL.
const RELATIONS: &str = include_str!("data/relations.tsv");

/// The two schemas that this module describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum SystemSchema {
    PgCatalog,
    InformationSchema,
}

impl SystemSchema {
    pub(super) fn name(self) -> &'static str {
        match self {
            SystemSchema::PgCatalog => "pg_catalog",
            SystemSchema::InformationSchema => "information_schema",
        }
    }

    /// The schema's OID in pg_namespace.
    pub(super) fn oid(self) -> i64 {
        match self {
            SystemSchema::PgCatalog => 11,
            SystemSchema::InformationSchema => 13_207,
        }
    }
}

/// A system relation's description.
#[derive(Debug)]
pub(super) struct Relation {
    pub(super) schema: SystemSchema,
    pub(super) name: &'static str,
    pub(super) oid: i64,
    /// `r` or `v`, as in pg_class; `f` for a function in FROM.
    pub(super) kind: &'static str,
    pub(super) columns: Vec<Column>,
    arrow: SchemaRef,
}

/// A column of a system relation.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) not_null: bool,
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    Numeric,
    /// oid, xid and the reg types: an i64, so that DataFusion's integer literals compare without a cast.
    Oid(&'static str),
    /// text and what looks like it; the PostgreSQL name travels in the field's metadata.
    Text(&'static str),
    Bytea,
    TimestampTz,
    Interval,
    ListInt2(&'static str),
    ListOid(&'static str),
    ListText(&'static str),
    ListFloat(&'static str),
}

impl Kind {
    fn parse(name: &'static str) -> Kind {
        match name {
            "boolean" => Kind::Bool,
            "smallint" => Kind::Int2,
            "integer" | "cardinal_number" => Kind::Int4,
            "bigint" => Kind::Int8,
            "real" => Kind::Float4,
            "float8" => Kind::Float8,
            "numeric" => Kind::Numeric,
            "oid" | "xid" | "regproc" | "regtype" => Kind::Oid(name),
            "bytea" => Kind::Bytea,
            "timestamptz" | "time_stamp" => Kind::TimestampTz,
            "interval" => Kind::Interval,
            "int2vector" | "smallint[]" => Kind::ListInt2(name),
            "oidvector" | "oid[]" | "regtype[]" => Kind::ListOid(name),
            "real[]" | "float8[]" => Kind::ListFloat(name),
            "\"char\"" => Kind::Text("char"),
            "name" | "sql_identifier" => Kind::Text("name"),
            "character_data" | "yes_or_no" => Kind::Text("varchar"),
            list if list.ends_with("[]") => Kind::ListText(list),
            _ => Kind::Text("text"),
        }
    }

    /// The OID of the column's PostgreSQL type.
    pub(super) fn type_oid(self) -> i64 {
        match self {
            Kind::Bool => 16,
            Kind::Bytea => 17,
            Kind::Int8 => 20,
            Kind::Int2 => 21,
            Kind::Int4 => 23,
            Kind::Float4 => 700,
            Kind::Float8 => 701,
            Kind::Numeric => 1700,
            Kind::TimestampTz => 1184,
            Kind::Interval => 1186,
            Kind::Oid(name) => match name {
                "xid" => 28,
                "regproc" => 24,
                "regtype" => 2206,
                _ => 26,
            },
            Kind::Text(name) => match name {
                "char" => 18,
                "name" => 19,
                "varchar" => 1043,
                _ => 25,
            },
            Kind::ListInt2(name) => {
                if name == "int2vector" {
                    22
                } else {
                    1005
                }
            }
            Kind::ListOid(name) => {
                if name == "oidvector" {
                    30
                } else {
                    1028
                }
            }
            Kind::ListText(name) => match name {
                "\"char\"[]" => 1002,
                "name[]" => 1003,
                _ => 1009,
            },
            Kind::ListFloat(name) => {
                if name == "real[]" {
                    1021
                } else {
                    1022
                }
            }
        }
    }

    fn data_type(self) -> DataType {
        let list = |item| DataType::List(Arc::new(Field::new("item", item, true)));
        match self {
            Kind::Bool => DataType::Boolean,
            Kind::Int2 => DataType::Int16,
            Kind::Int4 => DataType::Int32,
            Kind::Int8 | Kind::Oid(_) => DataType::Int64,
            Kind::Float4 => DataType::Float32,
            Kind::Float8 => DataType::Float64,
            Kind::Numeric => DataType::Decimal128(38, 0),
            Kind::Text(_) => DataType::Utf8,
            Kind::Bytea => DataType::Binary,
            Kind::TimestampTz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Kind::Interval => DataType::Interval(IntervalUnit::MonthDayNano),
            Kind::ListInt2(_) => list(DataType::Int16),
            Kind::ListOid(_) => list(DataType::Int64),
            Kind::ListText(_) => list(DataType::Utf8),
            Kind::ListFloat(_) => list(DataType::Float64),
        }
    }

    /// The type's name in a field's metadata, where Arrow's type does not tell it.
    fn metadata(self) -> Option<&'static str> {
        match self {
            Kind::Text("text") => None,
            Kind::Oid(name) | Kind::Text(name) => Some(name),
            Kind::ListInt2("int2vector") => Some("int2vector"),
            Kind::ListOid("oidvector") => Some("oidvector"),
            Kind::ListOid("oid[]") => Some("_oid"),
            Kind::ListText("name[]") => Some("_name"),
            Kind::Bool
            | Kind::Int2
            | Kind::Int4
            | Kind::Int8
            | Kind::Float4
            | Kind::Float8
            | Kind::Numeric
            | Kind::Bytea
            | Kind::TimestampTz
            | Kind::Interval
            | Kind::ListInt2(_)
            | Kind::ListOid(_)
            | Kind::ListText(_)
            | Kind::ListFloat(_) => None,
        }
    }

    /// A nullable field of this kind.
    pub(super) fn field(self, name: &str) -> Field {
        let field = Field::new(name, self.data_type(), true);
        match self.metadata() {
            Some(metadata) => field
                .with_metadata(HashMap::from([(PG_TYPE_KEY.to_string(), metadata.to_string())])),
            None => field,
        }
    }

    pub(super) fn is_list(self) -> bool {
        matches!(self.data_type(), DataType::List(_))
    }

    /// Reads COPY's text form of a value of this kind; what does not parse is NULL.
    pub(super) fn parse_value(self, text: &str) -> Value {
        if let Some(items) = self.list_items(text) {
            let item = match self {
                Kind::ListText(_) => Kind::Text("text"),
                Kind::ListFloat(_) => Kind::Float8,
                _ => Kind::Int8,
            };
            return Value::List(items.iter().map(|text| item.parse_value(text)).collect());
        }
        match self {
            Kind::Bool => Value::Bool(text == "t"),
            Kind::Int2 | Kind::Int4 | Kind::Int8 | Kind::Oid(_) => {
                text.parse().map_or(Value::Null, Value::Int)
            }
            Kind::Float4 | Kind::Float8 | Kind::Numeric => {
                text.parse().map_or(Value::Null, Value::Float)
            }
            _ => Value::Text(text.to_string()),
        }
    }

    /// The elements of `{a,b}` (or `1 2` for the vector types), if this is a list.
    fn list_items(self, text: &str) -> Option<Vec<String>> {
        if !self.is_list() {
            return None;
        }
        Some(match array_items(text) {
            Some(items) => items.into_iter().flatten().collect(),
            None => text.split_whitespace().map(str::to_string).collect(),
        })
    }
}

/// The elements of PostgreSQL's text form of a one-dimensional array, `{a,"b c",NULL}`; `None` if it is not one.
pub(super) fn array_items(text: &str) -> Option<Vec<Option<String>>> {
    let inner = text.trim().strip_prefix('{')?.strip_suffix('}')?;
    let mut items = Vec::new();
    let mut rest = inner.chars().peekable();
    if inner.trim().is_empty() {
        return Some(items);
    }
    loop {
        let mut item = String::new();
        let mut quoted = false;
        loop {
            match rest.next() {
                None => {
                    items.push(finish_item(item, quoted));
                    return Some(items);
                }
                Some(',') => break,
                Some('"') => {
                    quoted = true;
                    loop {
                        match rest.next()? {
                            '"' => break,
                            '\\' => item.push(rest.next()?),
                            other => item.push(other),
                        }
                    }
                }
                Some('\\') => item.push(rest.next()?),
                Some('{' | '}') => return None,
                Some(other) => item.push(other),
            }
        }
        items.push(finish_item(item, quoted));
    }
}

fn finish_item(item: String, quoted: bool) -> Option<String> {
    if quoted {
        return Some(item);
    }
    let item = item.trim();
    (!item.eq_ignore_ascii_case("null")).then(|| item.to_string())
}

/// One value of a row.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    /// Integers of any width, and microseconds since 1970 for timestamps.
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Value>),
}

impl From<bool> for Value {
    fn from(value: bool) -> Value {
        Value::Bool(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Value {
        Value::Int(value)
    }
}

impl From<i32> for Value {
    fn from(value: i32) -> Value {
        Value::Int(value.into())
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Value {
        Value::Float(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Value {
        Value::Text(value.to_string())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Value {
        Value::Text(value)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Value {
        value.map_or(Value::Null, Into::into)
    }
}

impl<T: Into<Value>> From<Vec<T>> for Value {
    fn from(values: Vec<T>) -> Value {
        Value::List(values.into_iter().map(Into::into).collect())
    }
}

/// The named values of one row; a column that is not named is NULL, or its type's zero where it may not be NULL.
pub(super) type Row = Vec<(&'static str, Value)>;

/// Every system relation, by schema and name.
pub(super) fn all() -> &'static [Relation] {
    static ALL: LazyLock<Vec<Relation>> =
        LazyLock::new(|| RELATIONS.lines().filter_map(parse_relation).collect());
    &ALL
}

/// The tables and views, without the functions.
pub(super) fn listed() -> impl Iterator<Item = &'static Relation> {
    all().iter().filter(|relation| relation.kind != "f")
}

/// The relation of that name.
pub(super) fn find(schema: SystemSchema, name: &str) -> Option<&'static Relation> {
    static INDEX: LazyLock<HashMap<(SystemSchema, &'static str), &'static Relation>> =
        LazyLock::new(|| {
            all().iter().map(|relation| ((relation.schema, relation.name), relation)).collect()
        });
    INDEX.get(&(schema, name)).copied()
}

/// The kind of a column that has the same name and kind wherever it occurs in the system relations.
pub(super) fn column_kind(name: &str) -> Option<Kind> {
    static KINDS: LazyLock<HashMap<&'static str, Option<Kind>>> = LazyLock::new(|| {
        let mut kinds = HashMap::new();
        for column in all().iter().flat_map(|relation| &relation.columns) {
            kinds
                .entry(column.name)
                .and_modify(|kind| {
                    if *kind != Some(column.kind) {
                        *kind = None;
                    }
                })
                .or_insert(Some(column.kind));
        }
        kinds
    });
    KINDS.get(name).copied().flatten()
}

fn parse_relation(line: &'static str) -> Option<Relation> {
    let mut cells = line.split('\t');
    let (schema, name) = cells.next()?.split_once('.')?;
    let schema = match schema {
        "pg_catalog" => SystemSchema::PgCatalog,
        "information_schema" => SystemSchema::InformationSchema,
        _ => return None,
    };
    let oid = cells.next()?.parse().ok()?;
    let kind = cells.next()?;
    let columns: Vec<Column> = cells
        .next()?
        .split(',')
        .filter_map(|column| {
            let (name, kind) = column.split_once(':')?;
            let not_null = kind.ends_with('!');
            Some(Column { name, kind: Kind::parse(kind.trim_end_matches('!')), not_null })
        })
        .collect();
    let fields: Vec<Field> = columns
        .iter()
        .map(|column| column.kind.field(column.name).with_nullable(!column.not_null))
        .collect();
    Some(Relation { schema, name, oid, kind, columns, arrow: Arc::new(Schema::new(fields)) })
}

impl Relation {
    pub(super) fn arrow_schema(&self) -> SchemaRef {
        Arc::clone(&self.arrow)
    }

    /// Rows as a batch.
    ///
    /// # Errors
    /// A row that does not fit the relation, which is a fault of ours.
    pub(super) fn batch(&self, rows: &[Row]) -> Result<RecordBatch, ArrowError> {
        let columns = self
            .columns
            .iter()
            .enumerate()
            .map(|(position, column)| {
                let zero = if column.not_null { zero(column.kind) } else { Value::Null };
                let values =
                    rows.iter().map(|row| cell(row, column.name, position).unwrap_or(&zero));
                array(column.kind, values, &zero)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        RecordBatch::try_new_with_options(self.arrow_schema(), columns, &options)
    }

    /// Reads rows in COPY's text format with a header line.
    pub(super) fn parse_rows(&self, text: &'static str) -> Vec<Row> {
        let mut lines = text.lines();
        let header: Vec<(&'static str, Kind)> = lines
            .next()
            .unwrap_or_default()
            .split('\t')
            .filter_map(|name| self.columns.iter().find(|column| column.name == name))
            .map(|column| (column.name, column.kind))
            .collect();
        lines
            .map(|line| {
                header
                    .iter()
                    .zip(line.split('\t'))
                    .map(|((name, kind), cell)| {
                        let value =
                            if cell == "\\N" { Value::Null } else { kind.parse_value(cell) };
                        (*name, value)
                    })
                    .collect()
            })
            .collect()
    }
}

/// Rows usually name their columns in order, so the column's position is tried first.
fn cell<'a>(row: &'a Row, name: &str, position: usize) -> Option<&'a Value> {
    match row.get(position) {
        Some((found, value)) if *found == name => Some(value),
        _ => row.iter().find(|(found, _)| *found == name).map(|(_, value)| value),
    }
}

fn zero(kind: Kind) -> Value {
    match kind {
        Kind::Bool => Value::Bool(false),
        Kind::Int2 | Kind::Int4 | Kind::Int8 | Kind::Oid(_) | Kind::TimestampTz => Value::Int(0),
        Kind::Float4 | Kind::Float8 | Kind::Numeric | Kind::Interval => Value::Float(0.0),
        Kind::Text(_) | Kind::Bytea => Value::Text(String::new()),
        Kind::ListInt2(_) | Kind::ListOid(_) | Kind::ListText(_) | Kind::ListFloat(_) => {
            Value::List(Vec::new())
        }
    }
}

/// The values as an Arrow array; `zero` stands in for a NULL.
pub(super) fn array<'a>(
    kind: Kind,
    values: impl Iterator<Item = &'a Value>,
    zero: &'a Value,
) -> Result<ArrayRef, ArrowError> {
    // A NULL in a column that may not have one would make the batch invalid.
    let values = values.map(|value| if *value == Value::Null { zero } else { value });
    Ok(match kind {
        Kind::Bool => {
            let mut builder = BooleanBuilder::new();
            values.for_each(|value| builder.append_option(boolean(value)));
            Arc::new(builder.finish())
        }
        Kind::Int2 => {
            let mut builder = Int16Builder::new();
            values.for_each(|value| {
                builder.append_option(integer(value).and_then(|value| i16::try_from(value).ok()))
            });
            Arc::new(builder.finish())
        }
        Kind::Int4 => {
            let mut builder = Int32Builder::new();
            values.for_each(|value| {
                builder.append_option(integer(value).and_then(|value| i32::try_from(value).ok()))
            });
            Arc::new(builder.finish())
        }
        Kind::Int8 | Kind::Oid(_) => {
            let mut builder = Int64Builder::new();
            values.for_each(|value| builder.append_option(integer(value)));
            Arc::new(builder.finish())
        }
        Kind::Float4 => {
            let mut builder = Float32Builder::new();
            values.for_each(|value| builder.append_option(float(value).map(|value| value as f32)));
            Arc::new(builder.finish())
        }
        Kind::Float8 => {
            let mut builder = Float64Builder::new();
            values.for_each(|value| builder.append_option(float(value)));
            Arc::new(builder.finish())
        }
        Kind::Numeric => {
            let mut builder = Decimal128Builder::new().with_data_type(kind.data_type());
            values.for_each(|value| builder.append_option(float(value).map(|value| value as i128)));
            Arc::new(builder.finish())
        }
        Kind::Text(_) => {
            let mut builder = StringBuilder::new();
            values.for_each(|value| builder.append_option(text(value)));
            Arc::new(builder.finish())
        }
        Kind::Bytea => {
            let mut builder = BinaryBuilder::new();
            values.for_each(|value| builder.append_option(text(value)));
            Arc::new(builder.finish())
        }
        Kind::TimestampTz => {
            let mut builder = TimestampMicrosecondBuilder::new().with_timezone("UTC");
            values.for_each(|value| builder.append_option(integer(value)));
            Arc::new(builder.finish())
        }
        Kind::Interval => {
            let mut builder = IntervalMonthDayNanoBuilder::new();
            values.for_each(|_| builder.append_null());
            Arc::new(builder.finish())
        }
        Kind::ListInt2(_) => list(Kind::Int2, values)?,
        Kind::ListOid(_) => list(Kind::Int8, values)?,
        Kind::ListText(_) => list(Kind::Text("text"), values)?,
        Kind::ListFloat(_) => list(Kind::Float8, values)?,
    })
}

fn list<'a>(item: Kind, values: impl Iterator<Item = &'a Value>) -> Result<ArrayRef, ArrowError> {
    let mut lengths = Vec::new();
    let mut valid = Vec::new();
    let mut items = Vec::new();
    for value in values {
        let elements: &[Value] = if let Value::List(elements) = value { elements } else { &[] };
        lengths.push(elements.len());
        valid.push(matches!(value, Value::List(_)));
        items.extend(elements);
    }
    let items = array(item, items.into_iter(), &Value::Null)?;
    let field = Arc::new(Field::new("item", item.data_type(), true));
    let nulls = NullBuffer::from(valid);
    Ok(Arc::new(ListArray::try_new(
        field,
        OffsetBuffer::from_lengths(lengths),
        items,
        Some(nulls),
    )?))
}

fn boolean(value: &Value) -> Option<bool> {
    if let Value::Bool(value) = value { Some(*value) } else { None }
}

fn integer(value: &Value) -> Option<i64> {
    if let Value::Int(value) = value { Some(*value) } else { None }
}

fn float(value: &Value) -> Option<f64> {
    match value {
        Value::Float(value) => Some(*value),
        Value::Int(value) => Some(*value as f64),
        Value::Null | Value::Bool(_) | Value::Text(_) | Value::List(_) => None,
    }
}

fn text(value: &Value) -> Option<&str> {
    if let Value::Text(value) = value { Some(value) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_list_is_a_relation() {
        assert_eq!(all().len(), RELATIONS.lines().count());
        assert!(all().iter().all(|relation| !relation.columns.is_empty()));
        let class = find(SystemSchema::PgCatalog, "pg_class").unwrap();
        assert_eq!((class.oid, class.kind), (1259, "r"));
        assert_eq!(class.columns[0].kind, Kind::Oid("oid"));
    }

    #[test]
    fn arrays_are_read_as_postgresql_writes_them() {
        let items = |text| {
            array_items(text).map(|items| {
                items.into_iter().map(|item| item.unwrap_or("-".into())).collect::<Vec<_>>()
            })
        };
        assert_eq!(items("{}"), Some(vec![]));
        assert_eq!(items("{r,p}"), Some(vec!["r".into(), "p".into()]));
        assert_eq!(
            items(r#"{"a,b", NULL ,"NULL","\"c\\"}"#),
            Some(vec!["a,b".into(), "-".into(), "NULL".into(), "\"c\\".into()])
        );
        assert_eq!(items("r,p"), None);
    }

    #[test]
    fn a_column_that_may_not_be_null_gets_its_zero() {
        let class = find(SystemSchema::PgCatalog, "pg_class").unwrap();
        let batch = class.batch(&[vec![("relname", "t".into()), ("oid", 7.into())]]).unwrap();
        assert_eq!(batch.num_rows(), 1);
        assert_eq!(batch.column_by_name("relkind").unwrap().null_count(), 0);
        assert_eq!(batch.column_by_name("relacl").unwrap().null_count(), 1);
    }
}
