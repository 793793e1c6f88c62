//! The functions of `pg_catalog` that clients call: visibility, privileges, descriptions, definitions, names of types and
//! roles, sizes, and look-ups of names (`regclass` and its kin).
//!
//! Catalog queries handle tens of rows, so a function here is a plain Rust closure over the values of one row; its entry
//! in [`DEFINITIONS`] says what arguments it takes. Whatever works on user data at speed belongs elsewhere.
//!
//! A text where PostgreSQL takes an OID is read as PostgreSQL's implicit cast of a literal reads it: `'16400'` is the number,
//! `'name'` is looked up where the argument is a `regclass`.

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::datatypes::{
    DataType, Field, FieldRef, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::util::display::array_value_to_string;
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use thanosql_protocol::types::type_oid;
use thanosql_protocol::{SqlError, SqlState};

use super::expand::ExpandArray;
use super::relations::{self, Kind, Value, array_items};
use super::tables::{self, DATABASE, OWNER, SCHEMAS};
use super::{CatalogSource, ObjectDescription, TEMPORARY_SCHEMA, constraints, types};
use crate::catalog::sequences::{ColumnSequence, sequences_of};
use crate::sql::quote_ident;

/// What an argument is read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arg {
    Text,
    /// An OID or a number; a text is parsed.
    Int,
    Bool,
    /// An OID, or a relation's name.
    Relation,
    /// Any value.
    Any,
    /// Any number of further values.
    Rest,
}

/// One call: who asks, the values, and the fields that they came from.
struct Call<'a> {
    source: &'a dyn CatalogSource,
    values: &'a [Value],
    fields: &'a [FieldRef],
}

impl Call<'_> {
    fn text(&self, position: usize) -> &str {
        if let Some(Value::Text(text)) = self.values.get(position) { text } else { "" }
    }

    fn int(&self, position: usize) -> i64 {
        if let Some(Value::Int(number)) = self.values.get(position) { *number } else { 0 }
    }

    fn bool(&self, position: usize) -> bool {
        matches!(self.values.get(position), Some(Value::Bool(true)))
    }

    fn list(&self, position: usize) -> &[Value] {
        if let Some(Value::List(values)) = self.values.get(position) { values } else { &[] }
    }

    fn object(&self, oid: i64) -> Option<ObjectDescription> {
        self.source.objects().into_iter().find(|object| i64::from(object.oid) == oid)
    }
}

type Body = fn(&Call<'_>) -> Result<Value, SqlError>;

/// A function: its name, the argument lists it takes, what it gives, and how.
struct Definition {
    name: &'static str,
    overloads: &'static [&'static [Arg]],
    result: Kind,
    volatility: Volatility,
    /// NULL as soon as an argument is NULL.
    strict: bool,
    body: Body,
}

const TEXT: Kind = Kind::Text("text");
const NAME: Kind = Kind::Text("name");
const OID: Kind = Kind::Oid("oid");

const fn stable(
    name: &'static str,
    overloads: &'static [&'static [Arg]],
    result: Kind,
    body: Body,
) -> Definition {
    Definition { name, overloads, result, volatility: Volatility::Stable, strict: true, body }
}

const fn lenient(
    name: &'static str,
    overloads: &'static [&'static [Arg]],
    result: Kind,
    body: Body,
) -> Definition {
    Definition { name, overloads, result, volatility: Volatility::Stable, strict: false, body }
}

const fn volatile(
    name: &'static str,
    overloads: &'static [&'static [Arg]],
    result: Kind,
    body: Body,
) -> Definition {
    Definition { name, overloads, result, volatility: Volatility::Volatile, strict: true, body }
}

/// `(what, privilege)` and `(user, what, privilege)`.
const PRIVILEGE: &[&[Arg]] = &[&[Arg::Any, Arg::Text], &[Arg::Any, Arg::Any, Arg::Text]];
const NONE: &[&[Arg]] = &[&[]];
const ONE_OID: &[&[Arg]] = &[&[Arg::Int]];
const ONE_RELATION: &[&[Arg]] = &[&[Arg::Relation]];
const ONE_TEXT: &[&[Arg]] = &[&[Arg::Text]];
const DEFINITIONS: &[Definition] = &[
    // The session
    stable("version", NONE, TEXT, |_| Ok(super::version().into())),
    stable("current_database", NONE, NAME, |call| Ok(call.source.database().into())),
    stable("current_catalog", NONE, NAME, |call| Ok(call.source.database().into())),
    stable("current_schema", NONE, NAME, |_| Ok("public".into())),
    stable("current_schemas", &[&[Arg::Bool]], Kind::ListText("name[]"), |call| {
        Ok(if call.bool(0) { vec!["pg_catalog", "public"] } else { vec!["public"] }.into())
    }),
    stable("current_user", NONE, NAME, |call| Ok(call.source.user().into())),
    stable("session_user", NONE, NAME, |call| Ok(call.source.user().into())),
    stable("current_role", NONE, NAME, |call| Ok(call.source.user().into())),
    stable("user", NONE, NAME, |call| Ok(call.source.user().into())),
    stable("pg_backend_pid", NONE, Kind::Int4, |call| Ok(call.source.connection_id().into())),
    stable("current_setting", &[&[Arg::Text], &[Arg::Text, Arg::Bool]], TEXT, current_setting),
    volatile("set_config", &[&[Arg::Text, Arg::Text, Arg::Bool]], TEXT, |call| {
        Ok(call.source.set(call.text(0), call.text(1), call.bool(2))?.into())
    }),
    stable("pg_is_in_recovery", NONE, Kind::Bool, |_| Ok(false.into())),
    stable("pg_client_encoding", NONE, NAME, |_| Ok("UTF8".into())),
    stable("getdatabaseencoding", NONE, NAME, |_| Ok("UTF8".into())),
    stable("pg_my_temp_schema", NONE, OID, |_| Ok(0.into())),
    stable("pg_is_other_temp_schema", ONE_OID, Kind::Bool, |_| Ok(false.into())),
    volatile("txid_current", NONE, Kind::Int8, |_| Ok(next_transaction_id().into())),
    volatile("pg_current_xact_id", NONE, Kind::Int8, |_| Ok(next_transaction_id().into())),
    // There are no advisory locks, so none is left after this.
    volatile("pg_advisory_unlock_all", NONE, TEXT, |_| Ok("".into())),
    // Visibility
    stable("pg_table_is_visible", ONE_OID, Kind::Bool, table_is_visible),
    stable("pg_type_is_visible", ONE_OID, Kind::Bool, |call| {
        Ok(types::by_oid(call.int(0)).map(|_| true).into())
    }),
    stable("pg_function_is_visible", ONE_OID, Kind::Bool, |_| Ok(true.into())),
    stable("pg_operator_is_visible", ONE_OID, Kind::Bool, |_| Ok(true.into())),
    stable("pg_collation_is_visible", ONE_OID, Kind::Bool, |_| Ok(true.into())),
    stable("pg_conversion_is_visible", ONE_OID, Kind::Bool, |_| Ok(true.into())),
    stable("pg_opclass_is_visible", ONE_OID, Kind::Bool, |_| Ok(true.into())),
    stable("pg_opfamily_is_visible", ONE_OID, Kind::Bool, |_| Ok(true.into())),
    stable("pg_statistics_obj_is_visible", ONE_OID, Kind::Bool, |_| Ok(true.into())),
    stable("pg_ts_config_is_visible", ONE_OID, Kind::Bool, |_| Ok(true.into())),
    stable("pg_ts_dict_is_visible", ONE_OID, Kind::Bool, |_| Ok(true.into())),
    stable("pg_ts_parser_is_visible", ONE_OID, Kind::Bool, |_| Ok(true.into())),
    stable("pg_ts_template_is_visible", ONE_OID, Kind::Bool, |_| Ok(true.into())),
    stable("pg_relation_is_publishable", ONE_RELATION, Kind::Bool, |call| {
        Ok(call
            .object(call.int(0))
            .is_some_and(|object| tables::relkind(object.kind) == "r")
            .into())
    }),
    // Names
    stable("pg_get_userbyid", ONE_OID, NAME, |call| {
        Ok(if call.int(0) == OWNER {
            call.source.user()
        } else {
            format!("unknown (OID={})", call.int(0))
        }
        .into())
    }),
    lenient("format_type", &[&[Arg::Int, Arg::Int]], TEXT, |call| match call.values {
        [Value::Int(oid), Value::Int(modifier)] => {
            Ok(types::format_type(*oid, Some(*modifier)).into())
        }
        [Value::Int(oid), _] => Ok(types::format_type(*oid, None).into()),
        _ => Ok(Value::Null),
    }),
    lenient("pg_typeof", &[&[Arg::Any]], TEXT, |call| {
        Ok(call.fields.first().map(|field| types::format_type(type_oid(field).into(), None)).into())
    }),
    stable("pg_encoding_to_char", ONE_OID, NAME, |call| {
        Ok(match call.int(0) {
            0 => "SQL_ASCII",
            6 => "UTF8",
            _ => "",
        }
        .into())
    }),
    stable("pg_char_to_encoding", ONE_TEXT, Kind::Int4, |call| {
        Ok(match call.text(0).to_lowercase().replace('-', "").as_str() {
            "utf8" | "unicode" => 6,
            "sql_ascii" => 0,
            _ => -1,
        }
        .into())
    }),
    stable("like_escape", &[&[Arg::Text, Arg::Text]], TEXT, |call| {
        like_escape(call.text(0), call.text(1))
    }),
    stable("quote_ident", ONE_TEXT, TEXT, |call| Ok(quote_ident(call.text(0)).into())),
    stable("quote_literal", &[&[Arg::Any]], TEXT, |call| {
        Ok(quote_literal(call.values.first()).into())
    }),
    lenient("quote_nullable", &[&[Arg::Any]], TEXT, |call| {
        Ok(match call.values.first() {
            None | Some(Value::Null) => "NULL".into(),
            value => quote_literal(value).into(),
        })
    }),
    lenient("format", &[&[Arg::Text, Arg::Rest]], TEXT, format_text),
    stable(
        "parse_ident",
        &[&[Arg::Text], &[Arg::Text, Arg::Bool]],
        Kind::ListText("text[]"),
        |call| match parse_ident(call.text(0)) {
            Some(parts) => Ok(parts.into()),
            None => Err(SqlError::new(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("string is not a valid identifier: \"{}\"", call.text(0)),
            )),
        },
    ),
    stable(REG_OID, &[&[Arg::Text, Arg::Any]], OID, |call| reg_oid(call, call.text(0), true)),
    stable(REG_TEXT, &[&[Arg::Text, Arg::Any]], TEXT, |call| {
        match reg_oid(call, call.text(0), true)? {
            Value::Int(oid) => Ok(reg_name(call, call.text(0), oid).into()),
            _ => Ok(Value::Null),
        }
    }),
    stable("to_regclass", ONE_TEXT, OID, |call| reg_look_up(call, "regclass")),
    stable("to_regtype", ONE_TEXT, OID, |call| reg_look_up(call, "regtype")),
    stable("to_regproc", ONE_TEXT, OID, |call| reg_look_up(call, "regproc")),
    stable("to_regnamespace", ONE_TEXT, OID, |call| reg_look_up(call, "regnamespace")),
    stable("to_regrole", ONE_TEXT, OID, |call| reg_look_up(call, "regrole")),
    lenient("json_build_object", &[&[Arg::Rest]], Kind::Text("json"), build_object),
    // Definitions
    stable(
        "pg_get_expr",
        &[&[Arg::Text, Arg::Int], &[Arg::Text, Arg::Int, Arg::Bool]],
        TEXT,
        |call| Ok(call.text(0).into()),
    ),
    stable("pg_get_viewdef", &[&[Arg::Relation], &[Arg::Relation, Arg::Any]], TEXT, |call| {
        let definition = call.object(call.int(0)).and_then(|object| object.definition);
        Ok(definition.map(|text| format!(" {};", text.trim().trim_end_matches(';'))).into())
    }),
    stable(
        "pg_get_indexdef",
        &[&[Arg::Relation], &[Arg::Relation, Arg::Int, Arg::Bool]],
        TEXT,
        |call| Ok(constraints::index_definition(call.source, call.int(0), call.int(1)).into()),
    ),
    stable("pg_get_constraintdef", &[&[Arg::Int], &[Arg::Int, Arg::Bool]], TEXT, |call| {
        Ok(constraints::constraint_definition(call.source, call.int(0), call.bool(1)).into())
    }),
    stable("pg_get_triggerdef", &[&[Arg::Int], &[Arg::Int, Arg::Bool]], TEXT, |_| Ok(Value::Null)),
    stable("pg_get_ruledef", &[&[Arg::Int], &[Arg::Int, Arg::Bool]], TEXT, |_| Ok(Value::Null)),
    stable("pg_get_partkeydef", ONE_OID, TEXT, |_| Ok(Value::Null)),
    stable("pg_get_partition_constraintdef", ONE_OID, TEXT, |_| Ok(Value::Null)),
    stable("pg_get_statisticsobjdef", ONE_OID, TEXT, |_| Ok(Value::Null)),
    stable("pg_get_statisticsobjdef_columns", ONE_OID, TEXT, |_| Ok(Value::Null)),
    stable("pg_get_serial_sequence", &[&[Arg::Text, Arg::Text]], TEXT, serial_sequence),
    volatile("nextval", ONE_RELATION, Kind::Int8, |call| {
        Ok(call.source.next_value(call.int(0))?.into())
    }),
    volatile("currval", ONE_RELATION, Kind::Int8, |call| {
        Ok(call.source.current_value(Some(call.int(0)))?.into())
    }),
    volatile("lastval", NONE, Kind::Int8, |call| Ok(call.source.current_value(None)?.into())),
    volatile(
        "setval",
        &[&[Arg::Relation, Arg::Int], &[Arg::Relation, Arg::Int, Arg::Bool]],
        Kind::Int8,
        |call| {
            let called = call.values.len() < 3 || call.bool(2);
            Ok(call.source.set_value(call.int(0), call.int(1), called)?.into())
        },
    ),
    stable("pg_get_function_sqlbody", ONE_OID, TEXT, |_| Ok(Value::Null)),
    stable("pg_get_functiondef", ONE_OID, TEXT, |_| Ok(Value::Null)),
    stable("pg_get_function_result", ONE_OID, TEXT, |call| {
        Ok(function(call.int(0))
            .map(|function| {
                let set = if function.returns_set { "SETOF " } else { "" };
                format!("{set}{}", types::format_type(function.result, None))
            })
            .into())
    }),
    stable("pg_get_function_arguments", ONE_OID, TEXT, |call| {
        Ok(function_arguments(call.int(0)).into())
    }),
    stable("pg_get_function_identity_arguments", ONE_OID, TEXT, |call| {
        Ok(function_arguments(call.int(0)).into())
    }),
    stable("oidvectortypes", &[&[Arg::Any]], TEXT, |call| {
        let names: Vec<String> = call
            .list(0)
            .iter()
            .filter_map(|value| {
                if let Value::Int(oid) = value {
                    Some(types::format_type(*oid, None))
                } else {
                    None
                }
            })
            .collect();
        Ok(names.join(", ").into())
    }),
    // Descriptions
    stable("obj_description", &[&[Arg::Int], &[Arg::Int, Arg::Text]], TEXT, object_description),
    stable("col_description", &[&[Arg::Int, Arg::Int]], TEXT, |_| Ok(Value::Null)),
    stable("shobj_description", &[&[Arg::Int, Arg::Text]], TEXT, |_| Ok(Value::Null)),
    // Privileges: the one role may do everything with whatever exists
    stable("has_table_privilege", PRIVILEGE, Kind::Bool, |call| privilege(call, "regclass", 1)),
    stable("has_any_column_privilege", PRIVILEGE, Kind::Bool, |call| {
        privilege(call, "regclass", 1)
    }),
    stable(
        "has_column_privilege",
        &[&[Arg::Any, Arg::Any, Arg::Text], &[Arg::Any, Arg::Any, Arg::Any, Arg::Text]],
        Kind::Bool,
        |call| privilege(call, "regclass", 2),
    ),
    stable("has_sequence_privilege", PRIVILEGE, Kind::Bool, |call| privilege(call, "regclass", 1)),
    stable("has_schema_privilege", PRIVILEGE, Kind::Bool, |call| {
        privilege(call, "regnamespace", 1)
    }),
    stable("has_function_privilege", PRIVILEGE, Kind::Bool, |_| Ok(true.into())),
    stable("has_type_privilege", PRIVILEGE, Kind::Bool, |call| privilege(call, "regtype", 1)),
    stable("has_database_privilege", PRIVILEGE, Kind::Bool, |_| Ok(true.into())),
    stable("has_language_privilege", PRIVILEGE, Kind::Bool, |_| Ok(true.into())),
    stable("has_tablespace_privilege", PRIVILEGE, Kind::Bool, |_| Ok(true.into())),
    stable("has_foreign_data_wrapper_privilege", PRIVILEGE, Kind::Bool, |_| Ok(true.into())),
    stable("has_server_privilege", PRIVILEGE, Kind::Bool, |_| Ok(true.into())),
    stable("pg_has_role", PRIVILEGE, Kind::Bool, |_| Ok(true.into())),
    // Sizes
    stable(
        "pg_relation_size",
        &[&[Arg::Relation], &[Arg::Relation, Arg::Text]],
        Kind::Int8,
        relation_size,
    ),
    stable("pg_table_size", ONE_RELATION, Kind::Int8, relation_size),
    stable("pg_total_relation_size", ONE_RELATION, Kind::Int8, relation_size),
    stable("pg_indexes_size", ONE_RELATION, Kind::Int8, |_| Ok(0.into())),
    stable("pg_database_size", &[&[Arg::Any]], Kind::Int8, |call| {
        Ok(call.source.database_bytes().and_then(|bytes| i64::try_from(bytes).ok()).into())
    }),
    stable("pg_tablespace_size", &[&[Arg::Any]], Kind::Int8, |call| {
        Ok(call.source.database_bytes().and_then(|bytes| i64::try_from(bytes).ok()).into())
    }),
    stable("pg_size_pretty", ONE_OID, TEXT, |call| Ok(size_pretty(call.int(0)).into())),
    stable("pg_relation_filenode", ONE_RELATION, OID, |call| Ok(call.int(0).into())),
    stable("pg_tablespace_location", ONE_OID, TEXT, |_| Ok("".into())),
    // Arrays, where DataFusion has no function of the name
    stable("array_upper", &[&[Arg::Any, Arg::Int]], Kind::Int4, |call| {
        let length = call.list(0).len() as i64;
        Ok((call.int(1) == 1 && length > 0).then_some(length).into())
    }),
    stable("array_lower", &[&[Arg::Any, Arg::Int]], Kind::Int4, |call| {
        Ok((call.int(1) == 1 && !call.list(0).is_empty()).then_some(1).into())
    }),
    stable(TEXT_ARRAY, &[&[Arg::Any]], Kind::ListText("text[]"), texts),
    stable(NAME_ARRAY, &[&[Arg::Any]], Kind::ListText("name[]"), texts),
    stable(OID_ARRAY, &[&[Arg::Any]], Kind::ListOid("oid[]"), |call| match call.values.first() {
        Some(Value::Text(text)) => {
            let items = array_items(text).ok_or_else(|| malformed_array(text))?;
            let number = |item: Option<String>| match item {
                Some(item) => {
                    item.trim().parse::<i64>().map(Some).map_err(|_| malformed_array(text))
                }
                None => Ok(None),
            };
            Ok(items.into_iter().map(number).collect::<Result<Vec<_>, _>>()?.into())
        }
        Some(list @ Value::List(_)) => Ok(list.clone()),
        _ => Ok(Value::Null),
    }),
];

/// The items of an array, or of PostgreSQL's text form of one.
fn texts(call: &Call<'_>) -> Result<Value, SqlError> {
    match call.values.first() {
        Some(Value::Text(text)) => match array_items(text) {
            Some(items) => Ok(items.into()),
            None => Err(malformed_array(text)),
        },
        Some(Value::List(values)) => Ok(values.iter().map(plain_text).collect::<Vec<_>>().into()),
        _ => Ok(Value::Null),
    }
}

/// `reg_oid('regclass', x)`: what `x::regclass` is as a number. The name is not one that a statement would use.
pub(super) const REG_OID: &str = "__reg_oid";
/// `reg_text('regclass', x)`: what `x::regclass` is as text.
pub(super) const REG_TEXT: &str = "__reg_text";
/// `x::text[]`, where `x` may be PostgreSQL's text form of an array.
pub(super) const TEXT_ARRAY: &str = "__text_array";
/// `x::name[]`, likewise.
pub(super) const NAME_ARRAY: &str = "__name_array";
/// `x::oid[]` and its kin, likewise.
pub(super) const OID_ARRAY: &str = "__oid_array";
/// An array, `{}` where it is NULL: `ARRAY(SELECT ...)` of no row.
pub(super) const OR_EMPTY: &str = "__or_empty";
/// What a scalar sub-query of several rows is refused with: `__single_row(array_agg(x))`.
pub(super) const SINGLE_ROW: &str = "__single_row";

/// The functions over what `source` sees.
pub fn functions(source: Arc<dyn CatalogSource>) -> Vec<ScalarUDF> {
    let mut functions: Vec<ScalarUDF> = DEFINITIONS
        .iter()
        .map(|definition| {
            ScalarUDF::from(SystemFunction {
                definition,
                signature: Signature::user_defined(definition.volatility),
                source: Arc::clone(&source),
            })
        })
        .collect();
    functions.push(ScalarUDF::from(SingleRow::new()));
    functions.push(ScalarUDF::from(OrEmpty::new()));
    functions.push(ScalarUDF::from(ExpandArray::new()));
    functions
}

/// A [`Definition`] over one snapshot.
struct SystemFunction {
    definition: &'static Definition,
    signature: Signature,
    source: Arc<dyn CatalogSource>,
}

impl std::fmt::Debug for SystemFunction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SystemFunction").field("name", &self.definition.name).finish()
    }
}

impl PartialEq for SystemFunction {
    fn eq(&self, other: &SystemFunction) -> bool {
        self.definition.name == other.definition.name && Arc::ptr_eq(&self.source, &other.source)
    }
}

impl Eq for SystemFunction {}

impl Hash for SystemFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.definition.name.hash(state);
    }
}

impl SystemFunction {
    /// The argument list that takes `count` arguments.
    fn overload(&self, count: usize) -> Option<&'static [Arg]> {
        self.definition
            .overloads
            .iter()
            .find(|arguments| match arguments.split_last() {
                Some((Arg::Rest, fixed)) => count >= fixed.len(),
                _ => arguments.len() == count,
            })
            .copied()
    }
}

impl ScalarUDFImpl for SystemFunction {
    fn name(&self) -> &str {
        self.definition.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.definition.result.field("").data_type().clone())
    }

    fn return_field_from_args(&self, _: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        Ok(Arc::new(self.definition.result.field(self.definition.name)))
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        let Some(arguments) = self.overload(given.len()) else {
            return Err(undefined_function(self.definition.name, given.len()));
        };
        Ok(each(arguments).zip(given).map(|(argument, given)| coerced(argument, given)).collect())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(kinds) = self.overload(args.args.len()) else {
            return Err(undefined_function(self.definition.name, args.args.len()));
        };
        // What is volatile has a value of its own for each row, whatever its arguments.
        let constant = self.definition.volatility != Volatility::Volatile
            && args.args.iter().all(|value| matches!(value, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let arrays = args
            .args
            .into_iter()
            .map(|value| value.into_array(rows))
            .collect::<Result<Vec<_>>>()?;
        let mut results = Vec::with_capacity(rows);
        for row in 0..rows {
            let values: Vec<Value> = arrays.iter().map(|array| value_at(array, row)).collect();
            let call =
                Call { source: self.source.as_ref(), values: &values, fields: &args.arg_fields };
            results.push(
                self.call(kinds, call)
                    .map_err(|error| DataFusionError::External(Box::new(error)))?,
            );
        }
        let array = relations::array(self.definition.result, results.iter(), &Value::Null)?;
        if constant {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?));
        }
        Ok(ColumnarValue::Array(array))
    }
}

impl SystemFunction {
    fn call(&self, kinds: &[Arg], call: Call<'_>) -> Result<Value, SqlError> {
        if self.definition.strict && call.values.contains(&Value::Null) {
            return Ok(Value::Null);
        }
        let mut values = call.values.to_vec();
        for (kind, value) in each(kinds).zip(&mut values) {
            if let Value::Text(text) = value {
                match kind {
                    Arg::Int => *value = Value::Int(number(text)?),
                    Arg::Relation => {
                        *value = reg_value(&call, "regclass", &Value::Text(text.clone()), true)?
                    }
                    Arg::Text | Arg::Bool | Arg::Any | Arg::Rest => {}
                }
            }
        }
        if self.definition.strict && values.contains(&Value::Null) {
            return Ok(Value::Null);
        }
        (self.definition.body)(&Call { values: &values, ..call })
    }
}

/// The arguments of an overload, the last one for ever if there may be more.
fn each(arguments: &[Arg]) -> impl Iterator<Item = Arg> {
    arguments.iter().copied().chain(std::iter::repeat(Arg::Rest))
}

/// The Arrow type that an argument of type `given` is cast to.
fn coerced(argument: Arg, given: &DataType) -> DataType {
    let is_text = matches!(given, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    match argument {
        Arg::Text => DataType::Utf8,
        Arg::Int | Arg::Relation => {
            if is_text {
                DataType::Utf8
            } else {
                DataType::Int64
            }
        }
        Arg::Bool => DataType::Boolean,
        Arg::Any | Arg::Rest => given.clone(),
    }
}

fn undefined_function(name: &str, arguments: usize) -> DataFusionError {
    DataFusionError::External(Box::new(SqlError::new(
        SqlState::UNDEFINED_FUNCTION,
        format!("function {name} with {arguments} arguments does not exist"),
    )))
}

fn malformed_array(text: &str) -> SqlError {
    SqlError::new(
        SqlState::INVALID_TEXT_REPRESENTATION,
        format!("malformed array literal: \"{text}\""),
    )
}

fn number(text: &str) -> Result<i64, SqlError> {
    text.trim().parse().map_err(|_| {
        SqlError::new(
            SqlState::INVALID_TEXT_REPRESENTATION,
            format!("invalid input syntax for type oid: \"{text}\""),
        )
    })
}

/// The value of a row of any array, as far as these functions tell values apart.
fn value_at(array: &ArrayRef, row: usize) -> Value {
    if array.is_null(row) {
        return Value::Null;
    }
    match array.data_type() {
        DataType::Null => Value::Null,
        DataType::Boolean => Value::Bool(array.as_boolean().value(row)),
        DataType::Int8 => i64::from(array.as_primitive::<Int8Type>().value(row)).into(),
        DataType::Int16 => i64::from(array.as_primitive::<Int16Type>().value(row)).into(),
        DataType::Int32 => array.as_primitive::<Int32Type>().value(row).into(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).into(),
        DataType::UInt8 => i64::from(array.as_primitive::<UInt8Type>().value(row)).into(),
        DataType::UInt16 => i64::from(array.as_primitive::<UInt16Type>().value(row)).into(),
        DataType::UInt32 => i64::from(array.as_primitive::<UInt32Type>().value(row)).into(),
        DataType::UInt64 => {
            i64::try_from(array.as_primitive::<UInt64Type>().value(row)).ok().into()
        }
        DataType::Float32 => f64::from(array.as_primitive::<Float32Type>().value(row)).into(),
        DataType::Float64 => array.as_primitive::<Float64Type>().value(row).into(),
        DataType::Utf8 => array.as_string::<i32>().value(row).into(),
        DataType::LargeUtf8 => array.as_string::<i64>().value(row).into(),
        DataType::Utf8View => array.as_string_view().value(row).into(),
        DataType::List(_) => items(&array.as_list::<i32>().value(row)),
        DataType::LargeList(_) => items(&array.as_list::<i64>().value(row)),
        DataType::FixedSizeList(..) => items(&array.as_fixed_size_list().value(row)),
        _ => array_value_to_string(array, row).map_or(Value::Null, Value::Text),
    }
}

fn items(array: &ArrayRef) -> Value {
    Value::List((0..array.len()).map(|row| value_at(array, row)).collect())
}

fn plain_text(value: &Value) -> Value {
    match value {
        Value::Null | Value::List(_) => Value::Null,
        Value::Bool(value) => value.to_string().into(),
        Value::Int(value) => value.to_string().into(),
        Value::Float(value) => value.to_string().into(),
        Value::Text(_) => value.clone(),
    }
}

fn current_setting(call: &Call<'_>) -> Result<Value, SqlError> {
    let name = call.text(0);
    match tables::setting_value(call.source, name) {
        Some(value) => Ok(value.into()),
        None if call.bool(1) => Ok(Value::Null),
        None => Err(SqlError::new(
            SqlState::UNDEFINED_OBJECT,
            format!("unrecognized configuration parameter \"{name}\""),
        )),
    }
}

/// Numbers that grow, as clients that poll for changes expect of a transaction's id.
fn next_transaction_id() -> i64 {
    static NEXT: AtomicI64 = AtomicI64::new(1000);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The sequence of a column: the table's name is an identifier, the column's is not folded.
fn serial_sequence(call: &Call<'_>) -> Result<Value, SqlError> {
    let table = reg_oid_of_text(call, call.text(0))?;
    let Some(object) = call.object(table) else { return Ok(Value::Null) };
    let Ok(index) = object.columns.index_of(call.text(1)) else {
        return Err(SqlError::new(
            SqlState::UNDEFINED_COLUMN,
            format!("column \"{}\" of relation \"{}\" does not exist", call.text(1), object.name),
        ));
    };
    let sequence = ColumnSequence::of(object.columns.field(index));
    Ok(sequence
        .map(|sequence| format!("{}.{}", quote_ident(&object.schema), quote_ident(&sequence.name)))
        .into())
}

fn reg_oid_of_text(call: &Call<'_>, name: &str) -> Result<i64, SqlError> {
    match reg_value(call, "regclass", &Value::Text(name.to_string()), true)? {
        Value::Int(oid) => Ok(oid),
        _ => Ok(0),
    }
}

fn table_is_visible(call: &Call<'_>) -> Result<Value, SqlError> {
    let oid = call.int(0);
    let schema = match relations::listed().find(|relation| relation.oid == oid) {
        Some(relation) => relation.schema.name().to_string(),
        None => match call.object(oid) {
            Some(object) => {
                let hidden =
                    object.schema == "public"
                        && call.source.objects().iter().any(|other| {
                            other.schema == TEMPORARY_SCHEMA && other.name == object.name
                        });
                if hidden {
                    return Ok(false.into());
                }
                object.schema
            }
            None => {
                let index = constraints::index(call.source, oid).map(|(object, _)| object);
                let sequence = || tables::sequence(call.source, oid).map(|(object, _)| object);
                match index.or_else(sequence) {
                    Some(object) => object.schema,
                    None => return Ok(Value::Null),
                }
            }
        },
    };
    Ok(matches!(schema.as_str(), "public" | "pg_catalog" | TEMPORARY_SCHEMA).into())
}

fn function(oid: i64) -> Option<&'static tables::Function> {
    tables::functions().iter().find(|function| function.oid == oid)
}

fn function_arguments(oid: i64) -> Option<String> {
    let function = function(oid)?;
    let arguments: Vec<String> = function
        .arguments
        .iter()
        .enumerate()
        .map(|(position, oid)| {
            let name = types::format_type(*oid, None);
            match function.names.get(position).filter(|name| !name.is_empty()) {
                Some(argument) => format!("{argument} {name}"),
                None => name,
            }
        })
        .collect();
    Some(arguments.join(", "))
}

fn object_description(call: &Call<'_>) -> Result<Value, SqlError> {
    let oid = call.int(0);
    let class = call.text(1);
    if oid == 16_385 && matches!(class, "pg_type" | "") {
        return Ok("a vector of float4: the embedding of an image".into());
    }
    let schema = SCHEMAS.iter().find(|(found, _, text)| *found == oid && !text.is_empty());
    Ok(schema.filter(|_| matches!(class, "pg_namespace" | "")).map(|(_, _, text)| *text).into())
}

/// True for what exists. `named` is the position, from the end, of the argument that names it.
fn privilege(call: &Call<'_>, kind: &str, named: usize) -> Result<Value, SqlError> {
    let position = call.values.len() - 1 - named;
    let Value::Int(oid) = reg_value(call, kind, &call.values[position], true)? else {
        return Ok(Value::Null);
    };
    let exists = match kind {
        "regclass" => {
            relations::listed().any(|relation| relation.oid == oid) || call.object(oid).is_some()
        }
        "regnamespace" => SCHEMAS.iter().any(|(found, ..)| *found == oid),
        _ => true,
    };
    Ok(exists.then_some(true).into())
}

fn relation_size(call: &Call<'_>) -> Result<Value, SqlError> {
    let bytes = u32::try_from(call.int(0)).ok().and_then(|oid| call.source.relation_bytes(oid));
    Ok(bytes.and_then(|bytes| i64::try_from(bytes).ok()).into())
}

/// As pg_size_pretty: a unit is left only above ten times its size.
fn size_pretty(bytes: i64) -> String {
    let mut size = bytes;
    for unit in ["bytes", "kB", "MB", "GB", "TB"] {
        if size.abs() < 10_240 {
            return format!("{size} {unit}");
        }
        size = (size + size.signum() * 512) / 1024;
    }
    format!("{size} PB")
}

fn quote_literal(value: Option<&Value>) -> String {
    let text = match value.map(plain_text) {
        Some(Value::Text(text)) => text,
        _ => String::new(),
    };
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') {
        format!("E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    }
}

/// `format`, with `%s`, `%I`, `%L` and `%%`; positions and widths are refused.
fn format_text(call: &Call<'_>) -> Result<Value, SqlError> {
    let Some((Value::Text(pattern), mut values)) = call.values.split_first() else {
        return Ok(Value::Null);
    };
    let mut text = String::new();
    let mut letters = pattern.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            text.push(letter);
            continue;
        }
        let kind = letters.next();
        if kind == Some('%') {
            text.push('%');
            continue;
        }
        let Some((value, rest)) = values.split_first() else {
            return Err(SqlError::new(
                SqlState::INVALID_PARAMETER_VALUE,
                "too few arguments for format()",
            ));
        };
        values = rest;
        let plain = match plain_text(value) {
            Value::Text(plain) => plain,
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::List(_) => {
                String::new()
            }
        };
        match kind {
            Some('s') => text.push_str(&plain),
            Some('I') => text.push_str(&quote_ident(&plain)),
            Some('L') if *value == Value::Null => text.push_str("NULL"),
            Some('L') => text.push_str(&quote_literal(Some(value))),
            other => {
                let other = other.map(String::from).unwrap_or_default();
                return Err(SqlError::new(
                    SqlState::INVALID_PARAMETER_VALUE,
                    format!("unrecognized format() type specifier \"{other}\""),
                ));
            }
        }
    }
    Ok(text.into())
}

/// A pattern with another escape character, or none, as one with backslashes.
fn like_escape(pattern: &str, escape: &str) -> Result<Value, SqlError> {
    let mut escapes = escape.chars();
    let escape = escapes.next();
    if escapes.next().is_some() {
        return Err(SqlError::new(SqlState::INVALID_ESCAPE_SEQUENCE, "invalid escape string")
            .with_hint("Escape string must be empty or one character."));
    }
    let mut text = String::new();
    let mut letters = pattern.chars();
    while let Some(letter) = letters.next() {
        if Some(letter) == escape {
            text.push('\\');
            text.extend(letters.next());
        } else if letter == '\\' {
            text.push_str("\\\\");
        } else {
            text.push(letter);
        }
    }
    Ok(text.into())
}

/// `json_build_object(key, value, ...)`.
fn build_object(call: &Call<'_>) -> Result<Value, SqlError> {
    let mut members = Vec::new();
    let mut pairs = call.values.chunks_exact(2);
    for pair in &mut pairs {
        let Value::Text(key) = plain_text(&pair[0]) else {
            return Err(SqlError::new(
                SqlState::INVALID_PARAMETER_VALUE,
                "argument 1: key must not be null",
            ));
        };
        members.push(format!("{} : {}", serde_json::Value::from(key), json(&pair[1])));
    }
    if !pairs.remainder().is_empty() {
        return Err(SqlError::new(
            SqlState::INVALID_PARAMETER_VALUE,
            "argument list must have even number of elements",
        ));
    }
    Ok(format!("{{{}}}", members.join(", ")).into())
}

fn json(value: &Value) -> serde_json::Value {
    match value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(value) => (*value).into(),
        Value::Int(value) => (*value).into(),
        Value::Float(value) => (*value).into(),
        Value::Text(value) => value.as_str().into(),
        Value::List(values) => values.iter().map(json).collect(),
    }
}

/// The parts of a possibly qualified name: folded where not quoted. `None` if it is no name.
pub(super) fn parse_ident(text: &str) -> Option<Vec<String>> {
    let mut parts = Vec::new();
    let mut rest = text.trim();
    loop {
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut part = String::new();
            let mut letters = quoted.char_indices().peekable();
            let end = loop {
                match letters.next()? {
                    (_, '"') if letters.peek().is_some_and(|(_, next)| *next == '"') => {
                        letters.next();
                        part.push('"');
                    }
                    (position, '"') => break position + 1,
                    (_, other) => part.push(other),
                }
            };
            parts.push(part);
            rest = quoted[end..].trim_start();
        } else {
            let end = rest
                .find(|letter: char| !(letter.is_alphanumeric() || "_$".contains(letter)))
                .unwrap_or(rest.len());
            if end == 0 || rest.starts_with(|first: char| first.is_ascii_digit() || first == '$') {
                return None;
            }
            parts.push(rest[..end].to_lowercase());
            rest = rest[end..].trim_start();
        }
        match rest.strip_prefix('.') {
            Some(after) => rest = after.trim_start(),
            None if rest.is_empty() => return Some(parts),
            None => return None,
        }
    }
}

/// `__reg_oid(kind, value)`.
fn reg_oid(call: &Call<'_>, kind: &str, must_exist: bool) -> Result<Value, SqlError> {
    reg_value(call, kind, &call.values[1], must_exist)
}

fn reg_look_up(call: &Call<'_>, kind: &str) -> Result<Value, SqlError> {
    reg_value(call, kind, &call.values[0], false)
}

/// The OID that a value of one of the reg types stands for.
fn reg_value(
    call: &Call<'_>,
    kind: &str,
    value: &Value,
    must_exist: bool,
) -> Result<Value, SqlError> {
    let text = match value {
        Value::Int(_) | Value::Null => return Ok(value.clone()),
        Value::Text(text) => text.trim(),
        Value::Bool(_) | Value::Float(_) | Value::List(_) => return Ok(Value::Null),
    };
    if let Ok(oid) = text.parse::<i64>() {
        return Ok(oid.into());
    }
    if text == "-" {
        return Ok(0.into());
    }
    let found = match kind {
        "regtype" => types::by_name(text).map(|found| found.oid),
        "regproc" | "regprocedure" => {
            let name = text.split('(').next().unwrap_or_default();
            let name = parse_ident(name).and_then(|mut parts| parts.pop());
            name.and_then(|name| tables::functions().iter().find(|function| function.name == name))
                .map(|found| found.oid)
        }
        "regnamespace" => {
            let name = parse_ident(text).and_then(|mut parts| parts.pop());
            name.and_then(|name| SCHEMAS.iter().find(|(_, found, _)| *found == name))
                .map(|(oid, ..)| *oid)
        }
        "regrole" => (parse_ident(text) == Some(vec![call.source.user()])).then_some(OWNER),
        "regcollation" => match text.trim_matches('"') {
            "default" => Some(100),
            "C" => Some(950),
            "POSIX" => Some(951),
            _ => None,
        },
        "database" => (text == call.source.database()).then_some(DATABASE),
        _ => relation_oid(call, text),
    };
    match found {
        Some(oid) => Ok(oid.into()),
        None if !must_exist => Ok(Value::Null),
        None => Err(missing(kind, text)),
    }
}

fn missing(kind: &str, name: &str) -> SqlError {
    let (code, what) = match kind {
        "regclass" => (SqlState::UNDEFINED_TABLE, "relation"),
        "regtype" => (SqlState::UNDEFINED_OBJECT, "type"),
        "regproc" | "regprocedure" => (SqlState::UNDEFINED_FUNCTION, "function"),
        "regnamespace" => (SqlState::INVALID_SCHEMA_NAME, "schema"),
        "regrole" => (SqlState::UNDEFINED_OBJECT, "role"),
        _ => (SqlState::UNDEFINED_OBJECT, "object"),
    };
    SqlError::new(code, format!("{what} \"{name}\" does not exist"))
}

/// A relation by its name: as PostgreSQL's search path has it, the system's first, then `public`.
fn relation_oid(call: &Call<'_>, text: &str) -> Option<i64> {
    let parts = parse_ident(text)?;
    let (schema, name) = match parts.as_slice() {
        [name] => (None, name),
        [schema, name] | [_, schema, name] => (Some(schema.as_str()), name),
        _ => return None,
    };
    let system = relations::listed().find(|relation| {
        relation.name == name && relation.schema.name() == schema.unwrap_or("pg_catalog")
    });
    match system {
        Some(relation) => Some(relation.oid),
        None => {
            let objects = call.source.objects();
            let in_schema = |object: &&ObjectDescription| match schema {
                None => matches!(object.schema.as_str(), "public" | TEMPORARY_SCHEMA),
                Some("pg_temp") => object.schema == TEMPORARY_SCHEMA,
                Some(schema) => object.schema == schema,
            };
            let mut found = objects.iter().filter(in_schema);
            found
                .clone()
                .find(|object| object.name == *name)
                .map(|object| object.oid.into())
                .or_else(|| {
                    found.find_map(|object| {
                        let mut indexes = constraints::indexes(object);
                        indexes.find(|index| index.name == *name).map(|index| index.oid).or_else(
                            || {
                                let sequences = sequences_of(&object.columns);
                                let mut found = sequences.into_iter().map(|(_, sequence)| sequence);
                                found
                                    .find(|sequence| sequence.name == *name)
                                    .map(|sequence| sequence.oid.into())
                            },
                        )
                    })
                })
        }
    }
}

/// How a value of one of the reg types is written.
fn reg_name(call: &Call<'_>, kind: &str, oid: i64) -> String {
    if oid == 0 {
        return "-".to_string();
    }
    let name = match kind {
        "regtype" => types::by_oid(oid).map(|_| types::format_type(oid, None)),
        "regproc" => function(oid).map(|function| function.name.clone()),
        "regprocedure" => function(oid).map(|function| {
            format!("{}({})", function.name, function_arguments(oid).unwrap_or_default())
        }),
        "regnamespace" => {
            SCHEMAS.iter().find(|(found, ..)| *found == oid).map(|(_, name, _)| quote_ident(name))
        }
        "regrole" => (oid == OWNER).then(|| quote_ident(&call.source.user())),
        _ => relation_name(call, oid),
    };
    name.unwrap_or_else(|| oid.to_string())
}

fn relation_name(call: &Call<'_>, oid: i64) -> Option<String> {
    let (schema, name) = match relations::listed().find(|relation| relation.oid == oid) {
        Some(relation) => (relation.schema.name().to_string(), relation.name.to_string()),
        None => match call.object(oid) {
            Some(object) => (object.schema, object.name),
            None => constraints::index(call.source, oid)
                .map(|(object, name)| (object.schema, name))
                .or_else(|| {
                    tables::sequence(call.source, oid)
                        .map(|(object, sequence)| (object.schema, sequence.name))
                })?,
        },
    };
    Some(match schema.as_str() {
        "public" | "pg_catalog" | TEMPORARY_SCHEMA => quote_ident(&name),
        _ => format!("{}.{}", quote_ident(&schema), quote_ident(&name)),
    })
}

/// The one element of a list; NULL for none, an error for several. It stands where a scalar sub-query stood.
#[derive(Debug, PartialEq, Eq, Hash)]
struct SingleRow {
    signature: Signature,
}

impl SingleRow {
    fn new() -> SingleRow {
        SingleRow { signature: Signature::any(1, Volatility::Volatile) }
    }
}

impl ScalarUDFImpl for SingleRow {
    fn name(&self) -> &str {
        SINGLE_ROW
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        match arguments {
            [DataType::List(item)] => Ok(item.data_type().clone()),
            _ => plan_err!("{SINGLE_ROW} takes a list"),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        match args.arg_fields.first().map(|field| field.data_type()) {
            Some(DataType::List(item)) => Ok(Arc::new(
                Field::new(SINGLE_ROW, item.data_type().clone(), true)
                    .with_metadata(item.metadata().clone()),
            )),
            _ => plan_err!("{SINGLE_ROW} takes a list"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(list) = args.args.into_iter().next() else {
            return exec_err!("{SINGLE_ROW} takes a list");
        };
        let array = list.into_array(args.number_rows)?;
        let lists = array.as_list::<i32>();
        let mut indexes = Vec::with_capacity(lists.len());
        for row in 0..lists.len() {
            let offset = i64::from(lists.value_offsets()[row]);
            match if lists.is_null(row) { 0 } else { lists.value_length(row) } {
                0 => indexes.push(None),
                1 => indexes.push(Some(offset)),
                _ => {
                    return Err(DataFusionError::External(Box::new(SqlError::new(
                        SqlState::CARDINALITY_VIOLATION,
                        "more than one row returned by a subquery used as an expression",
                    ))));
                }
            }
        }
        let indexes = arrow::array::Int64Array::from(indexes);
        Ok(ColumnarValue::Array(arrow::compute::take(lists.values(), &indexes, None)?))
    }
}

/// An array, or the text form of one, empty where it is NULL.
#[derive(Debug, PartialEq, Eq, Hash)]
struct OrEmpty {
    signature: Signature,
}

impl OrEmpty {
    fn new() -> OrEmpty {
        OrEmpty { signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for OrEmpty {
    fn name(&self) -> &str {
        OR_EMPTY
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        match arguments {
            [list @ DataType::List(_)] => Ok(list.clone()),
            [text @ DataType::Utf8] => Ok(text.clone()),
            _ => plan_err!("{OR_EMPTY} takes an array"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(list) = args.args.into_iter().next() else {
            return exec_err!("{OR_EMPTY} takes a list");
        };
        let array = list.into_array(args.number_rows)?;
        if let Some(texts) = array.as_string_opt::<i32>() {
            let filled: StringArray = texts.iter().map(|text| Some(text.unwrap_or("{}"))).collect();
            return Ok(ColumnarValue::Array(Arc::new(filled)));
        }
        let lists = array.as_list::<i32>();
        let DataType::List(item) = lists.data_type() else {
            return exec_err!("{OR_EMPTY} takes a list");
        };
        // What lies under a NULL may have a length, so the values are taken anew.
        let mut indexes = Vec::new();
        let mut lengths = Vec::with_capacity(lists.len());
        for row in 0..lists.len() {
            let length = if lists.is_null(row) { 0 } else { lists.value_length(row) as usize };
            let start = i64::from(lists.value_offsets()[row]);
            indexes.extend(start..start + length as i64);
            lengths.push(length);
        }
        let values =
            arrow::compute::take(lists.values(), &arrow::array::Int64Array::from(indexes), None)?;
        let offsets = arrow::buffer::OffsetBuffer::from_lengths(lengths);
        let list = arrow::array::ListArray::try_new(Arc::clone(item), offsets, values, None)?;
        Ok(ColumnarValue::Array(Arc::new(list)))
    }
}

/// The one value of a list, as an expression.
pub(super) fn single_row(list: Expr) -> Expr {
    ScalarUDF::from(SingleRow::new()).call(vec![list])
}
