//! Keys and checks in the system catalog: pg_constraint, pg_index, pg_indexes, the parts of pg_class and pg_attribute that indexes
//! have, the information schema's views of constraints, and the definitions that `pg_get_constraintdef` and `pg_get_indexdef` give.
//!
//! A key is a constraint and an index. The index has the key's own OID, the constraint one that is derived from it. An index over vectors is an index alone.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use arrow::datatypes::Schema;
use sqlparser::ast as pg;

use super::relations::{Row, Value};
use super::{CatalogSource, KeyDescription, ObjectDescription, tables};
use crate::catalog::vector_index::{METHOD, VectorIndex};
use crate::sql::{self, quote_ident};

/// The access method of a key's index.
const BTREE: i64 = 403;

/// The access method of an index over vectors, as pg_am.tsv has it.
const HNSW: i64 = 16_399;

/// An index: a key's, or one over vectors.
pub(super) struct Index<'a> {
    pub(super) oid: i64,
    pub(super) name: &'a str,
    /// Places of its columns in the table.
    pub(super) columns: Vec<usize>,
    /// Its access method.
    pub(super) method: i64,
    is_unique: bool,
    is_primary: bool,
    vectors: Option<&'a VectorIndex>,
}

/// The indexes of an object.
pub(super) fn indexes(object: &ObjectDescription) -> impl Iterator<Item = Index<'_>> {
    let keys = object.keys.iter().map(|key| Index {
        oid: key.oid.into(),
        name: &key.name,
        columns: key.columns.clone(),
        method: BTREE,
        is_unique: true,
        is_primary: key.primary,
        vectors: None,
    });
    keys.chain(object.vector_indexes.iter().map(|index| Index {
        oid: index.oid.into(),
        name: &index.name,
        columns: vec![index.column],
        method: HNSW,
        is_unique: false,
        is_primary: false,
        vectors: Some(index),
    }))
}

/// The OID of a key's constraint.
pub(super) fn constraint_oid(key: &KeyDescription) -> i64 {
    tables::DERIVED + i64::from(key.oid)
}

/// The object that has the index with an OID, and the index's name.
pub(super) fn index(source: &dyn CatalogSource, oid: i64) -> Option<(ObjectDescription, String)> {
    source.objects().into_iter().find_map(|object| {
        let name = indexes(&object).find(|index| index.oid == oid)?.name.to_owned();
        Some((object, name))
    })
}

fn column_names<'a>(object: &'a ObjectDescription, columns: &[usize]) -> Vec<&'a str> {
    columns.iter().map(|column| object.columns.field(*column).name().as_str()).collect()
}

fn column_list(object: &ObjectDescription, columns: &[usize]) -> String {
    column_names(object, columns).into_iter().map(quote_ident).collect::<Vec<_>>().join(", ")
}

/// Column numbers count from 1.
fn numbers(columns: &[usize]) -> Value {
    columns.iter().map(|column| *column as i64 + 1).collect::<Vec<_>>().into()
}

fn repeated(value: i64, count: usize) -> Value {
    vec![value; count].into()
}

/// `pg_get_indexdef`: the whole statement, or one column.
pub(super) fn index_definition(
    source: &dyn CatalogSource,
    oid: i64,
    column: i64,
) -> Option<String> {
    let (object, _) = index(source, oid)?;
    let index = indexes(&object).find(|index| index.oid == oid)?;
    match usize::try_from(column) {
        Ok(0) => Some(create_index(&object, &index)),
        Ok(column) => {
            let name = column_names(&object, &index.columns).get(column - 1).copied()?;
            Some(quote_ident(name))
        }
        Err(_) => None,
    }
}

fn create_index(object: &ObjectDescription, index: &Index<'_>) -> String {
    let columns = column_list(object, &index.columns);
    let (kind, by) = match index.vectors {
        None => ("UNIQUE INDEX", format!("btree ({columns})")),
        Some(VectorIndex { operators, m, ef_construction, .. }) => {
            let class = operators.name();
            let with = format!("WITH (m='{m}', ef_construction='{ef_construction}')");
            ("INDEX", format!("{METHOD} ({columns} {class}) {with}"))
        }
    };
    format!(
        "CREATE {kind} {} ON {}.{} USING {by}",
        quote_ident(index.name),
        quote_ident(&object.schema),
        quote_ident(&object.name),
    )
}

/// `pg_get_constraintdef`.
pub(super) fn constraint_definition(
    source: &dyn CatalogSource,
    oid: i64,
    pretty: bool,
) -> Option<String> {
    source.objects().iter().find_map(|object| {
        if let Some(key) = object.keys.iter().find(|key| constraint_oid(key) == oid) {
            let kind = if key.primary { "PRIMARY KEY" } else { "UNIQUE" };
            return Some(format!("{kind} ({})", column_list(object, &key.columns)));
        }
        let check = object.checks.iter().find(|check| i64::from(check.oid) == oid)?;
        Some(match pretty {
            true => format!("CHECK ({})", check.expression),
            false => format!("CHECK (({}))", check.expression),
        })
    })
}

pub(super) fn pg_constraint(source: &dyn CatalogSource) -> Vec<Row> {
    let mut rows = Vec::new();
    for object in source.objects() {
        let shared = |oid: i64, name: &str, kind: &str, columns: &[usize]| -> Row {
            vec![
                ("oid", oid.into()),
                ("conname", name.into()),
                ("connamespace", tables::schema_oid(&object.schema).into()),
                ("contype", kind.into()),
                ("condeferrable", false.into()),
                ("condeferred", false.into()),
                ("convalidated", true.into()),
                ("conrelid", i64::from(object.oid).into()),
                ("confupdtype", " ".into()),
                ("confdeltype", " ".into()),
                ("confmatchtype", " ".into()),
                ("conislocal", true.into()),
                ("conkey", numbers(columns)),
            ]
        };
        for key in &object.keys {
            let kind = if key.primary { "p" } else { "u" };
            let mut row = shared(constraint_oid(key), &key.name, kind, &key.columns);
            row.push(("conindid", i64::from(key.oid).into()));
            row.push(("connoinherit", true.into()));
            rows.push(row);
        }
        for check in &object.checks {
            let columns = columns_in(&check.expression, &object.columns);
            let mut row = shared(check.oid.into(), &check.name, "c", &columns);
            row.push(("conbin", check.expression.as_str().into()));
            rows.push(row);
        }
    }
    rows
}

pub(super) fn pg_index(source: &dyn CatalogSource) -> Vec<Row> {
    let mut rows = Vec::new();
    for object in source.objects() {
        for index in indexes(&object) {
            let count = index.columns.len();
            rows.push(vec![
                ("indexrelid", index.oid.into()),
                ("indrelid", i64::from(object.oid).into()),
                ("indnatts", (count as i64).into()),
                ("indnkeyatts", (count as i64).into()),
                ("indisunique", index.is_unique.into()),
                ("indisprimary", index.is_primary.into()),
                ("indimmediate", true.into()),
                ("indisvalid", true.into()),
                ("indisready", true.into()),
                ("indislive", true.into()),
                ("indkey", numbers(&index.columns)),
                ("indcollation", repeated(0, count)),
                ("indclass", repeated(0, count)),
                ("indoption", repeated(0, count)),
            ]);
        }
    }
    rows
}

pub(super) fn pg_indexes(source: &dyn CatalogSource) -> Vec<Row> {
    let mut rows = Vec::new();
    for object in source.objects() {
        for index in indexes(&object) {
            rows.push(vec![
                ("schemaname", object.schema.as_str().into()),
                ("tablename", object.name.as_str().into()),
                ("indexname", index.name.into()),
                ("indexdef", create_index(&object, &index).into()),
            ]);
        }
    }
    rows
}

/// A constraint, as the information schema's views need it.
struct Constraint {
    name: String,
    kind: &'static str,
    columns: Vec<usize>,
    clause: Option<String>,
}

fn constraints(object: &ObjectDescription) -> Vec<Constraint> {
    let keys = object.keys.iter().map(|key| Constraint {
        name: key.name.clone(),
        kind: if key.primary { "PRIMARY KEY" } else { "UNIQUE" },
        columns: key.columns.clone(),
        clause: None,
    });
    let checks = object.checks.iter().map(|check| Constraint {
        name: check.name.clone(),
        kind: "CHECK",
        columns: columns_in(&check.expression, &object.columns),
        clause: Some(format!("(({}))", check.expression)),
    });
    keys.chain(checks).collect()
}

/// The columns that an expression names.
fn columns_in(expression: &str, schema: &Schema) -> Vec<usize> {
    struct Finder<'a>(&'a Schema, BTreeSet<usize>);
    impl pg::Visitor for Finder<'_> {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &pg::Expr) -> ControlFlow<()> {
            let ident = match expr {
                pg::Expr::Identifier(ident) => Some(ident),
                pg::Expr::CompoundIdentifier(parts) => parts.last(),
                _ => None,
            };
            self.1.extend(ident.and_then(|ident| self.0.index_of(&sql::fold(ident)).ok()));
            ControlFlow::Continue(())
        }
    }
    let mut finder = Finder(schema, BTreeSet::new());
    if let Ok(expression) = sql::parse_expression(expression) {
        let _ = pg::Visit::visit(&expression, &mut finder);
    }
    finder.1.into_iter().collect()
}

fn place(source: &dyn CatalogSource, object: &ObjectDescription, constraint: &Constraint) -> Row {
    vec![
        ("constraint_catalog", source.database().into()),
        ("constraint_schema", object.schema.as_str().into()),
        ("constraint_name", constraint.name.as_str().into()),
    ]
}

fn table(source: &dyn CatalogSource, object: &ObjectDescription) -> Row {
    vec![
        ("table_catalog", source.database().into()),
        ("table_schema", object.schema.as_str().into()),
        ("table_name", object.name.as_str().into()),
    ]
}

/// The rows of one of the information schema's views of constraints.
pub(super) fn information(source: &dyn CatalogSource, view: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    for object in source.objects() {
        for constraint in constraints(&object) {
            let mut row = place(source, &object, &constraint);
            let is_key = constraint.kind != "CHECK";
            match view {
                "table_constraints" => {
                    row.extend(table(source, &object));
                    row.push(("constraint_type", constraint.kind.into()));
                    row.push(("is_deferrable", "NO".into()));
                    row.push(("initially_deferred", "NO".into()));
                    row.push(("enforced", "YES".into()));
                    let distinct = (constraint.kind == "UNIQUE").then_some("YES");
                    row.push(("nulls_distinct", distinct.into()));
                    rows.push(row);
                }
                "constraint_table_usage" if is_key => {
                    row.extend(table(source, &object));
                    rows.push(row);
                }
                "check_constraints" => {
                    if let Some(clause) = constraint.clause {
                        row.push(("check_clause", clause.into()));
                        rows.push(row);
                    }
                }
                "key_column_usage" | "constraint_column_usage" => {
                    if view == "key_column_usage" && !is_key {
                        continue;
                    }
                    for (position, column) in constraint.columns.iter().enumerate() {
                        let mut row = row.clone();
                        row.extend(table(source, &object));
                        let name = object.columns.field(*column).name().as_str();
                        row.push(("column_name", name.into()));
                        if view == "key_column_usage" {
                            row.push(("ordinal_position", (position as i64 + 1).into()));
                        }
                        rows.push(row);
                    }
                }
                _ => {}
            }
        }
    }
    rows
}
