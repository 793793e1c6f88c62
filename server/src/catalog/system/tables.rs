//! The rows of `pg_catalog`: what the server's objects, types, functions, roles and settings look like to PostgreSQL's clients.
//!
//! A relation that is not named in [`rows`] has no rows here: there are no triggers, policies, publications or foreign
//! tables to tell of. Keys, checks and indexes are in `constraints`. Rows that never change (types, functions, operators, casts) come from `data/*.tsv`,
//! written by queries over a real server and cut down to what this server has.

use std::sync::LazyLock;

use arrow::datatypes::Field;
use thanosql_protocol::types::{type_modifier, type_oid};

use super::relations::{self, Relation, Row, SystemSchema, Value, find};
use super::{
    CatalogSource, ObjectDescription, ObjectKind, Setting, TEMPORARY_SCHEMA, constraints, types,
};
use crate::catalog::sequences::{ColumnDefault, ColumnSequence, sequences_of};

const PG_AM: &str = include_str!("data/pg_am.tsv");
const PG_CAST: &str = include_str!("data/pg_cast.tsv");
const PG_COLLATION: &str = include_str!("data/pg_collation.tsv");
const PG_GET_KEYWORDS: &str = include_str!("data/pg_get_keywords.tsv");
const PG_LANGUAGE: &str = include_str!("data/pg_language.tsv");
const PG_OPERATOR: &str = include_str!("data/pg_operator.tsv");
const PG_PROC: &str = include_str!("data/pg_proc.tsv");

/// The OID of the role that owns everything.
pub(super) const OWNER: i64 = 10;
/// The OID of the one database.
pub(super) const DATABASE: i64 = 5;
/// The OIDs of the schemas that are not the system's.
const PUBLIC: i64 = 2200;
const THANOSQL: i64 = 16_384;
/// The access method of tables.
const HEAP: i64 = 2;
const DEFAULT_TABLESPACE: i64 = 1663;
const UTF8: i64 = 6;
/// OIDs of rows that only exist in these tables are derived from the object's, far above any object's own.
pub(super) const DERIVED: i64 = 1 << 31;

/// The schemas, in the order of their OIDs.
pub(super) const SCHEMAS: [(i64, &str, &str); 5] = [
    (11, "pg_catalog", "system catalog schema"),
    (PUBLIC, "public", "standard public schema"),
    (13_206, TEMPORARY_SCHEMA, ""),
    (13_207, "information_schema", ""),
    (THANOSQL, "thanosql", "models, jobs and datasets"),
];

/// The OID of a schema by its name.
pub(super) fn schema_oid(name: &str) -> i64 {
    SCHEMAS.iter().find(|(_, found, _)| *found == name).map_or(PUBLIC, |(oid, ..)| *oid)
}

/// The rows of a relation of `pg_catalog`.
pub(super) fn rows(relation: &Relation, source: &dyn CatalogSource) -> Vec<Row> {
    match relation.name {
        "pg_am" => relation.parse_rows(PG_AM),
        "pg_attrdef" => attrdef(source),
        "pg_attribute" => attribute(source),
        "pg_authid" | "pg_roles" => vec![role(source)],
        "pg_cast" => relation.parse_rows(PG_CAST),
        "pg_class" => class(source),
        "pg_collation" => relation.parse_rows(PG_COLLATION),
        "pg_constraint" => constraints::pg_constraint(source),
        "pg_cursors" => cursors(source),
        "pg_database" => vec![database(source)],
        "pg_description" => description(),
        "pg_get_keywords" => relation.parse_rows(PG_GET_KEYWORDS),
        "pg_index" => constraints::pg_index(source),
        "pg_indexes" => constraints::pg_indexes(source),
        "pg_language" => relation.parse_rows(PG_LANGUAGE),
        "pg_namespace" => namespace(),
        "pg_operator" => relation.parse_rows(PG_OPERATOR),
        "pg_proc" => relation.parse_rows(PG_PROC),
        "pg_rewrite" => rewrite(source),
        "pg_sequence" => sequences(source).iter().map(sequence_row).collect(),
        "pg_sequences" => {
            sequences(source).iter().map(|found| listed_sequence(source, found)).collect()
        }
        "pg_settings" => settings(source).iter().map(setting).collect(),
        "pg_shadow" | "pg_user" => vec![user(source)],
        "pg_stat_activity" => vec![activity(source)],
        "pg_stat_all_tables" | "pg_stat_user_tables" => table_statistics(source),
        "pg_stat_database" => vec![database_statistics(source)],
        "pg_tables" => tables(source),
        "pg_tablespace" => tablespace(),
        "pg_timezone_names" => timezone_names(),
        "pg_type" => types::rows(),
        "pg_views" => views(source),
        _ => Vec::new(),
    }
}

/// An object's relkind.
pub(super) fn relkind(kind: ObjectKind) -> &'static str {
    match kind {
        ObjectKind::Table => "r",
        ObjectKind::View => "v",
    }
}

fn namespace() -> Vec<Row> {
    SCHEMAS
        .iter()
        .map(|(oid, name, _)| {
            vec![("oid", (*oid).into()), ("nspname", (*name).into()), ("nspowner", OWNER.into())]
        })
        .collect()
}

fn class(source: &dyn CatalogSource) -> Vec<Row> {
    static SYSTEM: LazyLock<Vec<Row>> = LazyLock::new(|| {
        relations::listed()
            .map(|relation| {
                class_row(
                    relation.oid,
                    relation.name,
                    relation.schema.oid(),
                    relation.kind,
                    relation.columns.len() as i64,
                    None,
                )
            })
            .collect()
    });
    let mut rows = SYSTEM.clone();
    for object in source.objects() {
        let schema = schema_oid(&object.schema);
        let persistence = if object.schema == TEMPORARY_SCHEMA { "t" } else { "p" };
        let mut row = class_row(
            object.oid.into(),
            &object.name,
            schema,
            relkind(object.kind),
            object.columns.fields().len() as i64,
            (object.kind == ObjectKind::Table).then_some(object.row_count),
        );
        set(&mut row, "relpersistence", persistence);
        row.push(("relhasindex", constraints::indexes(&object).next().is_some().into()));
        row.push(("relchecks", (object.checks.len() as i64).into()));
        rows.push(row);
        for (_, sequence) in sequences_of(&object.columns) {
            let mut row = class_row(sequence.oid.into(), &sequence.name, schema, "S", 3, Some(1));
            set(&mut row, "relhasrules", false);
            set(&mut row, "relreplident", "n");
            set(&mut row, "relpersistence", persistence);
            rows.push(row);
        }
        for index in constraints::indexes(&object) {
            let mut row = class_row(
                index.oid,
                index.name,
                schema,
                "i",
                index.columns.len() as i64,
                Some(object.row_count),
            );
            set(&mut row, "relam", index.method);
            set(&mut row, "relhasrules", false);
            set(&mut row, "relreplident", "n");
            set(&mut row, "relfilenode", index.oid);
            set(&mut row, "relpersistence", persistence);
            rows.push(row);
        }
    }
    rows
}

/// The sequence with an OID, and the object that its column is in.
pub(super) fn sequence(
    source: &dyn CatalogSource,
    oid: i64,
) -> Option<(ObjectDescription, ColumnSequence)> {
    sequences(source)
        .into_iter()
        .find(|(_, _, sequence)| i64::from(sequence.oid) == oid)
        .map(|(object, _, sequence)| (object, sequence))
}

/// All sequences, with their objects and columns.
pub(super) fn sequences(
    source: &dyn CatalogSource,
) -> Vec<(ObjectDescription, usize, ColumnSequence)> {
    let mut found = Vec::new();
    for object in source.objects() {
        for (column, sequence) in sequences_of(&object.columns) {
            found.push((object.clone(), column, sequence));
        }
    }
    found
}

fn sequence_row((object, column, sequence): &(ObjectDescription, usize, ColumnSequence)) -> Row {
    vec![
        ("seqrelid", i64::from(sequence.oid).into()),
        ("seqtypid", i64::from(type_oid(object.columns.field(*column))).into()),
        ("seqstart", sequence.start.into()),
        ("seqincrement", sequence.increment.into()),
        ("seqmax", sequence.max.into()),
        ("seqmin", sequence.min.into()),
        ("seqcache", 1.into()),
        ("seqcycle", sequence.cycle.into()),
    ]
}

fn listed_sequence(
    source: &dyn CatalogSource,
    (object, column, sequence): &(ObjectDescription, usize, ColumnSequence),
) -> Row {
    vec![
        ("schemaname", object.schema.as_str().into()),
        ("sequencename", sequence.name.as_str().into()),
        ("sequenceowner", source.user().into()),
        ("data_type", i64::from(type_oid(object.columns.field(*column))).into()),
        ("start_value", sequence.start.into()),
        ("min_value", sequence.min.into()),
        ("max_value", sequence.max.into()),
        ("increment_by", sequence.increment.into()),
        ("cycle", sequence.cycle.into()),
        ("cache_size", 1.into()),
    ]
}

/// Gives a column of a row another value.
fn set(row: &mut Row, column: &str, value: impl Into<Value>) {
    if let Some((_, old)) = row.iter_mut().find(|(name, _)| *name == column) {
        *old = value.into();
    }
}

fn class_row(
    oid: i64,
    name: &str,
    namespace: i64,
    kind: &'static str,
    columns: i64,
    rows: Option<u64>,
) -> Row {
    let stored = kind == "r";
    vec![
        ("oid", oid.into()),
        ("relname", name.into()),
        ("relnamespace", namespace.into()),
        ("relowner", OWNER.into()),
        ("relam", if stored { HEAP } else { 0 }.into()),
        ("relfilenode", if stored { oid } else { 0 }.into()),
        ("reltuples", rows.map_or(-1.0, |rows| rows as f64).into()),
        ("relpersistence", "p".into()),
        ("relkind", kind.into()),
        ("relnatts", columns.into()),
        ("relhasrules", (!stored).into()),
        ("relispopulated", true.into()),
        ("relreplident", if rows.is_some() { "d" } else { "n" }.into()),
    ]
}

fn attribute(source: &dyn CatalogSource) -> Vec<Row> {
    static SYSTEM: LazyLock<Vec<Row>> = LazyLock::new(|| {
        relations::listed()
            .flat_map(|relation| {
                relation.columns.iter().enumerate().map(|(position, column)| {
                    let kind = column.kind;
                    attribute_row(
                        relation.oid,
                        column.name,
                        kind.type_oid(),
                        -1,
                        position as i64 + 1,
                        column.not_null,
                        false,
                    )
                })
            })
            .collect()
    });
    let mut rows = SYSTEM.clone();
    for object in source.objects() {
        rows.extend(object.columns.fields().iter().enumerate().map(|(position, field)| {
            let mut row = attribute_row(
                object.oid.into(),
                field.name(),
                type_oid(field).into(),
                type_modifier(field).into(),
                position as i64 + 1,
                !field.is_nullable() && object.kind == ObjectKind::Table,
                ColumnDefault::of(field).shown().is_some(),
            );
            row.extend(identity(field).map(|identity| ("attidentity", identity.into())));
            row
        }));
        for index in constraints::indexes(&object) {
            rows.extend(index.columns.iter().enumerate().map(|(position, column)| {
                let field = object.columns.field(*column);
                attribute_row(
                    index.oid,
                    field.name(),
                    type_oid(field).into(),
                    type_modifier(field).into(),
                    position as i64 + 1,
                    false,
                    false,
                )
            }));
        }
    }
    rows
}

/// A column's attidentity, if it is an identity column.
pub(super) fn identity(field: &Field) -> Option<&'static str> {
    match ColumnDefault::of(field) {
        ColumnDefault::Identity { always: true, .. } => Some("a"),
        ColumnDefault::Identity { always: false, .. } => Some("d"),
        ColumnDefault::Null | ColumnDefault::Expression(_) => None,
    }
}

fn attribute_row(
    relation: i64,
    name: &str,
    type_oid: i64,
    modifier: i64,
    number: i64,
    not_null: bool,
    has_default: bool,
) -> Row {
    let found = types::by_oid(type_oid);
    vec![
        ("attrelid", relation.into()),
        ("attname", name.into()),
        ("atttypid", type_oid.into()),
        ("attstattarget", (-1).into()),
        ("attlen", found.map_or(-1, |found| found.length).into()),
        ("attnum", number.into()),
        ("attndims", i64::from(found.is_some_and(types::Type::is_array)).into()),
        ("attcacheoff", (-1).into()),
        ("atttypmod", modifier.into()),
        ("attbyval", found.is_some_and(|found| found.by_value).into()),
        ("attalign", found.map_or("i", |found| found.align.as_str()).into()),
        ("attstorage", found.map_or("x", |found| found.storage.as_str()).into()),
        ("attnotnull", not_null.into()),
        ("atthasdef", has_default.into()),
        ("attislocal", true.into()),
        ("attcollation", found.map_or(0, |found| found.collation).into()),
    ]
}

/// The defaults of an object's columns: number and SQL text.
fn defaults(object: &ObjectDescription) -> impl Iterator<Item = (i64, String)> {
    let columns = object.columns.fields().iter().enumerate();
    columns.filter_map(|(position, field)| {
        Some((position as i64 + 1, ColumnDefault::of(field).shown()?))
    })
}

fn attrdef(source: &dyn CatalogSource) -> Vec<Row> {
    let mut rows = Vec::new();
    for object in source.objects() {
        for (number, text) in defaults(&object) {
            rows.push(vec![
                ("oid", (DERIVED + i64::from(object.oid) * 2048 + number).into()),
                ("adrelid", i64::from(object.oid).into()),
                ("adnum", number.into()),
                ("adbin", text.into()),
            ]);
        }
    }
    rows
}

fn cursors(source: &dyn CatalogSource) -> Vec<Row> {
    let microseconds = |time: std::time::SystemTime| {
        let since = time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    };
    source
        .cursors()
        .into_iter()
        .map(|cursor| {
            vec![
                ("name", cursor.name.into()),
                ("statement", cursor.statement.into()),
                ("is_holdable", cursor.holdable.into()),
                ("is_binary", false.into()),
                ("is_scrollable", cursor.scrollable.into()),
                ("creation_time", microseconds(cursor.created).into()),
            ]
        })
        .collect()
}

fn rewrite(source: &dyn CatalogSource) -> Vec<Row> {
    source
        .objects()
        .iter()
        .filter(|object| object.kind == ObjectKind::View)
        .map(|object| {
            vec![
                ("oid", (DERIVED + i64::from(object.oid)).into()),
                ("rulename", "_RETURN".into()),
                ("ev_class", i64::from(object.oid).into()),
                ("ev_type", "1".into()),
                ("ev_enabled", "O".into()),
                ("is_instead", true.into()),
                ("ev_qual", "<>".into()),
                ("ev_action", object.definition.as_deref().unwrap_or_default().into()),
            ]
        })
        .collect()
}

fn role(source: &dyn CatalogSource) -> Row {
    vec![
        ("oid", OWNER.into()),
        ("rolname", source.user().into()),
        ("rolsuper", true.into()),
        ("rolinherit", true.into()),
        ("rolcreaterole", true.into()),
        ("rolcreatedb", true.into()),
        ("rolcanlogin", true.into()),
        ("rolreplication", false.into()),
        ("rolconnlimit", (-1).into()),
        ("rolpassword", "********".into()),
        ("rolbypassrls", true.into()),
    ]
}

fn user(source: &dyn CatalogSource) -> Row {
    vec![
        ("usename", source.user().into()),
        ("usesysid", OWNER.into()),
        ("usecreatedb", true.into()),
        ("usesuper", true.into()),
        ("userepl", false.into()),
        ("usebypassrls", true.into()),
        ("passwd", "********".into()),
    ]
}

fn database(source: &dyn CatalogSource) -> Row {
    vec![
        ("oid", DATABASE.into()),
        ("datname", source.database().into()),
        ("datdba", OWNER.into()),
        ("encoding", UTF8.into()),
        ("datlocprovider", "c".into()),
        ("datallowconn", true.into()),
        ("datconnlimit", (-1).into()),
        ("dattablespace", DEFAULT_TABLESPACE.into()),
        ("datcollate", "C".into()),
        ("datctype", "C".into()),
    ]
}

fn tablespace() -> Vec<Row> {
    vec![vec![
        ("oid", DEFAULT_TABLESPACE.into()),
        ("spcname", "pg_default".into()),
        ("spcowner", OWNER.into()),
    ]]
}

fn description() -> Vec<Row> {
    let mut rows: Vec<Row> = SCHEMAS
        .iter()
        .filter(|(_, _, text)| !text.is_empty())
        .map(|(oid, _, text)| {
            vec![
                ("objoid", (*oid).into()),
                ("classoid", 2615.into()),
                ("description", (*text).into()),
            ]
        })
        .collect();
    rows.push(vec![
        ("objoid", 16_385.into()),
        ("classoid", 1247.into()),
        ("description", "a vector of float4: the embedding of an image".into()),
    ]);
    rows
}

/// Settings of PostgreSQL that nothing here depends on and clients ask for.
const FIXED_SETTINGS: [(&str, &str, &str); 14] = [
    ("block_size", "8192", "Preset Options"),
    ("default_table_access_method", "heap", "Client Connection Defaults / Statement Behavior"),
    ("default_tablespace", "", "Client Connection Defaults / Statement Behavior"),
    ("jit", "off", "Query Tuning / Other Planner Options"),
    ("lc_collate", "C", "Preset Options"),
    ("lc_ctype", "C", "Preset Options"),
    ("max_function_args", "100", "Preset Options"),
    ("max_identifier_length", "63", "Preset Options"),
    ("max_index_keys", "32", "Preset Options"),
    ("row_security", "on", "Client Connection Defaults / Statement Behavior"),
    ("server_encoding", "UTF8", "Preset Options"),
    ("server_version", super::SERVER_VERSION, "Preset Options"),
    ("server_version_num", super::SERVER_VERSION_NUMBER, "Preset Options"),
    (
        "standard_conforming_strings",
        "on",
        "Version and Platform Compatibility / Previous PostgreSQL Versions",
    ),
];

/// The session's settings and the fixed ones that it does not have.
fn settings(source: &dyn CatalogSource) -> Vec<Setting> {
    let mut settings = source.settings();
    for (name, value, category) in FIXED_SETTINGS {
        if !settings.iter().any(|setting| setting.name.eq_ignore_ascii_case(name)) {
            settings.push(Setting {
                name: name.to_string(),
                value: value.to_string(),
                unit: String::new(),
                category: category.to_string(),
                description: String::new(),
                default: value.to_string(),
            });
        }
    }
    settings.sort_by_key(|setting| setting.name.to_lowercase());
    settings
}

fn setting(setting: &Setting) -> Row {
    vec![
        ("name", setting.name.clone().into()),
        ("setting", setting.value.clone().into()),
        ("unit", (!setting.unit.is_empty()).then(|| setting.unit.clone()).into()),
        ("category", setting.category.clone().into()),
        ("short_desc", setting.description.clone().into()),
        ("context", "user".into()),
        ("vartype", vartype(setting).into()),
        ("source", if setting.value == setting.default { "default" } else { "session" }.into()),
        ("boot_val", setting.default.clone().into()),
        ("reset_val", setting.default.clone().into()),
        ("pending_restart", false.into()),
    ]
}

fn vartype(setting: &Setting) -> &'static str {
    if matches!(setting.default.as_str(), "on" | "off") {
        "bool"
    } else if setting.default.parse::<i64>().is_ok() {
        "integer"
    } else if setting.default.parse::<f64>().is_ok() {
        "real"
    } else {
        "string"
    }
}

fn activity(source: &dyn CatalogSource) -> Row {
    vec![
        ("datid", DATABASE.into()),
        ("datname", source.database().into()),
        ("pid", i64::from(source.connection_id()).into()),
        ("usesysid", OWNER.into()),
        ("usename", source.user().into()),
        ("application_name", setting_value(source, "application_name").into()),
        ("state", "active".into()),
        ("backend_type", "client backend".into()),
    ]
}

/// The value of a setting, by its name in any case.
pub(super) fn setting_value(source: &dyn CatalogSource, name: &str) -> Option<String> {
    settings(source)
        .into_iter()
        .find(|setting| setting.name.eq_ignore_ascii_case(name))
        .map(|setting| setting.value)
}

fn database_statistics(source: &dyn CatalogSource) -> Row {
    vec![
        ("datid", DATABASE.into()),
        ("datname", source.database().into()),
        ("numbackends", 1.into()),
    ]
}

fn stored(source: &dyn CatalogSource) -> Vec<ObjectDescription> {
    source.objects().into_iter().filter(|object| object.kind == ObjectKind::Table).collect()
}

fn table_statistics(source: &dyn CatalogSource) -> Vec<Row> {
    stored(source)
        .iter()
        .map(|object| {
            let zero = Value::Int(0);
            vec![
                ("relid", i64::from(object.oid).into()),
                ("schemaname", object.schema.as_str().into()),
                ("relname", object.name.as_str().into()),
                ("seq_scan", zero.clone()),
                ("seq_tup_read", zero.clone()),
                ("n_tup_ins", zero.clone()),
                ("n_tup_upd", zero.clone()),
                ("n_tup_del", zero.clone()),
                ("n_live_tup", i64::try_from(object.row_count).ok().into()),
                ("n_dead_tup", zero),
            ]
        })
        .collect()
}

fn tables(source: &dyn CatalogSource) -> Vec<Row> {
    let row = |schema: &str, name: &str, owner: &str, indexed: bool| -> Row {
        vec![
            ("schemaname", schema.into()),
            ("tablename", name.into()),
            ("tableowner", owner.into()),
        ]
        .into_iter()
        .chain(["hasrules", "hastriggers", "rowsecurity"].map(|name| (name, false.into())))
        .chain([("hasindexes", indexed.into())])
        .collect()
    };
    let owner = source.user();
    let system = relations::listed()
        .filter(|relation| relation.kind == "r")
        .map(|relation| row(relation.schema.name(), relation.name, &owner, false));
    let mut rows: Vec<Row> = system.collect();
    rows.extend(stored(source).iter().map(|object| {
        row(&object.schema, &object.name, &owner, constraints::indexes(object).next().is_some())
    }));
    rows
}

fn views(source: &dyn CatalogSource) -> Vec<Row> {
    source
        .objects()
        .iter()
        .filter(|object| object.kind == ObjectKind::View)
        .map(|object| {
            vec![
                ("schemaname", object.schema.as_str().into()),
                ("viewname", object.name.as_str().into()),
                ("viewowner", source.user().into()),
                ("definition", object.definition.clone().into()),
            ]
        })
        .collect()
}

fn timezone_names() -> Vec<Row> {
    vec![vec![("name", "UTC".into()), ("abbrev", "UTC".into()), ("is_dst", false.into())]]
}

/// What names a function of pg_proc.
#[derive(Debug)]
pub(super) struct Function {
    pub(super) oid: i64,
    pub(super) name: String,
    pub(super) result: i64,
    pub(super) returns_set: bool,
    pub(super) arguments: Vec<i64>,
    pub(super) names: Vec<String>,
}

/// pg_proc's functions, for looking one up.
pub(super) fn functions() -> &'static [Function] {
    static FUNCTIONS: LazyLock<Vec<Function>> = LazyLock::new(|| {
        let rows = find(SystemSchema::PgCatalog, "pg_proc")
            .map(|relation| relation.parse_rows(PG_PROC))
            .unwrap_or_default();
        rows.into_iter().map(function).collect()
    });
    &FUNCTIONS
}

fn function(row: Row) -> Function {
    let mut function = Function {
        oid: 0,
        name: String::new(),
        result: 0,
        returns_set: false,
        arguments: Vec::new(),
        names: Vec::new(),
    };
    for (name, value) in row {
        match (name, value) {
            ("oid", Value::Int(oid)) => function.oid = oid,
            ("proname", Value::Text(name)) => function.name = name,
            ("prorettype", Value::Int(result)) => function.result = result,
            ("proretset", Value::Bool(set)) => function.returns_set = set,
            ("proargtypes", Value::List(types)) => {
                function.arguments = types
                    .iter()
                    .filter_map(|value| if let Value::Int(oid) = value { Some(*oid) } else { None })
                    .collect();
            }
            ("proargnames", Value::List(names)) => {
                function.names = names
                    .into_iter()
                    .filter_map(
                        |value| if let Value::Text(name) = value { Some(name) } else { None },
                    )
                    .collect();
            }
            _ => {}
        }
    }
    function
}
