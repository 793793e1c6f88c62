//! JSON as ThanoSQL's COPY reads it: an array of objects, or objects one after the other (a line each, as .jsonl has them).
//!
//! An object is a row, its keys are columns, in the order in which they first appear; a key that a row lacks is NULL there.
//! A column of numbers is bigint, numeric or double precision, of texts text, of booleans boolean, of arrays of one of these
//! an array. Everything deeper (objects, arrays within arrays, arrays of several kinds, or several kinds of which one is
//! an object or an array) becomes json, as it was written. Different scalars in one column become text.
//!
//! Rows are read one at a time, so a file of any size takes the memory of its longest row.

#![allow(clippy::wildcard_enum_match_arm)] // a value of another kind than its column's is wrong whatever it is

use std::cell::RefCell;
use std::fmt;
use std::io::{BufReader, Cursor, Read};
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Decimal128Array, Float64Array, Int64Array, ListArray, StringArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use thanosql_protocol::{SqlError, SqlState};
use tokio_util::sync::CancellationToken;

use super::assign;
use super::{MAX_COLUMNS, open_file};
use crate::error::{check_stop, io_error};
use crate::exec::append::{CHUNK_BYTES, CHUNK_ROWS, Chunk, Places};
use crate::files::shown_name;
use crate::plan::types::PG_TYPE;

/// Digits of a numeric without a fraction.
const NUMERIC_DIGITS: u8 = 38;
/// Rows between two looks at whether the statement was stopped.
const ROWS_BETWEEN_CHECKS: u64 = 1024;

/// Rows of JSON whose columns are known.
#[derive(Debug)]
pub(super) struct JsonRows {
    input: Input,
    columns: Vec<Column>,
}

#[derive(Debug)]
enum Input {
    File(PathBuf),
    Text(String),
}

#[derive(Debug)]
struct Column {
    name: String,
    kinds: Kinds,
}

impl JsonRows {
    /// The rows of a file. Blocking: reads it once, to know its columns.
    ///
    /// # Errors
    /// 22P02 for what is no JSON, with its line.
    pub(super) fn of_file(path: PathBuf, stop: &CancellationToken) -> Result<JsonRows, SqlError> {
        JsonRows::of(Input::File(path), stop)
    }

    /// The rows of a text.
    ///
    /// # Errors
    /// As [`JsonRows::of_file`].
    pub(super) fn of_text(text: &str, stop: &CancellationToken) -> Result<JsonRows, SqlError> {
        JsonRows::of(Input::Text(text.to_string()), stop)
    }

    fn of(input: Input, stop: &CancellationToken) -> Result<JsonRows, SqlError> {
        let mut columns: Vec<Column> = Vec::new();
        let mut rows = 0;
        input.for_each_row(&mut |row| {
            rows += 1;
            if rows % ROWS_BETWEEN_CHECKS == 0 {
                check_stop(stop)?;
            }
            for (place, (name, value)) in row.0.into_iter().enumerate() {
                // Rows mostly have the same keys in the same order.
                let known = match columns.get(place) {
                    Some(column) if column.name == name => Some(place),
                    Some(_) | None => columns.iter().position(|column| column.name == name),
                };
                let index = match known {
                    Some(index) => index,
                    None if columns.len() >= MAX_COLUMNS => {
                        return Err(SqlError::new(
                            SqlState::TOO_MANY_COLUMNS,
                            format!("tables can have at most {MAX_COLUMNS} columns"),
                        )
                        .with_detail(format!("Row {rows} has one more.")));
                    }
                    None => {
                        columns.push(Column { name, kinds: Kinds::default() });
                        columns.len() - 1
                    }
                };
                columns[index].kinds.see(&value);
            }
            Ok(())
        })?;
        Ok(JsonRows { input, columns })
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|column| column.name.as_str())
    }

    pub(super) fn schema(&self) -> SchemaRef {
        let fields: Vec<Field> =
            self.columns.iter().map(|column| column.kinds.field(&column.name)).collect();
        Arc::new(Schema::new(fields))
    }

    /// Hands over all rows as values of `fields`. Blocking.
    pub(super) fn read(
        self,
        table: &str,
        fields: &[Field],
        emit: &mut dyn FnMut(Chunk) -> Result<(), SqlError>,
    ) -> Result<(), SqlError> {
        let own = self.schema();
        let mut values: Vec<Vec<Value>> = vec![Vec::new(); own.fields().len()];
        let mut first = 1;
        let mut count = 0;
        let mut bytes = 0;
        let mut hand_over = |values: &mut [Vec<Value>], first: u64, count: usize| {
            let arrays: Vec<ArrayRef> = values
                .iter_mut()
                .zip(own.fields())
                .map(|(values, field)| array(&std::mem::take(values), field.data_type()))
                .collect::<Result<_, SqlError>>()?;
            let places = Places::Rows { first, count };
            let columns = assign::columns(table, &arrays, fields, &places)?;
            emit(Chunk { columns, places })
        };
        self.input.for_each_row(&mut |row| {
            count += 1;
            for (place, (name, value)) in row.0.into_iter().enumerate() {
                let index = match self.columns.get(place) {
                    Some(column) if column.name == name => place,
                    Some(_) | None => self
                        .columns
                        .iter()
                        .position(|column| column.name == name)
                        .ok_or_else(|| changed(&name))?,
                };
                bytes += value.size();
                values[index].push(value);
            }
            for column in &mut values {
                column.resize(count, Value::Null);
            }
            if count >= CHUNK_ROWS || bytes >= CHUNK_BYTES {
                hand_over(&mut values, first, count)?;
                first += count as u64;
                count = 0;
                bytes = 0;
            }
            Ok(())
        })?;
        hand_over(&mut values, first, count)
    }
}

/// The file was written to between the two times that it was read.
fn changed(name: &str) -> SqlError {
    SqlError::new(
        SqlState::OBJECT_IN_USE,
        format!("the file changed while it was read: column \"{name}\" is new"),
    )
}

impl Input {
    fn name(&self) -> String {
        match self {
            Input::File(path) => shown_name(path).into_owned(),
            Input::Text(_) => "the rows of the statement".to_string(),
        }
    }

    fn for_each_row(
        &self,
        each: &mut dyn FnMut(Row) -> Result<(), SqlError>,
    ) -> Result<(), SqlError> {
        match self {
            Input::File(path) => {
                let mut file = BufReader::with_capacity(256 * 1024, open_file(path)?);
                skip_mark(&mut file).map_err(|error| io_error(&error))?;
                self.rows_of(file, each)
            }
            Input::Text(text) => self.rows_of(Cursor::new(text.as_bytes()), each),
        }
    }

    fn rows_of(
        &self,
        input: impl Read,
        each: &mut dyn FnMut(Row) -> Result<(), SqlError>,
    ) -> Result<(), SqlError> {
        // serde carries texts only; an error of ours waits here for its way out.
        let ours: RefCell<Option<SqlError>> = RefCell::new(None);
        let rows = Rows { each: RefCell::new(each), failed: &ours };
        let mut parser = serde_json::Deserializer::from_reader(input);
        let mut outcome = Ok(());
        // Whatever stands one after the other: one array, or many objects.
        while outcome.is_ok() {
            match parser.end() {
                Ok(()) => break,
                Err(error) if error.is_io() => outcome = Err(error),
                Err(_) => outcome = (&rows).deserialize(&mut parser),
            }
        }
        if let Some(error) = ours.take() {
            return Err(error);
        }
        outcome.map_err(|error| self.malformed(&error))
    }

    fn malformed(&self, error: &serde_json::Error) -> SqlError {
        if let Some(kind) = error.io_error_kind() {
            return match kind {
                std::io::ErrorKind::InvalidData => {
                    SqlError::new(SqlState::CHARACTER_NOT_IN_REPERTOIRE, error.to_string())
                }
                kind => io_error(&kind.into()),
            };
        }
        let text = error.to_string();
        // The library appends the place, which is told in our own words.
        let reason = text.split(" at line ").next().unwrap_or_default();
        SqlError::new(SqlState::INVALID_TEXT_REPRESENTATION, "invalid input syntax for type json")
            .with_detail(format!(
                "{}, line {}, column {}: {reason}",
                self.name(),
                error.line(),
                error.column()
            ))
    }
}

/// Passes over a byte order mark.
fn skip_mark(input: &mut BufReader<std::fs::File>) -> std::io::Result<()> {
    use std::io::BufRead as _;
    if input.fill_buf()?.starts_with(b"\xEF\xBB\xBF") {
        input.consume(3);
    }
    Ok(())
}

/// Hands over each row of an array, or one that stands alone.
struct Rows<'a> {
    each: RefCell<&'a mut dyn FnMut(Row) -> Result<(), SqlError>>,
    failed: &'a RefCell<Option<SqlError>>,
}

impl Rows<'_> {
    fn hand_over<E: serde::de::Error>(&self, row: Row) -> Result<(), E> {
        (self.each.borrow_mut())(row).map_err(|error| {
            self.failed.replace(Some(error));
            E::custom("refused")
        })
    }
}

impl<'de> DeserializeSeed<'de> for &Rows<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &Rows<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object, whose keys are the row's columns, or an array of them")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        self.hand_over(RowVisitor.visit_map(map)?)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        while let Some(row) = elements.next_element_seed(RowVisitor)? {
            self.hand_over(row)?;
        }
        Ok(())
    }
}

/// One row: names and values, in order.
#[derive(Debug, PartialEq)]
struct Row(Vec<(String, Value)>);

struct RowVisitor;

impl<'de> DeserializeSeed<'de> for RowVisitor {
    type Value = Row;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Row, D::Error> {
        input.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for RowVisitor {
    type Value = Row;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object, whose keys are the row's columns")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Row, A::Error> {
        let values = entries(map)?;
        for (index, (name, _)) in values.iter().enumerate() {
            if values[..index].iter().any(|(other, _)| other == name) {
                return Err(A::Error::custom(format!("the key \"{name}\" stands twice in a row")));
            }
        }
        Ok(Row(values))
    }
}

fn entries<'de, A: MapAccess<'de>>(mut map: A) -> Result<Vec<(String, Value)>, A::Error> {
    let mut values = Vec::with_capacity(map.size_hint().unwrap_or(0).min(64));
    while let Some(name) = map.next_key::<String>()? {
        let value = map.next_value_seed(ValueSeed)?;
        values.push((name, value));
    }
    Ok(values)
}

/// A JSON value that remembers the order of its keys.
#[derive(Clone, Debug, PartialEq)]
enum Value {
    Null,
    Boolean(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Value>),
    Object(Vec<(String, Value)>),
}

impl Value {
    /// Bytes that it takes, about.
    fn size(&self) -> usize {
        match self {
            Value::Null | Value::Boolean(_) | Value::Integer(_) | Value::Float(_) => 16,
            Value::Text(text) => 16 + text.len(),
            Value::List(values) => 16 + values.iter().map(Value::size).sum::<usize>(),
            Value::Object(values) => {
                values.iter().map(|(name, value)| 16 + name.len() + value.size()).sum::<usize>()
            }
        }
    }

    /// What a column of text has for it: a text itself, anything else as JSON writes it.
    fn plain(&self) -> Option<String> {
        match self {
            Value::Null => None,
            Value::Text(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        match self {
            Value::Null => f.write_str("null"),
            Value::Boolean(value) => write!(f, "{value}"),
            Value::Integer(value) => write!(f, "{value}"),
            Value::Float(value) => write!(f, "{}", serde_json::Value::from(*value)),
            Value::Text(text) => f.write_str(&quoted(text)),
            Value::List(values) => {
                f.write_str("[")?;
                for (index, value) in values.iter().enumerate() {
                    write!(f, "{}{value}", if index == 0 { "" } else { "," })?;
                }
                f.write_str("]")
            }
            Value::Object(values) => {
                f.write_str("{")?;
                for (index, (name, value)) in values.iter().enumerate() {
                    let comma = if index == 0 { "" } else { "," };
                    write!(f, "{comma}{}:{value}", quoted(name))?;
                }
                f.write_str("}")
            }
        }
    }
}

struct ValueSeed;

impl<'de> DeserializeSeed<'de> for ValueSeed {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Value, D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueSeed {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Boolean(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Value, E> {
        if value.contains('\0') {
            return Err(E::custom("\\u0000 cannot be converted to text"));
        }
        Ok(Value::Text(value.to_string()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = elements.next_element_seed(ValueSeed)? {
            values.push(value);
        }
        Ok(Value::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Value, A::Error> {
        entries(map).map(Value::Object)
    }
}

/// Which kinds of values a column has.
#[derive(Debug, Default)]
struct Kinds {
    boolean: bool,
    integer: bool,
    /// An integer that is no bigint.
    large: bool,
    float: bool,
    text: bool,
    object: bool,
    /// What the arrays hold.
    list: Option<Box<Kinds>>,
}

impl Kinds {
    fn see(&mut self, value: &Value) {
        match value {
            Value::Null => {}
            Value::Boolean(_) => self.boolean = true,
            Value::Integer(value) => {
                self.integer = true;
                self.large |= i64::try_from(*value).is_err();
            }
            Value::Float(_) => self.float = true,
            Value::Text(_) => self.text = true,
            Value::Object(_) => self.object = true,
            Value::List(values) => {
                let elements = self.list.get_or_insert_default();
                values.iter().for_each(|value| elements.see(value));
            }
        }
    }

    /// The type of a column of such values; `None` is json.
    fn data_type(&self) -> Option<DataType> {
        let number = self.integer || self.float;
        let kinds = [self.boolean, number, self.text, self.list.is_some(), self.object];
        let different = kinds.iter().filter(|kind| **kind).count();
        match &self.list {
            _ if self.object => None,
            Some(elements) if different == 1 => {
                let element = match (elements.scalar_kinds(), elements.data_type()?) {
                    (0 | 1, element @ (DataType::Boolean | DataType::Utf8)) => element,
                    (0 | 1, element) if element.is_numeric() => element,
                    _ => return None,
                };
                Some(DataType::new_list(element, true))
            }
            Some(_) => None,
            None if different > 1 => Some(DataType::Utf8),
            None if self.boolean => Some(DataType::Boolean),
            None if self.float => Some(DataType::Float64),
            None if self.large => Some(DataType::Decimal128(NUMERIC_DIGITS, 0)),
            None if self.integer => Some(DataType::Int64),
            None => Some(DataType::Utf8),
        }
    }

    fn scalar_kinds(&self) -> usize {
        let number = self.integer || self.float;
        [self.boolean, number, self.text].iter().filter(|kind| **kind).count()
    }

    fn field(&self, name: &str) -> Field {
        match self.data_type() {
            Some(data_type) => Field::new(name, data_type, true),
            None => Field::new(name, DataType::Utf8, true)
                .with_metadata([(PG_TYPE.to_string(), "json".to_string())].into_iter().collect()),
        }
    }
}

/// Values of a column whose type [`Kinds`] chose.
fn array(values: &[Value], data_type: &DataType) -> Result<ArrayRef, SqlError> {
    let wrong = |value: &Value| {
        SqlError::new(
            SqlState::OBJECT_IN_USE,
            format!("the file changed while it was read: {value} is no value of its column"),
        )
    };
    Ok(match data_type {
        DataType::Boolean => {
            let values = values.iter().map(|value| match value {
                Value::Null => Ok(None),
                Value::Boolean(value) => Ok(Some(*value)),
                other => Err(wrong(other)),
            });
            Arc::new(values.collect::<Result<BooleanArray, SqlError>>()?)
        }
        DataType::Int64 => {
            let values = values.iter().map(|value| match value {
                Value::Null => Ok(None),
                Value::Integer(integer) => {
                    i64::try_from(*integer).map(Some).map_err(|_| wrong(value))
                }
                other => Err(wrong(other)),
            });
            Arc::new(values.collect::<Result<Int64Array, SqlError>>()?)
        }
        DataType::Decimal128(precision, scale) => {
            let values = values.iter().map(|value| match value {
                Value::Null => Ok(None),
                Value::Integer(integer) => Ok(Some(*integer)),
                other => Err(wrong(other)),
            });
            let values = values.collect::<Result<Decimal128Array, SqlError>>()?;
            let values = values.with_precision_and_scale(*precision, *scale);
            Arc::new(values.map_err(crate::error::arrow_error)?)
        }
        DataType::Float64 => {
            let values = values.iter().map(|value| match value {
                Value::Null => Ok(None),
                Value::Integer(integer) => Ok(Some(*integer as f64)),
                Value::Float(float) => Ok(Some(*float)),
                other => Err(wrong(other)),
            });
            Arc::new(values.collect::<Result<Float64Array, SqlError>>()?)
        }
        DataType::List(element) => {
            let mut offsets = vec![0_i32];
            let mut valid = Vec::with_capacity(values.len());
            let mut elements = Vec::new();
            for value in values {
                match value {
                    Value::Null => valid.push(false),
                    Value::List(inner) => {
                        valid.push(true);
                        elements.extend(inner.iter().cloned());
                    }
                    other => return Err(wrong(other)),
                }
                let end = i32::try_from(elements.len()).map_err(|_| {
                    SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, "an array is too long")
                })?;
                offsets.push(end);
            }
            let child = array(&elements, element.data_type())?;
            let list = ListArray::try_new(
                element.clone(),
                OffsetBuffer::new(offsets.into()),
                child,
                Some(NullBuffer::from(valid)),
            );
            Arc::new(list.map_err(crate::error::arrow_error)?)
        }
        _ => Arc::new(values.iter().map(Value::plain).collect::<StringArray>()),
    })
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::Int64Type;

    use super::*;

    fn rows(text: &str) -> Result<JsonRows, SqlError> {
        JsonRows::of(Input::Text(text.to_string()), &CancellationToken::new())
    }

    fn read(text: &str) -> Vec<ArrayRef> {
        let rows = rows(text).unwrap();
        let schema = rows.schema();
        let fields: Vec<Field> =
            schema.fields().iter().map(|field| field.as_ref().clone()).collect();
        let mut columns = Vec::new();
        rows.read("t", &fields, &mut |chunk| {
            columns = chunk.columns;
            Ok(())
        })
        .unwrap();
        columns
    }

    #[test]
    fn columns_come_in_the_order_in_which_keys_appear() {
        let text = r#"[{"b": 1, "가": "x"}, {"a": true, "b": null}]"#;
        let names: Vec<String> = rows(text).unwrap().names().map(str::to_string).collect();
        assert_eq!(names, ["b", "가", "a"]);
        let columns = read(text);
        assert_eq!(columns[0].as_ref(), &Int64Array::from(vec![Some(1), None]) as &dyn Array);
        assert_eq!(columns[1].as_ref(), &StringArray::from(vec![Some("x"), None]) as &dyn Array);
        assert_eq!(columns[2].as_ref(), &BooleanArray::from(vec![None, Some(true)]) as &dyn Array);
    }

    #[test]
    fn types_are_those_of_all_values() {
        let check = |values: &str, expect: Option<DataType>| {
            let text: String =
                values.split('|').map(|value| format!("{{\"a\":{value}}}\n")).collect();
            let rows = rows(&text).unwrap();
            assert_eq!(rows.columns[0].kinds.data_type(), expect, "{values}");
        };
        let list = |element| Some(DataType::new_list(element, true));
        check("null", Some(DataType::Utf8));
        check("1|null|-2", Some(DataType::Int64));
        check("1|2.5", Some(DataType::Float64));
        check("1|18446744073709551615", Some(DataType::Decimal128(38, 0)));
        check("1|\"x\"|true", Some(DataType::Utf8));
        check("\"2022-06-01\"", Some(DataType::Utf8));
        check("[1,2]|[]|null", list(DataType::Int64));
        check("[1,2.5]", list(DataType::Float64));
        check("[\"x\",null]", list(DataType::Utf8));
        check("[]", list(DataType::Utf8));
        check("[1,\"x\"]", None);
        check("[[1],[2]]", None);
        check("[{\"b\":1}]", None);
        check("{\"b\":1}|1", None);
        check("[1]|1", None);
    }

    #[test]
    fn what_is_deep_stays_as_it_was_written() {
        let columns = read(r#"[{"a": {"z": [1, "\"", null], "b": 1.5}}, {"a": null}, {"a": 7}]"#);
        let texts = columns[0].as_string::<i32>();
        assert_eq!(texts.value(0), r#"{"z":[1,"\"",null],"b":1.5}"#);
        assert!(texts.is_null(1));
        assert_eq!(texts.value(2), "7");
    }

    #[test]
    fn arrays_keep_their_nulls() {
        let columns = read(r#"[{"a": [1, null]}, {"a": null}, {"a": []}]"#);
        let lists = columns[0].as_list::<i32>();
        assert_eq!((lists.len(), lists.null_count()), (3, 1));
        assert_eq!(lists.value(0).as_primitive::<Int64Type>().null_count(), 1);
        assert_eq!(lists.value(2).len(), 0);
    }

    #[test]
    fn lines_of_objects_and_arrays_are_rows_alike() {
        assert_eq!(read("{\"a\":1}\n{\"a\":2}\n\n")[0].len(), 2);
        assert_eq!(read("\n [ {\"a\":1}, {\"a\":2} ] \n")[0].len(), 2);
        assert!(rows("").unwrap().columns.is_empty());
        assert!(rows("[]").unwrap().columns.is_empty());
    }

    #[test]
    fn broken_json_says_where() {
        let check = |text: &str, place: &str| {
            let error = rows(text).unwrap_err();
            assert_eq!(error.code, SqlState::INVALID_TEXT_REPRESENTATION, "{text}");
            let detail = error.detail.unwrap();
            assert!(detail.contains(place), "{text}: {detail}");
        };
        check("[{\"a\":1},\n{\"a\":}]", "line 2, column 6");
        check("[{\"a\":1}", "line 1");
        check("[{\"a\":1}, 5]", "an object, whose keys");
        check("[{\"a\":1}] x", "line 1");
        check("{\"a\":1}\n{\"a\":", "line 2");
        check("5", "an object, whose keys");
        check("[{\"a\":1,\"a\":2}]", "stands twice");
        check("[{\"a\":\"\\u0000\"}]", "u0000");
        let deep = format!("[{{\"a\":{}}}]", "[".repeat(100_000));
        check(&deep, "recursion limit");
    }
}
