//! Constraints in CREATE TABLE and ALTER TABLE: from the tree into a table's definition, with PostgreSQL's names and errors.
//!
//! FOREIGN KEY, EXCLUDE, deferred checking and NULLS NOT DISTINCT are 0A000: what is accepted is held.

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

use std::ops::ControlFlow;

use sqlparser::ast as pg;
use thanosql_protocol::{SqlError, SqlState};
use thanosql_storage::{UniqueKey, can_be_key};

use super::checks::plan_check;
use super::ddl::{exists, relation_exists};
use crate::catalog::constraints::{Check, TableDefinition, choose_name};
use crate::error::unsupported;
use crate::plan::Scope;
use crate::session::ClientSession;
use crate::sql;

/// A constraint as it was written.
pub struct NewConstraint {
    name: Option<String>,
    rule: Rule,
}

enum Rule {
    Key { columns: Vec<String>, primary: bool },
    Check(Box<pg::Expr>),
}

/// A constraint of a table.
///
/// # Errors
/// 0A000 for what cannot be held.
pub fn of_table(constraint: &pg::TableConstraint) -> Result<NewConstraint, SqlError> {
    match constraint {
        pg::TableConstraint::PrimaryKey(key) => {
            refuse_characteristics(key.characteristics.as_ref())?;
            Ok(NewConstraint {
                name: key.name.as_ref().map(sql::fold),
                rule: Rule::Key { columns: key_columns(&key.columns)?, primary: true },
            })
        }
        pg::TableConstraint::Unique(key) => {
            refuse_characteristics(key.characteristics.as_ref())?;
            if key.nulls_distinct == pg::NullsDistinctOption::NotDistinct {
                return Err(unsupported("UNIQUE NULLS NOT DISTINCT"));
            }
            Ok(NewConstraint {
                name: key.name.as_ref().map(sql::fold),
                rule: Rule::Key { columns: key_columns(&key.columns)?, primary: false },
            })
        }
        pg::TableConstraint::Check(check) => of_check(check),
        pg::TableConstraint::ForeignKey(_) => Err(unsupported("FOREIGN KEY")),
        other => Err(unsupported(&format!("constraint {other}"))),
    }
}

/// A constraint of one column; `None` for what is none.
///
/// # Errors
/// As [`of_table`].
pub fn of_column(
    column: &str,
    option: &pg::ColumnOptionDef,
) -> Result<Option<NewConstraint>, SqlError> {
    let name = option.name.as_ref().map(sql::fold);
    let key = |primary| Rule::Key { columns: vec![column.to_string()], primary };
    match &option.option {
        pg::ColumnOption::PrimaryKey(constraint) => {
            refuse_characteristics(constraint.characteristics.as_ref())?;
            Ok(Some(NewConstraint { name, rule: key(true) }))
        }
        pg::ColumnOption::Unique(constraint) => {
            refuse_characteristics(constraint.characteristics.as_ref())?;
            if constraint.nulls_distinct == pg::NullsDistinctOption::NotDistinct {
                return Err(unsupported("UNIQUE NULLS NOT DISTINCT"));
            }
            Ok(Some(NewConstraint { name, rule: key(false) }))
        }
        pg::ColumnOption::Check(check) => {
            let mut constraint = of_check(check)?;
            constraint.name = constraint.name.or(name);
            Ok(Some(constraint))
        }
        pg::ColumnOption::ForeignKey(_) => Err(unsupported("REFERENCES")),
        _ => Ok(None),
    }
}

fn of_check(check: &pg::CheckConstraint) -> Result<NewConstraint, SqlError> {
    if check.enforced == Some(false) {
        return Err(unsupported("CHECK NOT ENFORCED"));
    }
    Ok(NewConstraint {
        name: check.name.as_ref().map(sql::fold),
        rule: Rule::Check(check.expr.clone()),
    })
}

fn key_columns(columns: &[pg::IndexColumn]) -> Result<Vec<String>, SqlError> {
    columns
        .iter()
        .map(|column| match &column.column.expr {
            pg::Expr::Identifier(ident) => Ok(sql::fold(ident)),
            other => Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                format!("\"{other}\" is no column of a key"),
            )),
        })
        .collect()
}

fn refuse_characteristics(given: Option<&pg::ConstraintCharacteristics>) -> Result<(), SqlError> {
    let deferred = given.is_some_and(|given| {
        given.deferrable == Some(true)
            || given.initially == Some(pg::DeferrableInitial::Deferred)
            || given.enforced == Some(false)
    });
    if deferred { Err(unsupported("a deferrable constraint")) } else { Ok(()) }
}

impl ClientSession {
    /// Adds a constraint to the definition of a table. Rows that are there are not looked at.
    ///
    /// # Errors
    /// 42P16 for a second primary key, 42703 for a column that is not there, 42701 for one that comes twice, 42704 for a type that
    /// cannot be compared, 42710 or 42P07 for a name that is taken, and those of a check's expression.
    pub(crate) fn add_constraint(
        &self,
        scope: &Scope,
        table: &str,
        definition: &mut TableDefinition,
        constraint: NewConstraint,
    ) -> Result<(), SqlError> {
        let oid = self.transaction.change(|transaction| transaction.new_oid())?;
        let named = |definition: &TableDefinition, columns: &[&str], suffix: &str| {
            choose_name(table, columns, suffix, |name| {
                relation_exists(scope, name) || definition.has_constraint(name)
            })
        };
        match constraint.rule {
            Rule::Key { columns, primary } => {
                if primary && definition.keys.iter().any(|key| key.primary) {
                    return Err(SqlError::new(
                        SqlState::INVALID_TABLE_DEFINITION,
                        format!("multiple primary keys for table \"{table}\" are not allowed"),
                    ));
                }
                let positions = key_positions(definition, &columns, primary)?;
                let name = match constraint.name {
                    // A key's index is a relation.
                    Some(name)
                        if relation_exists(scope, &name)
                            || definition.keys.iter().any(|key| key.name == name) =>
                    {
                        return Err(exists(&name));
                    }
                    Some(name) if definition.has_constraint(&name) => {
                        return Err(duplicate(&name, table));
                    }
                    Some(name) => name,
                    None if primary => named(definition, &[], "pkey"),
                    None => {
                        let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
                        named(definition, &columns, "key")
                    }
                };
                if primary {
                    for position in &positions {
                        definition.set_nullable(*position, false);
                    }
                }
                definition.keys.push(UniqueKey { oid, name, columns: positions, primary });
            }
            Rule::Check(mut expression) => {
                let schema = definition.schema();
                let (planned, _) = plan_check(&self.state, table, &schema, *expression.clone())?;
                without_table(&mut expression);
                let text = expression.to_string();
                let mut columns: Vec<&str> =
                    planned.column_refs().into_iter().map(|column| column.name()).collect();
                if columns.len() != 1 {
                    columns.clear();
                }
                let name = match constraint.name {
                    Some(name) if definition.has_constraint(&name) => {
                        return Err(duplicate(&name, table));
                    }
                    Some(name) => name,
                    None => choose_name(table, &columns, "check", |name| {
                        definition.has_constraint(name)
                    }),
                };
                definition.checks.push(Check { oid, name, expression: text });
            }
        }
        Ok(())
    }
}

/// Takes the table's name from the columns of a check, which can have no others: the table may get another name.
fn without_table(expression: &mut pg::Expr) {
    let _: ControlFlow<()> = pg::visit_expressions_mut(expression, |part| {
        if let pg::Expr::CompoundIdentifier(parts) = part
            && let Some(column) = parts.pop()
        {
            *part = pg::Expr::Identifier(column);
        }
        ControlFlow::Continue(())
    });
}

fn key_positions(
    definition: &TableDefinition,
    columns: &[String],
    primary: bool,
) -> Result<Vec<usize>, SqlError> {
    let mut positions = Vec::with_capacity(columns.len());
    for column in columns {
        let position = definition.column(column).ok_or_else(|| {
            SqlError::new(
                SqlState::UNDEFINED_COLUMN,
                format!("column \"{column}\" named in key does not exist"),
            )
        })?;
        if positions.contains(&position) {
            let kind = if primary { "primary key" } else { "unique" };
            return Err(SqlError::new(
                SqlState::DUPLICATE_COLUMN,
                format!("column \"{column}\" appears twice in {kind} constraint"),
            ));
        }
        let field = &definition.columns[position];
        if !can_be_key(field.data_type()) {
            let oid = thanosql_protocol::types::type_oid(field);
            let name = thanosql_protocol::types::sql_type_name(oid).unwrap_or_default();
            return Err(SqlError::new(
                SqlState::UNDEFINED_OBJECT,
                format!(
                    "data type {name} has no default operator class for access method \"btree\""
                ),
            )
            .with_hint("A key takes columns of numbers, texts, times, bytea, uuid and boolean."));
        }
        positions.push(position);
    }
    Ok(positions)
}

/// A constraint's name that the table has already.
pub fn duplicate(name: &str, table: &str) -> SqlError {
    SqlError::new(
        SqlState::DUPLICATE_OBJECT,
        format!("constraint \"{name}\" for relation \"{table}\" already exists"),
    )
}
