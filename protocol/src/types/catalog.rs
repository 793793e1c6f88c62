//! The PostgreSQL types that this crate knows: their OIDs, names, sizes, and the Arrow types that carry them.
//!
//! OIDs below 16384 are PostgreSQL's own and the same in every server; `vector` has the first two above them.

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit};

use super::{PG_TYPE_KEY, PG_TYPMOD_KEY, VECTOR_ARRAY_OID, VECTOR_OID};

/// OIDs that the code speaks of.
pub(crate) mod oid {
    pub(crate) const BOOL: u32 = 16;
    pub(crate) const BYTEA: u32 = 17;
    pub(crate) const CHAR: u32 = 18;
    pub(crate) const NAME: u32 = 19;
    pub(crate) const INT8: u32 = 20;
    pub(crate) const INT2: u32 = 21;
    pub(crate) const INT2VECTOR: u32 = 22;
    pub(crate) const INT4: u32 = 23;
    pub(crate) const REGPROC: u32 = 24;
    pub(crate) const TEXT: u32 = 25;
    pub(crate) const OID: u32 = 26;
    pub(crate) const XID: u32 = 28;
    pub(crate) const CID: u32 = 29;
    pub(crate) const OIDVECTOR: u32 = 30;
    pub(crate) const FLOAT4: u32 = 700;
    pub(crate) const FLOAT8: u32 = 701;
    pub(crate) const UNKNOWN: u32 = 705;
    pub(crate) const MONEY: u32 = 790;
    pub(crate) const BPCHAR: u32 = 1042;
    pub(crate) const VARCHAR: u32 = 1043;
    pub(crate) const DATE: u32 = 1082;
    pub(crate) const TIME: u32 = 1083;
    pub(crate) const TIMESTAMP: u32 = 1114;
    pub(crate) const TIMESTAMPTZ: u32 = 1184;
    pub(crate) const INTERVAL: u32 = 1186;
    pub(crate) const NUMERIC: u32 = 1700;
    pub(crate) const REGPROCEDURE: u32 = 2202;
    pub(crate) const REGOPER: u32 = 2203;
    pub(crate) const REGOPERATOR: u32 = 2204;
    pub(crate) const REGCLASS: u32 = 2205;
    pub(crate) const REGTYPE: u32 = 2206;
    pub(crate) const UUID: u32 = 2950;
    pub(crate) const REGCONFIG: u32 = 3734;
    pub(crate) const REGDICTIONARY: u32 = 3769;
    pub(crate) const JSONB: u32 = 3802;
    pub(crate) const REGNAMESPACE: u32 = 4089;
    pub(crate) const REGROLE: u32 = 4096;
    pub(crate) const XID8: u32 = 5069;
}

/// What carries a type's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carrier {
    Boolean,
    Int16,
    Int32,
    Int64,
    Float32,
    Float64,
    Text,
    Bytes,
    Numeric,
    Money,
    Date,
    Time,
    Timestamp,
    TimestampTz,
    Interval,
    Uuid,
    Vector,
    Int16List,
    OidList,
    /// Known by name, but not read as a parameter.
    None,
}

struct Type {
    oid: u32,
    name: &'static str,
    array_oid: u32,
    array_name: &'static str,
    /// `pg_type.typlen`.
    length: i16,
    /// What error messages and `format_type` call it.
    sql_name: &'static str,
    carrier: Carrier,
}

const fn known(
    oid: u32,
    name: &'static str,
    (array_oid, array_name): (u32, &'static str),
    length: i16,
    sql_name: &'static str,
    carrier: Carrier,
) -> Type {
    Type { oid, name, array_oid, array_name, length, sql_name, carrier }
}

#[rustfmt::skip]
static TYPES: &[Type] = &[
    known(oid::BOOL, "bool", (1000, "_bool"), 1, "boolean", Carrier::Boolean),
    known(oid::BYTEA, "bytea", (1001, "_bytea"), -1, "bytea", Carrier::Bytes),
    known(oid::CHAR, "char", (1002, "_char"), 1, "\"char\"", Carrier::Text),
    known(oid::NAME, "name", (1003, "_name"), 64, "name", Carrier::Text),
    known(oid::INT8, "int8", (1016, "_int8"), 8, "bigint", Carrier::Int64),
    known(oid::INT2, "int2", (1005, "_int2"), 2, "smallint", Carrier::Int16),
    known(oid::INT2VECTOR, "int2vector", (1006, "_int2vector"), -1, "int2vector", Carrier::Int16List),
    known(oid::INT4, "int4", (1007, "_int4"), 4, "integer", Carrier::Int32),
    known(oid::REGPROC, "regproc", (1008, "_regproc"), 4, "regproc", Carrier::Text),
    known(oid::TEXT, "text", (1009, "_text"), -1, "text", Carrier::Text),
    known(oid::OID, "oid", (1028, "_oid"), 4, "oid", Carrier::Int64),
    known(27, "tid", (1010, "_tid"), 6, "tid", Carrier::None),
    known(oid::XID, "xid", (1011, "_xid"), 4, "xid", Carrier::Int64),
    known(oid::CID, "cid", (1012, "_cid"), 4, "cid", Carrier::Int64),
    known(oid::OIDVECTOR, "oidvector", (1013, "_oidvector"), -1, "oidvector", Carrier::OidList),
    known(114, "json", (199, "_json"), -1, "json", Carrier::Text),
    known(142, "xml", (143, "_xml"), -1, "xml", Carrier::Text),
    known(194, "pg_node_tree", (0, ""), -1, "pg_node_tree", Carrier::Text),
    known(oid::FLOAT4, "float4", (1021, "_float4"), 4, "real", Carrier::Float32),
    known(oid::FLOAT8, "float8", (1022, "_float8"), 8, "double precision", Carrier::Float64),
    known(oid::UNKNOWN, "unknown", (0, ""), -2, "unknown", Carrier::Text),
    known(oid::MONEY, "money", (791, "_money"), 8, "money", Carrier::Money),
    known(1033, "aclitem", (1034, "_aclitem"), 16, "aclitem", Carrier::None),
    known(oid::BPCHAR, "bpchar", (1014, "_bpchar"), -1, "character", Carrier::Text),
    known(oid::VARCHAR, "varchar", (1015, "_varchar"), -1, "character varying", Carrier::Text),
    known(oid::DATE, "date", (1182, "_date"), 4, "date", Carrier::Date),
    known(oid::TIME, "time", (1183, "_time"), 8, "time without time zone", Carrier::Time),
    known(oid::TIMESTAMP, "timestamp", (1115, "_timestamp"), 8, "timestamp without time zone", Carrier::Timestamp),
    known(oid::TIMESTAMPTZ, "timestamptz", (1185, "_timestamptz"), 8, "timestamp with time zone", Carrier::TimestampTz),
    known(oid::INTERVAL, "interval", (1187, "_interval"), 16, "interval", Carrier::Interval),
    known(1266, "timetz", (1270, "_timetz"), 12, "time with time zone", Carrier::None),
    known(1560, "bit", (1561, "_bit"), -1, "bit", Carrier::None),
    known(1562, "varbit", (1563, "_varbit"), -1, "bit varying", Carrier::None),
    known(oid::NUMERIC, "numeric", (1231, "_numeric"), -1, "numeric", Carrier::Numeric),
    known(1790, "refcursor", (2201, "_refcursor"), -1, "refcursor", Carrier::Text),
    known(oid::REGPROCEDURE, "regprocedure", (2207, "_regprocedure"), 4, "regprocedure", Carrier::Text),
    known(oid::REGOPER, "regoper", (2208, "_regoper"), 4, "regoper", Carrier::Text),
    known(oid::REGOPERATOR, "regoperator", (2209, "_regoperator"), 4, "regoperator", Carrier::Text),
    known(oid::REGCLASS, "regclass", (2210, "_regclass"), 4, "regclass", Carrier::Text),
    known(oid::REGTYPE, "regtype", (2211, "_regtype"), 4, "regtype", Carrier::Text),
    known(2249, "record", (2287, "_record"), -1, "record", Carrier::None),
    known(2275, "cstring", (1263, "_cstring"), -2, "cstring", Carrier::Text),
    known(2276, "any", (0, ""), 4, "\"any\"", Carrier::None),
    known(2277, "anyarray", (0, ""), -1, "anyarray", Carrier::None),
    known(2278, "void", (0, ""), 4, "void", Carrier::None),
    known(2283, "anyelement", (0, ""), 4, "anyelement", Carrier::None),
    known(oid::UUID, "uuid", (2951, "_uuid"), 16, "uuid", Carrier::Uuid),
    known(3220, "pg_lsn", (3221, "_pg_lsn"), 8, "pg_lsn", Carrier::None),
    known(oid::REGCONFIG, "regconfig", (3735, "_regconfig"), 4, "regconfig", Carrier::Text),
    known(oid::REGDICTIONARY, "regdictionary", (3770, "_regdictionary"), 4, "regdictionary", Carrier::Text),
    known(oid::JSONB, "jsonb", (3807, "_jsonb"), -1, "jsonb", Carrier::Text),
    known(oid::REGNAMESPACE, "regnamespace", (4090, "_regnamespace"), 4, "regnamespace", Carrier::Text),
    known(oid::REGROLE, "regrole", (4097, "_regrole"), 4, "regrole", Carrier::Text),
    known(oid::XID8, "xid8", (271, "_xid8"), 8, "xid8", Carrier::Int64),
    known(VECTOR_OID, "vector", (VECTOR_ARRAY_OID, "_vector"), -1, "vector", Carrier::Vector),
];

fn by_oid(oid: u32) -> Option<&'static Type> {
    TYPES.iter().find(|known| known.oid == oid)
}

fn by_array_oid(oid: u32) -> Option<&'static Type> {
    TYPES.iter().find(|known| known.array_oid == oid && oid != 0)
}

/// The OID of a field's PostgreSQL type.
pub fn type_oid(field: &Field) -> u32 {
    if let Some(named) = field.metadata().get(PG_TYPE_KEY).and_then(|name| oid_by_name(name)) {
        return named;
    }
    match field.data_type() {
        DataType::List(element)
        | DataType::LargeList(element)
        | DataType::ListView(element)
        | DataType::LargeListView(element) => array_oid(type_oid(element)),
        DataType::FixedSizeList(element, _) if *element.data_type() != DataType::Float32 => {
            array_oid(type_oid(element))
        }
        DataType::Dictionary(_, value) => type_oid(
            &Field::new("", value.as_ref().clone(), true).with_metadata(field.metadata().clone()),
        ),
        other => data_type_oid(other),
    }
}

/// The OID of a type without regard to metadata.
pub(crate) fn data_type_oid(data_type: &DataType) -> u32 {
    match data_type {
        DataType::Boolean => oid::BOOL,
        DataType::Int8 | DataType::UInt8 | DataType::Int16 => oid::INT2,
        DataType::UInt16 | DataType::Int32 => oid::INT4,
        // A UInt64 is a count or a row number, which PostgreSQL has as bigint; a value beyond it cannot be sent in binary.
        DataType::UInt32 | DataType::Int64 | DataType::UInt64 => oid::INT8,
        DataType::Float16 | DataType::Float32 => oid::FLOAT4,
        DataType::Float64 => oid::FLOAT8,
        DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::Decimal128(..)
        | DataType::Decimal256(..) => oid::NUMERIC,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => oid::BYTEA,
        DataType::FixedSizeBinary(16) => oid::UUID,
        DataType::FixedSizeBinary(_) => oid::BYTEA,
        DataType::Date32 | DataType::Date64 => oid::DATE,
        DataType::Time32(_) | DataType::Time64(_) => oid::TIME,
        DataType::Timestamp(_, None) => oid::TIMESTAMP,
        DataType::Timestamp(_, Some(_)) => oid::TIMESTAMPTZ,
        DataType::Interval(_) | DataType::Duration(_) => oid::INTERVAL,
        DataType::FixedSizeList(element, _) if *element.data_type() == DataType::Float32 => {
            VECTOR_OID
        }
        DataType::FixedSizeList(element, _)
        | DataType::List(element)
        | DataType::LargeList(element)
        | DataType::ListView(element)
        | DataType::LargeListView(element) => array_oid(type_oid(element)),
        DataType::Dictionary(_, value) => data_type_oid(value),
        DataType::RunEndEncoded(_, value) => type_oid(value),
        DataType::Null
        | DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Utf8View
        | DataType::Struct(_)
        | DataType::Map(..)
        | DataType::Union(..) => oid::TEXT,
    }
}

/// The array type of an element type. Arrays have no arrays of their own: `int4[][]` is `int4[]`.
fn array_oid(element: u32) -> u32 {
    if by_array_oid(element).is_some() {
        return element;
    }
    by_oid(element).map(|known| known.array_oid).filter(|array| *array != 0).unwrap_or(1009)
}

/// The type modifier of a field, -1 if it has none: the metadata's, or precision and scale of a numeric, or the length
/// of a vector. A numeric of 38 digits stands for one without limits.
pub fn type_modifier(field: &Field) -> i32 {
    if let Some(modifier) = field.metadata().get(PG_TYPMOD_KEY).and_then(|text| text.parse().ok()) {
        return modifier;
    }
    match field.data_type() {
        DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale)
            if *precision < 38 && field.metadata().get(PG_TYPE_KEY).is_none() =>
        {
            ((i32::from(*precision) << 16) | (i32::from(*scale) & 0x7ff)) + 4
        }
        DataType::FixedSizeList(element, length)
            if *element.data_type() == DataType::Float32 && *length > 0 =>
        {
            *length
        }
        _ => -1,
    }
}

/// `pg_type.typlen` of a type: its size in bytes, -1 where it varies, -2 for one that ends with a zero byte.
pub fn type_length(oid: u32) -> i16 {
    by_oid(oid).map_or(-1, |known| known.length)
}

/// The Arrow type that a PostgreSQL type is read as; `None` for one that this crate does not know or cannot read.
/// A numeric gets 38 digits with 10 after the point; a vector the length 0, which stands for any.
pub fn data_type(oid: u32) -> Option<DataType> {
    if let Some(element) = by_array_oid(oid) {
        let element = carried(element.carrier)?;
        return Some(DataType::List(Arc::new(Field::new_list_field(element, true))));
    }
    carried(by_oid(oid)?.carrier)
}

fn carried(carrier: Carrier) -> Option<DataType> {
    Some(match carrier {
        Carrier::Boolean => DataType::Boolean,
        Carrier::Int16 => DataType::Int16,
        Carrier::Int32 => DataType::Int32,
        Carrier::Int64 => DataType::Int64,
        Carrier::Float32 => DataType::Float32,
        Carrier::Float64 => DataType::Float64,
        Carrier::Text => DataType::Utf8,
        Carrier::Bytes => DataType::Binary,
        Carrier::Numeric => DataType::Decimal128(38, 10),
        Carrier::Money => DataType::Decimal128(19, 2),
        Carrier::Date => DataType::Date32,
        Carrier::Time => DataType::Time64(TimeUnit::Microsecond),
        Carrier::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
        Carrier::TimestampTz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        Carrier::Interval => DataType::Interval(IntervalUnit::MonthDayNano),
        Carrier::Uuid => DataType::FixedSizeBinary(16),
        Carrier::Vector => vector_type(0),
        Carrier::Int16List => list_of(DataType::Int16),
        Carrier::OidList => list_of(DataType::Int64),
        Carrier::None => return None,
    })
}

fn list_of(element: DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(element, true)))
}

/// The Arrow type of a vector of this length; 0 stands for any.
pub(crate) fn vector_type(length: i32) -> DataType {
    DataType::FixedSizeList(Arc::new(Field::new_list_field(DataType::Float32, true)), length)
}

/// PostgreSQL's internal name of a type, such as `int4` or `_text`.
pub fn type_name(oid: u32) -> Option<&'static str> {
    by_oid(oid).map(|known| known.name).or_else(|| by_array_oid(oid).map(|known| known.array_name))
}

/// SQL's name of a type, such as `integer` or `text[]`, as `format_type` gives it without a modifier.
pub fn sql_type_name(oid: u32) -> Option<String> {
    by_oid(oid)
        .map(|known| known.sql_name.to_owned())
        .or_else(|| by_array_oid(oid).map(|known| format!("{}[]", known.sql_name)))
}

/// The OID of a type by its internal name (`int4`, `_int4`) or its name in SQL (`integer`).
pub fn oid_by_name(name: &str) -> Option<u32> {
    TYPES.iter().find_map(|known| {
        if known.name == name || known.sql_name == name {
            Some(known.oid)
        } else if known.array_name == name && known.array_oid != 0 {
            Some(known.array_oid)
        } else {
            None
        }
    })
}

/// The type of an array type's elements.
pub fn element_oid(array_oid: u32) -> Option<u32> {
    match array_oid {
        oid::INT2VECTOR => Some(oid::INT2),
        oid::OIDVECTOR => Some(oid::OID),
        other => by_array_oid(other).map(|known| known.oid),
    }
}

/// The array type whose elements are of this type.
pub fn array_type_oid(element_oid: u32) -> Option<u32> {
    by_oid(element_oid).map(|known| known.array_oid).filter(|array| *array != 0)
}

/// How a column's values are written: its type, and the types within it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TypePlan {
    pub(crate) oid: u32,
    /// An array's elements, or a struct's fields.
    pub(crate) inner: Vec<TypePlan>,
}

impl TypePlan {
    pub(crate) fn of(field: &Field) -> TypePlan {
        let own = type_oid(field);
        let inner = match field.data_type() {
            DataType::List(element)
            | DataType::LargeList(element)
            | DataType::ListView(element)
            | DataType::LargeListView(element)
            | DataType::FixedSizeList(element, _) => {
                let mut plan = TypePlan::of(element);
                // `_name` on the list itself names its elements' type too.
                if let Some(named) = element_oid(own) {
                    plan.set_leaf(named);
                }
                vec![plan]
            }
            DataType::Struct(fields) => fields.iter().map(|field| TypePlan::of(field)).collect(),
            DataType::Dictionary(_, value) => {
                return TypePlan::of(
                    &Field::new("", value.as_ref().clone(), true)
                        .with_metadata(field.metadata().clone()),
                );
            }
            _ => Vec::new(),
        };
        TypePlan { oid: own, inner }
    }

    fn set_leaf(&mut self, leaf: u32) {
        if let [inner] = self.inner.as_mut_slice()
            && self.oid != VECTOR_OID
        {
            inner.set_leaf(leaf);
        } else if self.inner.is_empty() {
            self.oid = leaf;
        }
    }

    /// The plan of an array's elements.
    pub(crate) fn element(&self) -> &TypePlan {
        self.inner.first().unwrap_or(self)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn field(data_type: DataType) -> Field {
        Field::new("x", data_type, true)
    }

    fn named(data_type: DataType, name: &str) -> Field {
        field(data_type).with_metadata(HashMap::from([(PG_TYPE_KEY.to_owned(), name.to_owned())]))
    }

    #[test]
    fn every_type_is_found_by_each_of_its_names() {
        for known in TYPES {
            assert_eq!(oid_by_name(known.name), Some(known.oid));
            assert_eq!(type_name(known.oid), Some(known.name));
            if known.array_oid != 0 {
                assert_eq!(oid_by_name(known.array_name), Some(known.array_oid));
                assert_eq!(element_oid(known.array_oid), Some(known.oid));
            }
        }
        assert_eq!(sql_type_name(1007).as_deref(), Some("integer[]"));
    }

    #[test]
    fn what_a_type_is_read_as_has_that_type() {
        for known in TYPES {
            let Some(read) = data_type(known.oid) else {
                continue;
            };
            if matches!(
                known.carrier,
                Carrier::Boolean
                    | Carrier::Int16
                    | Carrier::Int32
                    | Carrier::Float32
                    | Carrier::Float64
                    | Carrier::Bytes
                    | Carrier::Numeric
                    | Carrier::Date
                    | Carrier::Time
                    | Carrier::Timestamp
                    | Carrier::TimestampTz
                    | Carrier::Interval
                    | Carrier::Uuid
                    | Carrier::Vector
            ) {
                assert_eq!(type_oid(&field(read.clone())), known.oid, "{}", known.name);
                let array = data_type(known.array_oid).expect("an array of it is read too");
                assert_eq!(type_oid(&field(array)), known.array_oid, "{}", known.name);
            }
            assert_eq!(type_oid(&named(read, known.name)), known.oid);
        }
    }

    #[test]
    fn metadata_names_another_type_for_the_same_bits() {
        assert_eq!(type_oid(&named(DataType::Int64, "oid")), 26);
        assert_eq!(type_oid(&named(DataType::Utf8, "varchar")), 1043);
        assert_eq!(type_oid(&named(DataType::Utf8, "no such type")), 25);
        assert_eq!(type_oid(&named(list_of(DataType::Utf8), "_name")), 1003);
        let names = TypePlan::of(&named(list_of(DataType::Utf8), "_name"));
        assert_eq!(names.element().oid, 19);
        let inner = DataType::List(Arc::new(named(DataType::Utf8, "name")));
        assert_eq!(type_oid(&field(inner)), 1003);
    }

    #[test]
    fn arrays_of_arrays_are_arrays() {
        assert_eq!(type_oid(&field(list_of(list_of(DataType::Int32)))), 1007);
        assert_eq!(type_oid(&field(list_of(vector_type(3)))), VECTOR_ARRAY_OID);
        assert_eq!(type_oid(&field(vector_type(3))), VECTOR_OID);
    }

    #[test]
    fn modifiers_carry_precision_and_length() {
        assert_eq!(type_modifier(&field(DataType::Decimal128(10, 2))), ((10 << 16) | 2) + 4);
        assert_eq!(type_modifier(&field(DataType::Decimal128(38, 10))), -1);
        assert_eq!(type_modifier(&field(vector_type(512))), 512);
        assert_eq!(type_modifier(&field(DataType::Utf8)), -1);
        let short = field(DataType::Utf8)
            .with_metadata(HashMap::from([(PG_TYPMOD_KEY.to_owned(), "14".to_owned())]));
        assert_eq!(type_modifier(&short), 14);
    }
}
