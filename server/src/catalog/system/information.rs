//! The rows of `information_schema`: the standard's view of the same objects.
//!
//! As in PostgreSQL every catalog name is the connection's database. Routines, triggers and foreign keys have no rows.

use thanosql_protocol::types::{type_modifier, type_oid};

use super::relations::{self, Relation, Row, Value};
use super::{
    CatalogSource, ObjectDescription, ObjectKind, TEMPORARY_SCHEMA, constraints, tables, types,
};
use crate::catalog::sequences::{ColumnDefault, ColumnSequence};

const TABLE_PRIVILEGES: [&str; 5] = ["INSERT", "SELECT", "UPDATE", "DELETE", "TRUNCATE"];

/// The rows of a relation of `information_schema`.
pub(super) fn rows(relation: &Relation, source: &dyn CatalogSource) -> Vec<Row> {
    match relation.name {
        "information_schema_catalog_name" => vec![vec![("catalog_name", source.database().into())]],
        "schemata" => schemata(source),
        "tables" => all_tables(source),
        "columns" => columns(source),
        "views" => views(source),
        "character_sets" => vec![character_set(source)],
        "collations" => vec![collation(source)],
        "enabled_roles" | "applicable_roles" => vec![vec![("role_name", source.user().into())]],
        "table_privileges" | "role_table_grants" => table_privileges(source),
        "column_privileges" | "role_column_grants" => column_privileges(source),
        "sequences" => sequences(source),
        view => constraints::information(source, view),
    }
}

fn sequences(source: &dyn CatalogSource) -> Vec<Row> {
    let row = |(object, column, sequence): &(ObjectDescription, usize, ColumnSequence)| -> Row {
        let found = types::by_oid(type_oid(object.columns.field(*column)).into());
        let bits = found.map_or(64, |found| found.length * 8);
        vec![
            ("sequence_catalog", source.database().into()),
            ("sequence_schema", object.schema.as_str().into()),
            ("sequence_name", sequence.name.as_str().into()),
            ("data_type", found.map(|found| types::format_type(found.oid, None)).into()),
            ("numeric_precision", bits.into()),
            ("numeric_precision_radix", 2.into()),
            ("numeric_scale", 0.into()),
            ("start_value", sequence.start.to_string().into()),
            ("minimum_value", sequence.min.to_string().into()),
            ("maximum_value", sequence.max.to_string().into()),
            ("increment", sequence.increment.to_string().into()),
            ("cycle_option", yes_or_no(sequence.cycle)),
        ]
    };
    tables::sequences(source).iter().map(row).collect()
}

fn schemata(source: &dyn CatalogSource) -> Vec<Row> {
    tables::SCHEMAS
        .iter()
        .map(|(_, name, _)| {
            vec![
                ("catalog_name", source.database().into()),
                ("schema_name", (*name).into()),
                ("schema_owner", source.user().into()),
            ]
        })
        .collect()
}

fn all_tables(source: &dyn CatalogSource) -> Vec<Row> {
    let database = source.database();
    let row = |schema: &str, name: &str, stored: bool, insertable: bool| -> Row {
        vec![
            ("table_catalog", database.as_str().into()),
            ("table_schema", schema.into()),
            ("table_name", name.into()),
            (
                "table_type",
                match (schema == TEMPORARY_SCHEMA, stored) {
                    (true, _) => "LOCAL TEMPORARY",
                    (false, true) => "BASE TABLE",
                    (false, false) => "VIEW",
                }
                .into(),
            ),
            ("is_insertable_into", yes_or_no(insertable)),
            ("is_typed", "NO".into()),
        ]
    };
    let system = relations::listed()
        .map(|relation| row(relation.schema.name(), relation.name, relation.kind == "r", false));
    let mut rows: Vec<Row> = system.collect();
    rows.extend(source.objects().iter().map(|object| {
        let stored = object.kind == ObjectKind::Table;
        row(&object.schema, &object.name, stored, stored)
    }));
    rows
}

fn yes_or_no(yes: bool) -> Value {
    if yes { "YES" } else { "NO" }.into()
}

fn columns(source: &dyn CatalogSource) -> Vec<Row> {
    let database = source.database();
    let mut rows = Vec::new();
    for relation in relations::listed() {
        for (position, column) in relation.columns.iter().enumerate() {
            let mut row =
                place(&database, relation.schema.name(), relation.name, column.name, position);
            row.extend(column_type(&database, column.kind.type_oid(), -1));
            row.extend(column_rest(position, !column.not_null, None, false));
            rows.push(row);
        }
    }
    for object in source.objects() {
        for (position, field) in object.columns.fields().iter().enumerate() {
            let mut row = place(&database, &object.schema, &object.name, field.name(), position);
            row.extend(column_type(&database, type_oid(field).into(), type_modifier(field).into()));
            let stored = object.kind == ObjectKind::Table;
            row.extend(column_rest(
                position,
                field.is_nullable() || !stored,
                ColumnDefault::of(field).shown(),
                stored,
            ));
            if let Some(identity) = tables::identity(field) {
                row.retain(|(name, _)| *name != "is_identity");
                row.push(("is_identity", "YES".into()));
                let generation = if identity == "a" { "ALWAYS" } else { "BY DEFAULT" };
                row.push(("identity_generation", generation.into()));
            }
            rows.push(row);
        }
    }
    rows
}

fn place(database: &str, schema: &str, table: &str, column: &str, position: usize) -> Row {
    vec![
        ("table_catalog", database.into()),
        ("table_schema", schema.into()),
        ("table_name", table.into()),
        ("column_name", column.into()),
        ("ordinal_position", (position as i64 + 1).into()),
    ]
}

fn column_rest(position: usize, nullable: bool, default: Option<String>, updatable: bool) -> Row {
    vec![
        ("column_default", default.into()),
        ("is_nullable", yes_or_no(nullable)),
        ("dtd_identifier", (position + 1).to_string().into()),
        ("is_self_referencing", "NO".into()),
        ("is_identity", "NO".into()),
        ("identity_cycle", "NO".into()),
        ("is_generated", "NEVER".into()),
        ("is_updatable", yes_or_no(updatable)),
    ]
}

/// The columns that tell a column's type.
fn column_type(database: &str, oid: i64, modifier: i64) -> Row {
    let Some(found) = types::by_oid(oid) else {
        return Vec::new();
    };
    let name = if found.is_array() {
        "ARRAY".to_string()
    } else if found.namespace == tables::schema_oid("pg_catalog") {
        types::format_type(oid, None)
    } else {
        "USER-DEFINED".to_string()
    };
    let length = (modifier >= 4).then_some(modifier - 4);
    let mut row: Row = vec![
        ("data_type", name.into()),
        ("udt_catalog", database.into()),
        ("udt_schema", if found.namespace == 11 { "pg_catalog" } else { "public" }.into()),
        ("udt_name", found.name.as_str().into()),
    ];
    match found.name.as_str() {
        "varchar" | "bpchar" => {
            row.push(("character_maximum_length", length.into()));
            row.push((
                "character_octet_length",
                length.map_or(1_073_741_824, |length| length * 4).into(),
            ));
        }
        "text" => row.push(("character_octet_length", 1_073_741_824.into())),
        "int2" => row.extend(precision(16, 2, Some(0))),
        "int4" => row.extend(precision(32, 2, Some(0))),
        "int8" => row.extend(precision(64, 2, Some(0))),
        "float4" => row.extend(precision(24, 2, None)),
        "float8" => row.extend(precision(53, 2, None)),
        "numeric" => {
            if let Some(packed) = length {
                row.extend(precision(packed >> 16, 10, Some(packed & 0x7ff)));
            } else {
                row.push(("numeric_precision_radix", 10.into()));
            }
        }
        "date" => row.push(("datetime_precision", 0.into())),
        "timestamp" | "timestamptz" | "time" | "timetz" | "interval" => {
            row.push(("datetime_precision", 6.into()))
        }
        _ => {}
    }
    row
}

fn precision(digits: i64, radix: i64, scale: Option<i64>) -> Row {
    vec![
        ("numeric_precision", digits.into()),
        ("numeric_precision_radix", radix.into()),
        ("numeric_scale", scale.into()),
    ]
}

fn views(source: &dyn CatalogSource) -> Vec<Row> {
    let row = |object: &ObjectDescription| -> Row {
        vec![
            ("table_catalog", source.database().into()),
            ("table_schema", object.schema.as_str().into()),
            ("table_name", object.name.as_str().into()),
            ("view_definition", object.definition.clone().into()),
            ("check_option", "NONE".into()),
            ("is_updatable", "NO".into()),
            ("is_insertable_into", "NO".into()),
            ("is_trigger_updatable", "NO".into()),
            ("is_trigger_deletable", "NO".into()),
            ("is_trigger_insertable_into", "NO".into()),
        ]
    };
    source.objects().iter().filter(|object| object.kind == ObjectKind::View).map(row).collect()
}

fn character_set(source: &dyn CatalogSource) -> Row {
    vec![
        ("character_set_name", "UTF8".into()),
        ("character_repertoire", "UCS".into()),
        ("form_of_use", "UTF8".into()),
        ("default_collate_catalog", source.database().into()),
        ("default_collate_schema", "pg_catalog".into()),
        ("default_collate_name", "C".into()),
    ]
}

fn collation(source: &dyn CatalogSource) -> Row {
    vec![
        ("collation_catalog", source.database().into()),
        ("collation_schema", "pg_catalog".into()),
        ("collation_name", "C".into()),
        ("pad_attribute", "NO PAD".into()),
    ]
}

fn privilege(source: &dyn CatalogSource, object: &ObjectDescription, privilege: &str) -> Row {
    vec![
        ("grantor", source.user().into()),
        ("grantee", source.user().into()),
        ("table_catalog", source.database().into()),
        ("table_schema", object.schema.as_str().into()),
        ("table_name", object.name.as_str().into()),
        ("privilege_type", privilege.into()),
        ("is_grantable", "YES".into()),
    ]
}

fn table_privileges(source: &dyn CatalogSource) -> Vec<Row> {
    let mut rows = Vec::new();
    for object in source.objects() {
        for name in TABLE_PRIVILEGES {
            let mut row = privilege(source, &object, name);
            row.push(("with_hierarchy", yes_or_no(name == "SELECT")));
            rows.push(row);
        }
    }
    rows
}

fn column_privileges(source: &dyn CatalogSource) -> Vec<Row> {
    let mut rows = Vec::new();
    for object in source.objects() {
        for field in object.columns.fields() {
            for name in ["INSERT", "SELECT", "UPDATE"] {
                let mut row = privilege(source, &object, name);
                row.push(("column_name", field.name().as_str().into()));
                rows.push(row);
            }
        }
    }
    rows
}
