//! PostgreSQL's types by OID and by name, and how `format_type` writes them.
//!
//! The rows are pg_type's own (`data/pg_type.tsv`); the type `vector` and its array are ours and have the OIDs that the wire
//! protocol gives them.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::relations::{Row, SystemSchema, Value, find};

const TYPES: &str = include_str!("data/pg_type.tsv");

/// What names a type.
#[derive(Debug)]
pub(super) struct Type {
    pub(super) oid: i64,
    pub(super) name: String,
    pub(super) namespace: i64,
    /// The element's OID for arrays (and for types that can be subscripted), else 0.
    pub(super) element: i64,
    pub(super) array: i64,
    pub(super) collation: i64,
    pub(super) length: i64,
    pub(super) by_value: bool,
    pub(super) align: String,
    pub(super) storage: String,
    category: String,
}

impl Type {
    /// A true array, not a subscriptable type such as `point`.
    pub(super) fn is_array(&self) -> bool {
        self.category == "A" && self.length < 0 && self.element != 0 && self.name.starts_with('_')
    }
}

/// pg_type's rows.
pub(super) fn rows() -> Vec<Row> {
    find(SystemSchema::PgCatalog, "pg_type")
        .map(|relation| relation.parse_rows(TYPES))
        .unwrap_or_default()
}

fn table() -> &'static [Type] {
    static TABLE: LazyLock<Vec<Type>> = LazyLock::new(|| {
        let text = |row: &Row, name: &str| match row.iter().find(|(found, _)| *found == name) {
            Some((_, Value::Text(text))) => text.clone(),
            _ => String::new(),
        };
        let number = |row: &Row, name: &str| match row.iter().find(|(found, _)| *found == name) {
            Some((_, Value::Int(number))) => *number,
            _ => 0,
        };
        rows()
            .iter()
            .map(|row| Type {
                oid: number(row, "oid"),
                name: text(row, "typname"),
                namespace: number(row, "typnamespace"),
                element: number(row, "typelem"),
                array: number(row, "typarray"),
                collation: number(row, "typcollation"),
                length: number(row, "typlen"),
                by_value: row.contains(&("typbyval", Value::Bool(true))),
                align: text(row, "typalign"),
                storage: text(row, "typstorage"),
                category: text(row, "typcategory"),
            })
            .collect()
    });
    &TABLE
}

/// The type of that OID.
pub(super) fn by_oid(oid: i64) -> Option<&'static Type> {
    static INDEX: LazyLock<HashMap<i64, &'static Type>> =
        LazyLock::new(|| table().iter().map(|found| (found.oid, found)).collect());
    INDEX.get(&oid).copied()
}

/// The type that `name` means in SQL: `int4`, `integer`, `pg_catalog.text`, `bigint[]`, `varchar(5)`.
pub(super) fn by_name(name: &str) -> Option<&'static Type> {
    static INDEX: LazyLock<HashMap<&'static str, &'static Type>> =
        LazyLock::new(|| table().iter().map(|found| (found.name.as_str(), found)).collect());
    let name = name.trim();
    let name =
        name.strip_prefix("pg_catalog.").or_else(|| name.strip_prefix("public.")).unwrap_or(name);
    if let Some(element) = name.strip_suffix("[]") {
        return by_name(element).and_then(|element| by_oid(element.array));
    }
    if let Some(quoted) = name.strip_prefix('"').and_then(|name| name.strip_suffix('"')) {
        return INDEX.get(quoted).copied();
    }
    let bare = name.split('(').next().unwrap_or_default().trim().to_lowercase();
    let zoned = name.to_lowercase().ends_with("with time zone")
        && !name.to_lowercase().ends_with("without time zone");
    let internal = match bare.as_str() {
        "boolean" => "bool",
        "smallint" => "int2",
        "int" | "integer" => "int4",
        "bigint" => "int8",
        "real" => "float4",
        "double precision" | "float" => "float8",
        "decimal" | "dec" => "numeric",
        "character varying" | "char varying" => "varchar",
        "character" | "char" => "bpchar",
        "bit varying" => "varbit",
        "timestamp" if zoned => "timestamptz",
        "time" if zoned => "timetz",
        "timestamp with time zone" => "timestamptz",
        "timestamp without time zone" => "timestamp",
        "time with time zone" => "timetz",
        "time without time zone" => "time",
        other => other,
    };
    INDEX.get(internal).copied()
}

/// `format_type(oid, typmod)`: the type as SQL writes it.
pub(super) fn format_type(oid: i64, modifier: Option<i64>) -> String {
    if oid == 0 {
        return "-".to_string();
    }
    let Some(found) = by_oid(oid) else {
        return "???".to_string();
    };
    if found.is_array() {
        return format!("{}[]", format_type(found.element, modifier));
    }
    let modifier = modifier.filter(|modifier| *modifier >= 0);
    let sized = |name: &str, size: Option<i64>| match size {
        Some(size) => format!("{name}({size})"),
        None => name.to_string(),
    };
    let length = modifier.map(|modifier| modifier - 4);
    match found.name.as_str() {
        "bool" => "boolean".to_string(),
        "int2" => "smallint".to_string(),
        "int4" => "integer".to_string(),
        "int8" => "bigint".to_string(),
        "float4" => "real".to_string(),
        "float8" => "double precision".to_string(),
        "char" => "\"char\"".to_string(),
        "varchar" => sized("character varying", length),
        "bpchar" => sized("character", length),
        "bit" => sized("bit", modifier),
        "varbit" => sized("bit varying", modifier),
        "numeric" => match length {
            Some(packed) => format!("numeric({},{})", packed >> 16, packed & 0x7ff),
            None => "numeric".to_string(),
        },
        "timestamp" => format!("{} without time zone", sized("timestamp", modifier)),
        "timestamptz" => format!("{} with time zone", sized("timestamp", modifier)),
        "time" => format!("{} without time zone", sized("time", modifier)),
        "timetz" => format!("{} with time zone", sized("time", modifier)),
        "vector" => sized("vector", modifier.filter(|modifier| *modifier > 0)),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_written_as_sql_writes_them() {
        assert_eq!(format_type(20, Some(-1)), "bigint");
        assert_eq!(format_type(1009, None), "text[]");
        assert_eq!(format_type(1043, Some(9)), "character varying(5)");
        assert_eq!(format_type(1700, Some(((10 << 16) | 2) + 4)), "numeric(10,2)");
        assert_eq!(format_type(16385, Some(128)), "vector(128)");
        assert_eq!(format_type(18, None), "\"char\"");
        assert_eq!(format_type(0, None), "-");
    }

    #[test]
    fn types_are_found_by_every_name_they_have() {
        let oid = |name: &str| by_name(name).map(|found| found.oid);
        assert_eq!(oid("integer"), Some(23));
        assert_eq!(oid("pg_catalog.int4"), Some(23));
        assert_eq!(oid("text[]"), Some(1009));
        assert_eq!(oid("timestamp with time zone"), Some(1184));
        assert_eq!(oid("vector"), Some(16385));
        assert_eq!(oid("\"char\""), Some(18));
        assert_eq!(oid("nothing"), None);
    }
}
