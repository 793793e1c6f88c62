//! The tables and columns that statements name to change them.

use arrow::datatypes::SchemaRef;
use sqlparser::ast as pg;
use thanosql_protocol::{SqlError, SqlState};
use thanosql_storage::{Snapshot, Table};

use crate::catalog::system::TEMPORARY_SCHEMA;
use crate::error::{undefined_table, unsupported};
use crate::plan::Scope;
use crate::sql;

/// The name of a table that a statement changes, from its written name: that by which this snapshot finds it.
///
/// # Errors
/// As [`target_name`] and [`check_found`].
pub fn existing_name(name: &pg::ObjectName, snapshot: &Snapshot) -> Result<String, SqlError> {
    let (schema, table) = parts(name)?;
    if let Some(schema) = schema {
        check_found(&schema, &table, snapshot)?;
    }
    Ok(table)
}

/// The name of a table or another object that a statement makes, from its written name.
///
/// # Errors
/// 42501 for system tables, 3F000 for schemas that do not exist.
pub fn target_name(name: &pg::ObjectName) -> Result<String, SqlError> {
    parts(name).map(|(_, table)| table)
}

/// A table is found by its name alone, a temporary one first: this makes sure that the one found is of the schema that was written.
///
/// # Errors
/// 42P01 for a temporary table that does not exist, 0A000 for another that a temporary one hides.
pub fn check_found(schema: &str, table: &str, snapshot: &Snapshot) -> Result<(), SqlError> {
    match (is_temporary_schema(schema), snapshot.temporary_table(table).is_some()) {
        (true, false) => Err(undefined_table(&format!("{schema}.{table}"))),
        (false, true) => {
            Err(unsupported("changing a table that a temporary one of its name hides")
                .with_hint(format!("Drop or rename the temporary table \"{table}\" first.")))
        }
        (true, true) | (false, false) => Ok(()),
    }
}

/// The schema, if one is written, and the name in it.
fn parts(name: &pg::ObjectName) -> Result<(Option<String>, String), SqlError> {
    let mut parts = Vec::with_capacity(name.0.len());
    for part in &name.0 {
        match part.as_ident() {
            Some(ident) => parts.push(sql::fold(ident)),
            None => {
                return Err(SqlError::new(
                    SqlState::SYNTAX_ERROR,
                    format!("\"{name}\" is no name of a table"),
                ));
            }
        }
    }
    // Names with control characters are the server's own.
    if let Some(name) = parts.last().filter(|name| name.contains('\u{1}')) {
        return Err(SqlError::new(SqlState::INVALID_NAME, format!("invalid name {name:?}")));
    }
    match parts.as_slice() {
        [table] => Ok((None, table.clone())),
        [.., schema, table] => {
            check_schema(schema, table)?;
            Ok((Some(schema.clone()), table.clone()))
        }
        [] => Err(SqlError::new(SqlState::SYNTAX_ERROR, "a name of a table is missing")),
    }
}

/// Only `public` holds tables that statements may make or change.
///
/// # Errors
/// 42501 for system schemas, 3F000 for those that do not exist.
pub fn check_schema(schema: &str, table: &str) -> Result<(), SqlError> {
    match schema {
        "public" => Ok(()),
        schema if is_temporary_schema(schema) => Ok(()),
        "pg_catalog" | "information_schema" | "thanosql" => Err(SqlError::new(
            SqlState::INSUFFICIENT_PRIVILEGE,
            format!("permission denied: \"{schema}.{table}\" belongs to the system"),
        )),
        _ => Err(SqlError::new(
            SqlState::INVALID_SCHEMA_NAME,
            format!("schema \"{schema}\" does not exist"),
        )),
    }
}

/// Whether a schema is that of the session's temporary tables.
pub fn is_temporary_schema(schema: &str) -> bool {
    schema == "pg_temp" || schema == TEMPORARY_SCHEMA
}

/// The table that a statement names, or why it cannot be changed.
///
/// # Errors
/// 42P01, or 42809 for a view.
pub fn stored_table(scope: &Scope, name: &str) -> Result<Table, SqlError> {
    match scope.snapshot.table(name) {
        Some(table) => Ok(table),
        None if scope.snapshot.view(name).is_some() => Err(SqlError::new(
            SqlState::WRONG_OBJECT_TYPE,
            format!("cannot change view \"{name}\""),
        )),
        None => Err(undefined_table(name)),
    }
}

/// A column that a table does not have.
pub fn missing_column(column: &str, table: &str, schema: &SchemaRef) -> SqlError {
    let error = SqlError::new(
        SqlState::UNDEFINED_COLUMN,
        format!("column \"{column}\" of relation \"{table}\" does not exist"),
    );
    match sql::closest(column, schema.fields().iter().map(|field| field.name().as_str())) {
        Some(near) => error.with_hint(format!("Did you mean \"{near}\"?")),
        None => error,
    }
}
