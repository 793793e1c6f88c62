//! ALTER TABLE: names, columns, defaults, constraints.
//!
//! What leaves the rows as they are (names, defaults, NOT NULL, constraints) changes the definition alone; a column that comes,
//! goes or changes its type rewrites the table in the same transaction, as PostgreSQL does.

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::Field;
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::TableSource;
use sqlparser::ast as pg;
use thanosql_protocol::{Notice, Response, SqlError, SqlState};
use thanosql_storage::Table;

use super::checks::plan_check;
use super::constraints::of_table;
use super::ddl::{duplicate_column, exists, no_identity_type, relation_exists};
use super::dml::{TARGET, assigned_columns, new_name, projected, target_query};
use super::given_values::{default_expression, null};
use super::targets::{existing_name, missing_column, stored_table, target_name};
use super::{Control, rowset};
use crate::catalog::constraints::TableDefinition;
use crate::catalog::sequences::{ColumnDefault, ColumnSequence, greatest, with_default};
use crate::catalog::table::StoredTable;
use crate::error::{not_yet, parse_error, storage_error};
use crate::plan::rows::is_text;
use crate::plan::types::field_of;
use crate::plan::{self, Parameters, Scope};
use crate::session::ClientSession;
use crate::sql::{self, Parsed};

impl ClientSession {
    /// ALTER TABLE.
    pub(crate) async fn alter_table(
        &mut self,
        parsed: &Parsed,
        alter: &pg::AlterTable,
        control: &Control,
    ) -> Result<Response, SqlError> {
        self.refuse_in_read_only()?;
        let done = Ok(Response::Done { tag: "ALTER TABLE".to_string() });
        let skipping = |name: &dyn std::fmt::Display| {
            let notice = format!("relation \"{name}\" does not exist, skipping");
            control.notices.send(Notice::new(notice));
        };
        let name = match existing_name(&alter.name, &self.transaction.peek()) {
            Err(error) if alter.if_exists && error.code == SqlState::UNDEFINED_TABLE => {
                skipping(&alter.name);
                return done;
            }
            name => name?,
        };
        self.lock(&name, control).await?;
        let scope = self.scope(parsed, Parameters::default(), control)?;
        if alter.if_exists && scope.snapshot.table(&name).is_none() {
            skipping(&name);
            return done;
        }
        if let [pg::AlterTableOperation::RenameTable { table_name }] = alter.operations.as_slice() {
            let (pg::RenameTableNameKind::To(new) | pg::RenameTableNameKind::As(new)) = table_name;
            let new = target_name(new)?;
            self.lock(&new, control).await?;
            if new != name && relation_exists(&scope, &new) {
                return Err(exists(&new));
            }
            self.transaction.change(|transaction| transaction.rename_table(&name, &new))?;
            return done;
        }
        for operation in &alter.operations {
            let mut scope = self.scope(parsed, Parameters::default(), control)?;
            let table = stored_table(&scope, &name)?;
            self.alter(&mut scope, &table, operation, control).await?;
        }
        done
    }

    async fn alter(
        &self,
        scope: &mut Scope,
        table: &Table,
        operation: &pg::AlterTableOperation,
        control: &Control,
    ) -> Result<(), SqlError> {
        use pg::AlterTableOperation as Operation;
        let name = table.name();
        let mut definition = TableDefinition::of(table);
        let column_of = |ident: &pg::Ident| {
            let column = sql::fold(ident);
            table
                .schema()
                .index_of(&column)
                .map_err(|_| missing_column(&column, name, &table.schema()))
        };
        match operation {
            Operation::AddConstraint { constraint, not_valid } => {
                if *not_valid {
                    return Err(not_yet("NOT VALID"));
                }
                let before = definition.checks.len();
                self.add_constraint(scope, name, &mut definition, of_table(constraint)?)?;
                let mut added = definition.clone();
                added.checks.drain(..before);
                self.verify_checks(table, &added, control).await?;
                self.redefine(table, &definition)
            }
            Operation::DropConstraint { if_exists, name: constraint, .. } => {
                let constraint = sql::fold(constraint);
                if !definition.has_constraint(&constraint) {
                    if *if_exists {
                        control.notices.send(Notice::new(format!(
                            "constraint \"{constraint}\" of relation \"{name}\" does not exist, skipping"
                        )));
                        return Ok(());
                    }
                    return Err(missing_constraint(&constraint, name));
                }
                definition.keys.retain(|key| key.name != constraint);
                definition.checks.retain(|check| check.name != constraint);
                self.redefine(table, &definition)
            }
            Operation::RenameConstraint { old_name, new_name } => {
                let (old, new) = (sql::fold(old_name), sql::fold(new_name));
                if !definition.has_constraint(&old) {
                    return Err(missing_constraint(&old, name));
                }
                if definition.has_constraint(&new) {
                    return Err(super::constraints::duplicate(&new, name));
                }
                for key in definition.keys.iter_mut().filter(|key| key.name == old) {
                    if relation_exists(scope, &new) {
                        return Err(exists(&new));
                    }
                    key.name.clone_from(&new);
                }
                for check in definition.checks.iter_mut().filter(|check| check.name == old) {
                    check.name.clone_from(&new);
                }
                self.redefine(table, &definition)
            }
            Operation::RenameColumn { old_column_name, new_column_name } => {
                let index = column_of(old_column_name)?;
                let (old, new) = (sql::fold(old_column_name), sql::fold(new_column_name));
                if definition.column(&new).is_some() {
                    return Err(SqlError::new(
                        SqlState::DUPLICATE_COLUMN,
                        format!("column \"{new}\" of relation \"{name}\" already exists"),
                    ));
                }
                let field = definition.columns[index].as_ref().clone().with_name(&new);
                definition.columns[index] = Arc::new(field);
                for check in &mut definition.checks {
                    check.expression = renamed(&check.expression, &old, &new)?;
                }
                self.redefine(table, &definition)
            }
            Operation::AddColumn { if_not_exists, column_def, .. } => {
                let (field, constraints) = self.column(scope, name, column_def)?;
                if ColumnSequence::of(&field).is_some() {
                    return Err(not_yet("adding a column with a sequence"));
                }
                if definition.column(field.name()).is_some() {
                    if *if_not_exists {
                        control.notices.send(Notice::new(format!(
                            "column \"{}\" of relation \"{name}\" already exists, skipping",
                            field.name()
                        )));
                        return Ok(());
                    }
                    return Err(duplicate_column(field.name()));
                }
                let mut values = columns_of(&definition);
                values.push(default_expression(&field)?.unwrap_or_else(null));
                definition.columns.push(Arc::new(field));
                for constraint in constraints {
                    self.add_constraint(scope, name, &mut definition, constraint)?;
                }
                self.rewrite(scope, table, &definition, values, control).await
            }
            Operation::DropColumn { column_names, if_exists, .. } => {
                let mut values = columns_of(&definition);
                for ident in column_names {
                    let column = sql::fold(ident);
                    let Some(index) = definition.column(&column) else {
                        if *if_exists {
                            control.notices.send(Notice::new(format!(
                                "column \"{column}\" of relation \"{name}\" does not exist, skipping"
                            )));
                            continue;
                        }
                        return Err(missing_column(&column, name, &table.schema()));
                    };
                    self.drop_column(name, &mut definition, index)?;
                    values.remove(index);
                }
                self.rewrite(scope, table, &definition, values, control).await
            }
            Operation::AlterColumn { column_name, op } => {
                let index = column_of(column_name)?;
                let field = definition.columns[index].as_ref().clone();
                self.alter_column(scope, table, definition, (index, field), op, control).await
            }
            other => Err(not_yet(&format!("ALTER TABLE {other}"))),
        }
    }

    async fn alter_column(
        &self,
        scope: &mut Scope,
        table: &Table,
        mut definition: TableDefinition,
        (index, field): (usize, Field),
        operation: &pg::AlterColumnOperation,
        control: &Control,
    ) -> Result<(), SqlError> {
        let name = table.name();
        match operation {
            pg::AlterColumnOperation::SetNotNull => {
                definition.set_nullable(index, false);
                self.redefine(table, &definition)
            }
            pg::AlterColumnOperation::DropNotNull => {
                refuse_identity(name, &field)?;
                let in_primary =
                    definition.keys.iter().any(|key| key.primary && key.columns.contains(&index));
                if in_primary {
                    return Err(SqlError::new(
                        SqlState::INVALID_TABLE_DEFINITION,
                        format!("column \"{}\" is in a primary key", field.name()),
                    ));
                }
                definition.set_nullable(index, true);
                self.redefine(table, &definition)
            }
            pg::AlterColumnOperation::SetDefault { value } => {
                refuse_identity(name, &field)?;
                self.check_default(scope, &field, value.clone())?;
                definition.columns[index] = Arc::new(with_default(field, Some(value.to_string())));
                self.redefine(table, &definition)
            }
            pg::AlterColumnOperation::DropDefault => {
                refuse_identity(name, &field)?;
                definition.columns[index] = Arc::new(with_default(field, None));
                self.redefine(table, &definition)
            }
            pg::AlterColumnOperation::SetDataType { data_type, using, .. } => {
                let mut values = columns_of(&definition);
                if let Some(using) = using {
                    values[index] = using.clone();
                }
                let target = field_of(data_type)?;
                if using.is_none() && is_text(field.data_type()) && !is_text(target.data_type()) {
                    let (column, target) = (field.name(), data_type.to_string().to_lowercase());
                    return Err(SqlError::new(
                        SqlState::DATATYPE_MISMATCH,
                        format!(
                            "column \"{column}\" cannot be cast automatically to type {target}"
                        ),
                    )
                    .with_hint(format!(
                        "You might need to specify \"USING {column}::{target}\"."
                    )));
                }
                if definition.vector_indexes.iter().any(|index_of| index_of.column == index)
                    && field.data_type() != target.data_type()
                {
                    return Err(not_yet("changing the type of a column with an hnsw index")
                        .with_hint("DROP INDEX first, and make it again afterwards."));
                }
                let mut typed = target.with_name(field.name()).with_nullable(field.is_nullable());
                let default = ColumnDefault::of(&field);
                if let Some(mut sequence) = ColumnSequence::of(&field) {
                    // That of an identity counts as far as the type goes; one of `serial` stays as it was made.
                    if let ColumnDefault::Identity { .. } = default {
                        let max = greatest(typed.data_type()).ok_or_else(no_identity_type)?;
                        if Some(sequence.max) == greatest(field.data_type()) {
                            sequence.max = max;
                        }
                    }
                    typed = sequence.given_to(typed);
                }
                if let ColumnDefault::Expression(text) = default {
                    let default = sql::parse_expression(&text).map_err(parse_error)?;
                    self.check_default(scope, &typed, default)?;
                    typed = with_default(typed, Some(text));
                }
                definition.columns[index] = Arc::new(typed);
                for check in &definition.checks {
                    let expression =
                        sql::parse_expression(&check.expression).map_err(parse_error)?;
                    plan_check(&self.state, name, &definition.schema(), expression)?;
                }
                self.rewrite(scope, table, &definition, values, control).await
            }
            pg::AlterColumnOperation::AddGenerated { .. } => {
                Err(not_yet("ALTER COLUMN ADD GENERATED"))
            }
        }
    }

    /// Takes a column out of a definition, with the constraints that it is in.
    fn drop_column(
        &self,
        table: &str,
        definition: &mut TableDefinition,
        index: usize,
    ) -> Result<(), SqlError> {
        let column = definition.columns[index].name().clone();
        let mut checks = Vec::new();
        for check in &definition.checks {
            let expression = sql::parse_expression(&check.expression).map_err(parse_error)?;
            let (planned, _) = plan_check(&self.state, table, &definition.schema(), expression)?;
            if !planned.column_refs().iter().any(|found| *found.name() == column) {
                checks.push(check.clone());
            }
        }
        definition.checks = checks;
        definition.remove_column(index);
        Ok(())
    }

    /// Gives a table a definition with the same columns.
    pub(super) fn redefine(
        &self,
        table: &Table,
        definition: &TableDefinition,
    ) -> Result<(), SqlError> {
        let name = table.name();
        let schema = definition.schema();
        self.transaction.change(|transaction| transaction.redefine_table(name, schema)).map_err(
            |error| match error.code {
                SqlState::NOT_NULL_VIOLATION => {
                    let column = error.subject.as_ref().and_then(|about| about.column.clone());
                    let message = format!(
                        "column \"{}\" of relation \"{name}\" contains null values",
                        column.unwrap_or_default()
                    );
                    SqlError { message, ..error }
                }
                _ => error,
            },
        )
    }

    /// Gives a table another definition and rewrites its rows: `values` are the columns, over the old ones.
    async fn rewrite(
        &self,
        scope: &Scope,
        table: &Table,
        definition: &TableDefinition,
        values: Vec<pg::Expr>,
        control: &Control,
    ) -> Result<(), SqlError> {
        let name = table.name();
        let schema = definition.schema();
        if schema.fields().is_empty() {
            return Err(not_yet("a table without columns"));
        }
        let items = values.into_iter().enumerate().map(|(index, value)| (new_name(index), value));
        let query = target_query(name, items.collect(), Vec::new(), None)?;
        let source: Arc<dyn TableSource> =
            provider_as_source(Arc::new(StoredTable::new(table.clone())));
        let tables = HashMap::from([(TARGET.to_string(), source)]);
        let ast = pg::Statement::Query(Box::new(query));
        let plan = plan::plan_ast(&self.state, scope, ast, &[], tables)?;
        let values = assigned_columns(&plan, 0, &schema)?;
        let plan = projected(plan, values)?;
        // The query reads the table as it was; its rows go into the emptied one.
        let stream = control.run(self.start(scope, plan)).await?;
        self.transaction.change(|transaction| {
            transaction.truncate(name)?;
            transaction.redefine_table(name, schema.clone())
        })?;
        rowset::store(&self.transaction, name, &schema, stream, control).await?;
        Ok(())
    }

    /// Whether a table's rows hold to the checks of a definition.
    async fn verify_checks(
        &self,
        table: &Table,
        definition: &TableDefinition,
        control: &Control,
    ) -> Result<(), SqlError> {
        if definition.checks.is_empty() {
            return Ok(());
        }
        let schema = definition.schema();
        for group in 0..table.groups() {
            control.run(async { Ok(()) }).await?;
            let rows = tokio::task::block_in_place(|| table.read_group(group, None))
                .map_err(storage_error)?;
            self.server.checks.verify_existing(table.name(), &schema, &rows)?;
        }
        Ok(())
    }
}

/// A table's columns as expressions.
fn columns_of(definition: &TableDefinition) -> Vec<pg::Expr> {
    definition
        .columns
        .iter()
        .map(|column| pg::Expr::Identifier(pg::Ident::with_quote('"', column.name())))
        .collect()
}

/// A check's text with another name for a column.
fn renamed(text: &str, old: &str, new: &str) -> Result<String, SqlError> {
    struct Rename<'a>(&'a str, &'a str);
    impl pg::VisitorMut for Rename<'_> {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &mut pg::Expr) -> ControlFlow<()> {
            let ident = match expr {
                pg::Expr::Identifier(ident) => Some(ident),
                pg::Expr::CompoundIdentifier(parts) => parts.last_mut(),
                _ => None,
            };
            if let Some(ident) = ident
                && sql::fold(ident) == self.0
            {
                *ident = match sql::quote_ident(self.1) == self.1 {
                    true => pg::Ident::new(self.1),
                    false => pg::Ident::with_quote('"', self.1),
                };
            }
            ControlFlow::Continue(())
        }
    }
    let mut expression = sql::parse_expression(text).map_err(parse_error)?;
    let _ = pg::VisitMut::visit(&mut expression, &mut Rename(old, new));
    Ok(expression.to_string())
}

/// # Errors
/// 42601 for an identity column, whose default and NOT NULL are part of it.
fn refuse_identity(table: &str, field: &Field) -> Result<(), SqlError> {
    match ColumnDefault::of(field) {
        ColumnDefault::Identity { .. } => Err(SqlError::new(
            SqlState::SYNTAX_ERROR,
            format!("column \"{}\" of relation \"{table}\" is an identity column", field.name()),
        )),
        ColumnDefault::Null | ColumnDefault::Expression(_) => Ok(()),
    }
}

fn missing_constraint(name: &str, table: &str) -> SqlError {
    SqlError::new(
        SqlState::UNDEFINED_OBJECT,
        format!("constraint \"{name}\" of relation \"{table}\" does not exist"),
    )
}
