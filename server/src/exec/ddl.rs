//! CREATE and DROP of tables and views, CREATE TABLE AS, SELECT INTO. ALTER TABLE is in `alter`.
//!
//! Definitions are part of their transaction like rows. What is accepted is kept: a clause that this server cannot honour
//! (REFERENCES, partitions) is refused with 0A000 instead of being dropped silently.

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

use std::collections::HashMap;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use sqlparser::ast as pg;
use thanosql_protocol::{Notice, Response, SqlError, SqlState};

use super::constraints::{self, NewConstraint};
use super::targets::{existing_name, is_temporary_schema, target_name};
use super::{Control, rowset};
use crate::catalog::constraints::{OnCommit, TableDefinition, choose_name};
use crate::catalog::sequences::{
    ColumnDefault, ColumnSequence, SequenceKind, greatest, sequences_of, with_default,
};
use crate::catalog::vector_index::vector_indexes;
use crate::error::not_yet;
use crate::plan::types::field_of;
use crate::plan::{self, Scope};
use crate::session::ClientSession;
use crate::sql::{self, Embedded, Parsed, SqlStatement};

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
        let target = NewTable::of(create)?;
        if let Some(query) = &create.query {
            let text = Source { query, embedded: &statement.embedded, data: statement.with_data };
            return self.create_table_as(parsed, target, text, parameters, control).await;
        }
        self.lock_new(&target, control).await?;
        let scope = self.scope(parsed, parameters, control)?;
        let done = Ok(Response::Done { tag: "CREATE TABLE".to_string() });
        if !self.is_free(&scope, &target, control)? {
            return done;
        }
        let mut definition = self.table_definition(&scope, &target.name, create)?;
        definition.on_commit = target.on_commit;
        self.create(&target, definition.schema())?;
        done
    }

    async fn lock_new(&self, target: &NewTable<'_>, control: &Control) -> Result<(), SqlError> {
        match target.temporary {
            true => self.lock_temporary(&target.name, control).await,
            false => self.lock(&target.name, control).await,
        }
    }

    /// CREATE TABLE AS and SELECT INTO.
    pub(crate) async fn create_table_as(
        &mut self,
        parsed: &Parsed,
        target: NewTable<'_>,
        source: Source<'_>,
        parameters: plan::Parameters,
        control: &Control,
    ) -> Result<Response, SqlError> {
        self.refuse_in_read_only()?;
        let name = &target.name;
        self.lock_new(&target, control).await?;
        let mut scope = self.scope(parsed, parameters, control)?;
        if !self.is_free(&scope, &target, control)? {
            return Ok(Response::Done { tag: "CREATE TABLE AS".to_string() });
        }
        if !target.temporary && scope.snapshot.temporary_table(name).is_some() {
            return Err(not_yet("a table made by a query beside a temporary one of its name"));
        }
        self.keep_embedded(&mut scope, source.embedded, control).await?;
        let ast = pg::Statement::Query(Box::new(source.query.clone()));
        let plan = plan::plan_ast(&self.state, &scope, ast, source.embedded, HashMap::new())?;
        let mut schema = rowset::storable_schema(plan.schema().as_arrow())?;
        if !target.columns.is_empty() {
            schema = renamed(&schema, target.columns)?;
        }
        let mut definition = TableDefinition::new(
            schema.fields().iter().map(|field| field.as_ref().clone()).collect(),
        );
        definition.on_commit = target.on_commit;
        let schema = definition.schema();
        self.create(&target, schema.clone())?;
        if !source.data {
            return Ok(Response::Done { tag: "CREATE TABLE AS".to_string() });
        }
        let stream = control.run(self.start(&scope, plan)).await?;
        let rows = rowset::store(&self.transaction, name, &schema, stream, control).await?;
        Ok(Response::Done { tag: format!("SELECT {rows}") })
    }

    /// Whether a table's name can be given; `false` where IF NOT EXISTS leaves the table that has it.
    fn is_free(
        &self,
        scope: &Scope,
        target: &NewTable<'_>,
        control: &Control,
    ) -> Result<bool, SqlError> {
        let name = &target.name;
        let taken = if target.temporary {
            scope.snapshot.temporary_table(name).is_some()
        } else {
            relation_exists(scope, name)
        };
        match (taken, target.if_not_exists) {
            (false, _) => Ok(true),
            (true, true) => {
                control
                    .notices
                    .send(Notice::new(format!("relation \"{name}\" already exists, skipping")));
                Ok(false)
            }
            (true, false) => Err(exists(name)),
        }
    }

    fn create(&self, target: &NewTable<'_>, schema: SchemaRef) -> Result<(), SqlError> {
        if target.on_commit != OnCommit::PreserveRows {
            self.transaction.heed_on_commit();
        }
        self.transaction.change(|transaction| {
            if target.temporary {
                transaction.create_temporary_table(&target.name, schema).map(|_| ())
            } else {
                transaction.create_table(&target.name, schema).map(|_| ())
            }
        })
    }

    /// The definition that CREATE TABLE spells out.
    fn table_definition(
        &self,
        scope: &Scope,
        table: &str,
        create: &pg::CreateTable,
    ) -> Result<TableDefinition, SqlError> {
        let mut fields: Vec<Field> = Vec::with_capacity(create.columns.len());
        let mut constraints = Vec::new();
        for column in &create.columns {
            let (field, of_column) = self.column(scope, table, column)?;
            if fields.iter().any(|other| other.name() == field.name()) {
                return Err(duplicate_column(field.name()));
            }
            fields.push(field);
            constraints.extend(of_column);
        }
        for constraint in &create.constraints {
            constraints.push(constraints::of_table(constraint)?);
        }
        let mut definition = TableDefinition::new(fields);
        for constraint in constraints {
            self.add_constraint(scope, table, &mut definition, constraint)?;
        }
        Ok(definition)
    }

    /// A column with its type, NOT NULL and default, and the constraints that stand beside it.
    pub(crate) fn column(
        &self,
        scope: &Scope,
        table: &str,
        column: &pg::ColumnDef,
    ) -> Result<(Field, Vec<NewConstraint>), SqlError> {
        let name = sql::fold(&column.name);
        if name.starts_with("_thanosql") || name.contains(char::is_control) {
            return Err(SqlError::new(
                SqlState::RESERVED_NAME,
                format!("column name \"{name}\" is reserved"),
            ));
        }
        let mut field = match serial_type(&column.data_type) {
            Some(data_type) => {
                let field = Field::new(&name, data_type, false);
                self.with_sequence(scope, table, field, SequenceKind::Serial, &[])?
            }
            None => field_of(&column.data_type)?.with_name(&name),
        };
        let mut constraints = Vec::new();
        let (mut null, mut not_null) = (false, false);
        for option in &column.options {
            match &option.option {
                pg::ColumnOption::Null => null = true,
                pg::ColumnOption::NotNull => not_null = true,
                pg::ColumnOption::Default(_)
                    if ColumnDefault::of(&field) != ColumnDefault::Null =>
                {
                    return Err(SqlError::new(
                        SqlState::SYNTAX_ERROR,
                        format!(
                            "multiple default values specified for column \"{name}\" of table \"{table}\""
                        ),
                    ));
                }
                pg::ColumnOption::Default(expression) => {
                    self.check_default(scope, &field, expression.clone())?;
                    field = with_default(field, Some(expression.to_string()));
                }
                pg::ColumnOption::Generated {
                    generated_as: generated @ (pg::GeneratedAs::Always | pg::GeneratedAs::ByDefault),
                    sequence_options,
                    generation_expr: None,
                    ..
                } => {
                    let kind = match generated {
                        pg::GeneratedAs::Always => SequenceKind::Always,
                        _ => SequenceKind::ByDefault,
                    };
                    let options = sequence_options.as_deref().unwrap_or_default();
                    field = self.with_sequence(scope, table, field, kind, options)?;
                    not_null = true;
                }
                pg::ColumnOption::Comment(_) => return Err(not_yet("comments on columns")),
                other => match constraints::of_column(&name, option)? {
                    Some(constraint) => constraints.push(constraint),
                    None => return Err(not_yet(&other.to_string())),
                },
            }
        }
        if null && not_null {
            return Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                format!("conflicting NULL/NOT NULL declarations for column \"{name}\""),
            ));
        }
        if not_null {
            field = field.with_nullable(false);
        }
        Ok((field, constraints))
    }

    /// A column with a sequence of its own.
    fn with_sequence(
        &self,
        scope: &Scope,
        table: &str,
        field: Field,
        kind: SequenceKind,
        options: &[pg::SequenceOptions],
    ) -> Result<Field, SqlError> {
        let max = greatest(field.data_type()).ok_or_else(no_identity_type)?;
        if ColumnDefault::of(&field) != ColumnDefault::Null {
            return Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                format!("both default and identity specified for column \"{}\"", field.name()),
            ));
        }
        let oid = self.transaction.change(|transaction| transaction.new_oid())?;
        let name = choose_name(table, &[field.name()], "seq", |name| relation_exists(scope, name));
        let mut sequence = ColumnSequence::new(oid, name, max, kind);
        for option in options {
            apply_option(&mut sequence, option)?;
        }
        let field = sequence.given_to(field).with_nullable(false);
        Ok(match kind {
            SequenceKind::Serial => with_default(field, Some(sequence.call())),
            SequenceKind::ByDefault | SequenceKind::Always => field,
        })
    }

    /// Plans a column's default, so that one that cannot work is refused here and not at the first INSERT.
    pub(crate) fn check_default(
        &self,
        scope: &Scope,
        field: &Field,
        default: pg::Expr,
    ) -> Result<(), SqlError> {
        let default = plan::plan_constant(&self.state, scope, default)?;
        plan::coerce::assign(default, &datafusion::common::DFSchema::empty(), field)
            .map_err(|error| crate::error::datafusion_error(error, Some(&scope.script)))?;
        Ok(())
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
            pg::ObjectType::Index => return self.drop_indexes(names, if_exists, control).await,
            other => return Err(not_yet(&format!("DROP {other}"))),
        };
        let skipping = |name: &dyn std::fmt::Display| {
            let notice = format!("{word} \"{name}\" does not exist, skipping");
            control.notices.send(Notice::new(notice));
        };
        for name in names {
            let name = match existing_name(name, &self.transaction.peek()) {
                Err(error) if if_exists && error.code == SqlState::UNDEFINED_TABLE => {
                    skipping(name);
                    continue;
                }
                name => name?,
            };
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
                (_, false, false) if if_exists => skipping(&name),
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
}

/// A table to be made: its name, and what CREATE TABLE says beside its columns.
pub(crate) struct NewTable<'a> {
    name: String,
    temporary: bool,
    if_not_exists: bool,
    on_commit: OnCommit,
    /// The list of names in `CREATE TABLE t (a, b) AS`.
    columns: &'a [pg::ColumnDef],
}

impl<'a> NewTable<'a> {
    fn of(create: &'a pg::CreateTable) -> Result<NewTable<'a>, SqlError> {
        let temporary = create.temporary || is_in_temporary_schema(&create.name);
        let on_commit = match &create.on_commit {
            None | Some(pg::OnCommit::PreserveRows) => OnCommit::PreserveRows,
            Some(pg::OnCommit::DeleteRows) => OnCommit::DeleteRows,
            Some(pg::OnCommit::Drop) => OnCommit::Drop,
        };
        if create.on_commit.is_some() && !temporary {
            return Err(SqlError::new(
                SqlState::INVALID_TABLE_DEFINITION,
                "ON COMMIT can only be used on temporary tables",
            ));
        }
        Ok(NewTable {
            name: target_name(&create.name)?,
            temporary,
            if_not_exists: create.if_not_exists,
            on_commit,
            columns: &create.columns,
        })
    }

    /// The table of SELECT INTO.
    pub(crate) fn of_select(into: &pg::SelectInto) -> Result<NewTable<'static>, SqlError> {
        Ok(NewTable {
            name: target_name(&into.name)?,
            temporary: into.temporary || is_in_temporary_schema(&into.name),
            if_not_exists: false,
            on_commit: OnCommit::PreserveRows,
            columns: &[],
        })
    }
}

/// Where the rows of a new table come from.
pub(crate) struct Source<'a> {
    pub(crate) query: &'a pg::Query,
    pub(crate) embedded: &'a [Embedded],
    /// Whether its rows are wanted, and not its columns alone.
    pub(crate) data: bool,
}

fn is_in_temporary_schema(name: &pg::ObjectName) -> bool {
    matches!(
        name.0.as_slice(),
        [.., schema, _] if schema.as_ident().is_some_and(|ident| is_temporary_schema(&sql::fold(ident)))
    )
}

/// The type behind `serial` and its kin.
fn serial_type(data_type: &pg::DataType) -> Option<DataType> {
    let pg::DataType::Custom(name, modifiers) = data_type else { return None };
    let [part] = name.0.as_slice() else { return None };
    if !modifiers.is_empty() {
        return None;
    }
    match sql::fold(part.as_ident()?).as_str() {
        "smallserial" | "serial2" => Some(DataType::Int16),
        "serial" | "serial4" => Some(DataType::Int32),
        "bigserial" | "serial8" => Some(DataType::Int64),
        _ => None,
    }
}

fn apply_option(
    sequence: &mut ColumnSequence,
    option: &pg::SequenceOptions,
) -> Result<(), SqlError> {
    let number = |expr: &pg::Expr| {
        let text = expr.to_string().replace(' ', "");
        text.parse::<i64>().map_err(|_| {
            SqlError::new(SqlState::SYNTAX_ERROR, format!("\"{text}\" is no whole number"))
        })
    };
    match option {
        pg::SequenceOptions::StartWith(start, _) => sequence.start = number(start)?,
        pg::SequenceOptions::IncrementBy(increment, _) => {
            sequence.increment = number(increment)?;
            if sequence.increment == 0 {
                return Err(SqlError::new(
                    SqlState::INVALID_PARAMETER_VALUE,
                    "INCREMENT must not be zero",
                ));
            }
        }
        pg::SequenceOptions::MinValue(Some(min)) => {
            sequence.min = number(min)?;
            sequence.start = sequence.start.max(sequence.min);
        }
        pg::SequenceOptions::MaxValue(Some(max)) => sequence.max = number(max)?,
        pg::SequenceOptions::MinValue(None) | pg::SequenceOptions::MaxValue(None) => {}
        // Values are reserved on disk in blocks anyway.
        pg::SequenceOptions::Cache(_) => {}
        pg::SequenceOptions::Cycle(no) => sequence.cycle = !no,
    }
    if !(sequence.min..=sequence.max).contains(&sequence.start) {
        return Err(SqlError::new(
            SqlState::INVALID_PARAMETER_VALUE,
            format!(
                "START value ({}) must lie between {} and {}",
                sequence.start, sequence.min, sequence.max
            ),
        ));
    }
    Ok(())
}

/// An identity's column must count.
pub fn no_identity_type() -> SqlError {
    SqlError::new(
        SqlState::INVALID_PARAMETER_VALUE,
        "identity column type must be smallint, integer, or bigint",
    )
}

/// A column name that comes twice.
pub fn duplicate_column(name: &str) -> SqlError {
    SqlError::new(SqlState::DUPLICATE_COLUMN, format!("column \"{name}\" specified more than once"))
}

/// Whether a table, a view or an index has the name.
pub fn relation_exists(scope: &Scope, name: &str) -> bool {
    scope.snapshot.permanent_table(name).is_some()
        || scope.snapshot.view(name).is_some()
        || scope.snapshot.tables().iter().any(|table| {
            table.keys().iter().any(|key| key.name == name)
                || vector_indexes(&table.schema()).iter().any(|index| index.name == name)
                || sequences_of(&table.schema()).iter().any(|(_, found)| found.name == name)
        })
}

/// The name is taken.
pub fn exists(name: &str) -> SqlError {
    SqlError::new(SqlState::DUPLICATE_TABLE, format!("relation \"{name}\" already exists"))
}

/// Clauses of CREATE TABLE that would change what the table is.
fn refuse_clauses(create: &pg::CreateTable) -> Result<(), SqlError> {
    let refused = [
        (create.external, "an external table"),
        (create.or_replace, "CREATE OR REPLACE TABLE"),
        (create.like.is_some(), "CREATE TABLE ... LIKE"),
        (create.clone.is_some(), "CREATE TABLE ... CLONE"),
        (create.inherits.is_some(), "INHERITS"),
        (create.partition_by.is_some() || create.partition_of.is_some(), "PARTITION"),
    ];
    match refused.iter().find(|(given, _)| *given) {
        Some((_, what)) => Err(not_yet(what)),
        None => Ok(()),
    }
}

/// `CREATE TABLE t (a, b) AS ...`: the list gives the columns' names.
fn renamed(schema: &Schema, columns: &[pg::ColumnDef]) -> Result<SchemaRef, SqlError> {
    if columns.len() > schema.fields().len() {
        return Err(SqlError::new(SqlState::SYNTAX_ERROR, "too many column names were specified"));
    }
    let mut fields: Vec<Field> =
        schema.fields().iter().map(|field| field.as_ref().clone()).collect();
    for (field, column) in fields.iter_mut().zip(columns) {
        *field = field.clone().with_name(sql::fold(&column.name));
    }
    rowset::storable_schema(&Schema::new(fields))
}
