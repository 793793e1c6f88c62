//! CREATE and DROP of tables and views, CREATE TABLE AS.
//!
//! Definitions are part of their transaction like rows. What is accepted is kept: a clause that this server cannot honour
//! (keys, checks, temporary tables) is refused with 0A000 instead of being dropped silently.

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use sqlparser::ast as pg;
use thanosql_protocol::{Notice, Response, SqlError, SqlState};

use super::dml::target_name;
use super::{Control, rowset};
use crate::plan::types::{COLUMN_DEFAULT, field_of};
use crate::plan::{self, Scope};
use crate::session::ClientSession;
use crate::sql::{self, Parsed, SqlStatement};

impl ClientSession {
    /// CREATE TABLE, with or without AS.
    pub(crate) async fn create_table(
        &mut self,
        parsed: &Parsed,
        statement: &SqlStatement,
        create: &pg::CreateTable,
        parameters: plan::Parameters,
        control: &Control,
    ) -> Result<Response, SqlError> {
        self.refuse_in_read_only()?;
        refuse_clauses(create)?;
        let name = target_name(&create.name)?;
        self.lock(&name, control).await?;
        let mut scope = self.scope(parsed, parameters, control)?;
        let tag = if create.query.is_some() { "CREATE TABLE AS" } else { "CREATE TABLE" };
        if relation_exists(&scope, &name) {
            if create.if_not_exists {
                control
                    .notices
                    .send(Notice::new(format!("relation \"{name}\" already exists, skipping")));
                return Ok(Response::Done { tag: tag.to_string() });
            }
            return Err(exists(&name));
        }
        let Some(query) = &create.query else {
            let schema = Arc::new(self.table_schema(&scope, create)?);
            self.transaction
                .change(|transaction| transaction.create_table(&name, schema).map(|_| ()))?;
            return Ok(Response::Done { tag: tag.to_string() });
        };
        self.keep_embedded(&mut scope, &statement.embedded, control).await?;
        let ast = pg::Statement::Query(query.clone());
        let plan = plan::plan_ast(&self.state, &scope, ast, &statement.embedded, HashMap::new())?;
        let mut schema = rowset::storable_schema(plan.schema().as_arrow())?;
        if !create.columns.is_empty() {
            schema = renamed(&schema, create)?;
        }
        self.transaction
            .change(|transaction| transaction.create_table(&name, schema.clone()).map(|_| ()))?;
        if !statement.with_data {
            return Ok(Response::Done { tag: tag.to_string() });
        }
        let stream = control.run(self.start(&scope, plan)).await?;
        let rows = rowset::store(&self.transaction, &name, &schema, stream, control).await?;
        Ok(Response::Done { tag: format!("SELECT {rows}") })
    }

    /// The columns of CREATE TABLE.
    fn table_schema(&self, scope: &Scope, create: &pg::CreateTable) -> Result<Schema, SqlError> {
        if !create.constraints.is_empty() {
            return Err(not_yet("constraints of a table"));
        }
        let mut fields: Vec<Field> = Vec::with_capacity(create.columns.len());
        for column in &create.columns {
            let name = sql::fold(&column.name);
            if name.starts_with("_thanosql") {
                return Err(SqlError::new(
                    SqlState::RESERVED_NAME,
                    format!("column name \"{name}\" is reserved"),
                ));
            }
            if fields.iter().any(|field| *field.name() == name) {
                return Err(SqlError::new(
                    SqlState::DUPLICATE_COLUMN,
                    format!("column \"{name}\" specified more than once"),
                ));
            }
            let mut field = field_of(&column.data_type)?.with_name(&name);
            for option in &column.options {
                match &option.option {
                    pg::ColumnOption::Null => {}
                    pg::ColumnOption::NotNull => field = field.with_nullable(false),
                    pg::ColumnOption::Default(expression) => {
                        // Planned now, so that a default that cannot work is refused here and not at the first INSERT.
                        let default = plan::plan_constant(&self.state, scope, expression.clone())?;
                        plan::coerce::assign(
                            default,
                            &datafusion::common::DFSchema::empty(),
                            field.data_type(),
                        )
                        .map_err(|error| {
                            crate::error::datafusion_error(error, Some(&scope.script))
                        })?;
                        let mut metadata = field.metadata().clone();
                        metadata.insert(COLUMN_DEFAULT.to_string(), expression.to_string());
                        field = field.with_metadata(metadata);
                    }
                    pg::ColumnOption::Comment(_) => return Err(not_yet("comments on columns")),
                    pg::ColumnOption::PrimaryKey(_) | pg::ColumnOption::Unique(_) => {
                        return Err(not_yet("PRIMARY KEY and UNIQUE"));
                    }
                    pg::ColumnOption::Check(_) => return Err(not_yet("CHECK")),
                    pg::ColumnOption::ForeignKey(_) => return Err(not_yet("REFERENCES")),
                    other => return Err(not_yet(&other.to_string())),
                }
            }
            fields.push(field);
        }
        Ok(Schema::new(fields))
    }

    /// CREATE VIEW. `text` is the statement's own source; the view keeps the text of its query.
    pub(crate) async fn create_view(
        &mut self,
        parsed: &Parsed,
        statement: &SqlStatement,
        create: &pg::CreateView,
        control: &Control,
    ) -> Result<Response, SqlError> {
        self.refuse_in_read_only()?;
        if create.materialized || create.temporary {
            return Err(not_yet("materialized and temporary views"));
        }
        if !create.columns.is_empty() {
            return Err(not_yet("a list of columns in CREATE VIEW"));
        }
        if parsed.parameter_count > 0 {
            return Err(SqlError::new(
                SqlState::UNDEFINED_PARAMETER,
                "a view cannot have parameters",
            ));
        }
        let name = target_name(&create.name)?;
        self.lock(&name, control).await?;
        let scope = self.scope(parsed, plan::Parameters::default(), control)?;
        let replaces = scope.snapshot.view(&name).is_some();
        if relation_exists(&scope, &name) && !(create.or_replace && replaces) {
            if create.if_not_exists {
                control
                    .notices
                    .send(Notice::new(format!("relation \"{name}\" already exists, skipping")));
                return Ok(Response::Done { tag: "CREATE VIEW".to_string() });
            }
            return Err(exists(&name));
        }
        let ast = pg::Statement::Query(create.query.clone());
        let plan = plan::plan_ast(&self.state, &scope, ast, &statement.embedded, HashMap::new())?;
        let schema = rowset::storable_schema(plan.schema().as_arrow())?;
        let definition = sql::view_definition(&parsed.text)
            .ok_or_else(|| not_yet("this form of CREATE VIEW"))?;
        self.transaction.change(|transaction| {
            if replaces {
                transaction.drop_view(&name)?;
            }
            transaction.create_view(&name, definition, schema).map(|_| ())
        })?;
        Ok(Response::Done { tag: "CREATE VIEW".to_string() })
    }

    /// DROP TABLE and DROP VIEW.
    pub(crate) async fn drop_relations(
        &mut self,
        kind: pg::ObjectType,
        names: &[pg::ObjectName],
        if_exists: bool,
        control: &Control,
    ) -> Result<Response, SqlError> {
        self.refuse_in_read_only()?;
        let (word, is_table) = match kind {
            pg::ObjectType::Table => ("table", true),
            pg::ObjectType::View => ("view", false),
            other => return Err(not_yet(&format!("DROP {other}"))),
        };
        for name in names {
            let name = target_name(name)?;
            self.lock(&name, control).await?;
            let snapshot = self.transaction.snapshot();
            let (table, view) = (snapshot.table(&name).is_some(), snapshot.view(&name).is_some());
            match (is_table, table, view) {
                (true, true, _) => {
                    self.transaction.change(|transaction| transaction.drop_table(&name))?
                }
                (false, _, true) => {
                    self.transaction.change(|transaction| transaction.drop_view(&name))?
                }
                (true, false, true) | (false, true, false) => {
                    let other = if is_table { "view" } else { "table" };
                    return Err(SqlError::new(
                        SqlState::WRONG_OBJECT_TYPE,
                        format!("\"{name}\" is not a {word}"),
                    )
                    .with_hint(format!("Use DROP {} to remove a {other}.", other.to_uppercase())));
                }
                (_, false, false) if if_exists => {
                    control
                        .notices
                        .send(Notice::new(format!("{word} \"{name}\" does not exist, skipping")));
                }
                (_, false, false) => {
                    return Err(SqlError::new(
                        SqlState::UNDEFINED_TABLE,
                        format!("{word} \"{name}\" does not exist"),
                    ));
                }
            }
        }
        Ok(Response::Done { tag: format!("DROP {}", word.to_uppercase()) })
    }

    /// ALTER TABLE ... RENAME TO.
    pub(crate) async fn alter_table(
        &mut self,
        alter: &pg::AlterTable,
        control: &Control,
    ) -> Result<Response, SqlError> {
        self.refuse_in_read_only()?;
        let name = target_name(&alter.name)?;
        let [pg::AlterTableOperation::RenameTable { table_name }] = alter.operations.as_slice()
        else {
            return Err(not_yet("ALTER TABLE other than RENAME TO"));
        };
        let (pg::RenameTableNameKind::To(new_name) | pg::RenameTableNameKind::As(new_name)) =
            table_name;
        let new_name = target_name(new_name)?;
        self.lock(&name, control).await?;
        self.lock(&new_name, control).await?;
        if alter.if_exists && self.transaction.snapshot().table(&name).is_none() {
            control
                .notices
                .send(Notice::new(format!("relation \"{name}\" does not exist, skipping")));
        } else {
            self.transaction.change(|transaction| transaction.rename_table(&name, &new_name))?;
        }
        Ok(Response::Done { tag: "ALTER TABLE".to_string() })
    }
}

/// Whether a table or view has the name.
pub fn relation_exists(scope: &Scope, name: &str) -> bool {
    scope.snapshot.table(name).is_some() || scope.snapshot.view(name).is_some()
}

/// The name is taken.
pub fn exists(name: &str) -> SqlError {
    SqlError::new(SqlState::DUPLICATE_TABLE, format!("relation \"{name}\" already exists"))
}

fn not_yet(what: &str) -> SqlError {
    SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, format!("{what} is not supported yet"))
}

/// Clauses of CREATE TABLE that would change what the table is.
fn refuse_clauses(create: &pg::CreateTable) -> Result<(), SqlError> {
    let refused = [
        (create.temporary, "a temporary table"),
        (create.external, "an external table"),
        (create.or_replace, "CREATE OR REPLACE TABLE"),
        (create.like.is_some(), "CREATE TABLE ... LIKE"),
        (create.clone.is_some(), "CREATE TABLE ... CLONE"),
        (create.inherits.is_some(), "INHERITS"),
        (create.partition_by.is_some() || create.partition_of.is_some(), "PARTITION"),
        (create.on_commit.is_some(), "ON COMMIT"),
    ];
    match refused.iter().find(|(given, _)| *given) {
        Some((_, what)) => Err(not_yet(what)),
        None => Ok(()),
    }
}

/// `CREATE TABLE t (a, b) AS ...`: the list gives the columns' names.
fn renamed(
    schema: &Schema,
    create: &pg::CreateTable,
) -> Result<arrow::datatypes::SchemaRef, SqlError> {
    if create.columns.len() > schema.fields().len() {
        return Err(SqlError::new(SqlState::SYNTAX_ERROR, "too many column names were specified"));
    }
    let mut fields: Vec<Field> =
        schema.fields().iter().map(|field| field.as_ref().clone()).collect();
    for (field, column) in fields.iter_mut().zip(&create.columns) {
        *field = field.clone().with_name(sql::fold(&column.name));
    }
    rowset::storable_schema(&Schema::new(fields))
}
