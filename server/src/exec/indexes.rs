//! CREATE INDEX over vectors, and DROP INDEX.
//!
//! The method is `hnsw`, with pgvector's classes of operators and parameters ([`crate::search`] has what it does). Keys bring their own
//! indexes; others over numbers and texts are 0A000, as is what hnsw does not do: unique, partial, over several columns or expressions.

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

use arrow::datatypes::SchemaRef;
use sqlparser::ast as pg;
use thanosql_ml::neighbour_graph::GraphOptions;
use thanosql_protocol::{Notice, Response, SqlError, SqlState};
use thanosql_storage::Table;

use super::Control;
use super::ddl::{exists, relation_exists};
use super::targets::{existing_name, missing_column, stored_table, target_name};
use crate::catalog::constraints::{TableDefinition, choose_name};
use crate::catalog::vector_index::{METHOD, OperatorClass, VectorIndex, vector_indexes};
use crate::error::unsupported;
use crate::plan::Parameters;
use crate::plan::types::vector_length;
use crate::session::ClientSession;
use crate::sql::{self, Parsed};

impl ClientSession {
    /// CREATE INDEX.
    pub(crate) async fn create_index(
        &mut self,
        parsed: &Parsed,
        create: &pg::CreateIndex,
        control: &Control,
    ) -> Result<Response, SqlError> {
        self.refuse_in_read_only()?;
        refuse_clauses(create)?;
        let done = Ok(Response::Done { tag: "CREATE INDEX".to_string() });
        let table = existing_name(&create.table_name, &self.transaction.peek())?;
        self.lock(&table, control).await?;
        let scope = self.scope(parsed, Parameters::default(), control)?;
        let table = stored_table(&scope, &table)?;
        let name = create.name.as_ref().map(target_name).transpose()?;
        if let Some(name) = name.as_ref().filter(|name| relation_exists(&scope, name)) {
            if !create.if_not_exists {
                return Err(exists(name));
            }
            control
                .notices
                .send(Notice::new(format!("relation \"{name}\" already exists, skipping")));
            return done;
        }
        let (column, dim, operators) = indexed_column(create, &table)?;
        let options = options_of(&create.with)?;
        let schema = table.schema();
        let index = VectorIndex {
            oid: self.transaction.change(|transaction| transaction.new_oid())?,
            name: name.unwrap_or_else(|| {
                let columns = [schema.field(column).name().as_str()];
                choose_name(table.name(), &columns, "idx", |name| relation_exists(&scope, name))
            }),
            column,
            operators,
            m: options.links,
            ef_construction: options.construction_breadth,
        };
        let cancel = control.cancel.child_token();
        let _stop_when_dropped = cancel.clone().drop_guard();
        let (indexes, of, new) = (self.server.vector_indexes.clone(), table.clone(), index.clone());
        let built = tokio::task::spawn_blocking(move || {
            indexes.build(&of, &new, dim, &|| cancel.is_cancelled())
        });
        control.run(async { built.await.map_err(crate::error::internal)? }).await?;
        let mut definition = TableDefinition::of(&table);
        definition.vector_indexes.push(index);
        self.redefine(&table, &definition)?;
        done
    }

    /// DROP INDEX.
    pub(crate) async fn drop_indexes(
        &mut self,
        names: &[pg::ObjectName],
        if_exists: bool,
        control: &Control,
    ) -> Result<Response, SqlError> {
        for name in names {
            let name = target_name(name)?;
            let Some(table) = self.table_of_index(&name)? else {
                if if_exists {
                    control
                        .notices
                        .send(Notice::new(format!("index \"{name}\" does not exist, skipping")));
                    continue;
                }
                return Err(SqlError::new(
                    SqlState::UNDEFINED_OBJECT,
                    format!("index \"{name}\" does not exist"),
                ));
            };
            self.lock(&table, control).await?;
            let table = self.transaction.snapshot().table(&table);
            let Some(table) = table.filter(|table| has_index(table, &name)) else {
                return Err(SqlError::new(
                    SqlState::UNDEFINED_OBJECT,
                    format!("index \"{name}\" does not exist"),
                ));
            };
            let mut definition = TableDefinition::of(&table);
            definition.vector_indexes.retain(|index| index.name != name);
            self.redefine(&table, &definition)?;
        }
        Ok(Response::Done { tag: "DROP INDEX".to_string() })
    }

    /// The name of the table that an index is of.
    fn table_of_index(&self, name: &str) -> Result<Option<String>, SqlError> {
        let snapshot = self.transaction.snapshot();
        if snapshot.table(name).is_some() || snapshot.view(name).is_some() {
            return Err(SqlError::new(
                SqlState::WRONG_OBJECT_TYPE,
                format!("\"{name}\" is not an index"),
            ));
        }
        for table in snapshot.tables() {
            if table.keys().iter().any(|key| key.name == name) {
                let table = table.name();
                return Err(SqlError::new(
                    SqlState::DEPENDENT_OBJECTS_STILL_EXIST,
                    format!(
                        "cannot drop index {name} because constraint {name} on table {table} requires it"
                    ),
                )
                .with_hint(format!("You can drop constraint {name} on table {table} instead.")));
            }
            if has_index(&table, name) {
                return Ok(Some(table.name().to_owned()));
            }
        }
        Ok(None)
    }
}

fn has_index(table: &Table, name: &str) -> bool {
    vector_indexes(&table.schema()).iter().any(|index| index.name == name)
}

/// What an index of ours is not.
fn refuse_clauses(create: &pg::CreateIndex) -> Result<(), SqlError> {
    let method = match &create.using {
        Some(method) => method.to_string().to_lowercase(),
        None => "btree".to_owned(),
    };
    if method != METHOD {
        let hint = match method.as_str() {
            "ivfflat" => "USING hnsw makes an index over vectors.",
            _ => {
                "PRIMARY KEY and UNIQUE have indexes of their own; USING hnsw makes one over vectors."
            }
        };
        return Err(unsupported(&format!("an index by {method}")).with_hint(hint));
    }
    let does_not = |what: &str| {
        Err(SqlError::new(
            SqlState::FEATURE_NOT_SUPPORTED,
            format!("access method \"{METHOD}\" does not support {what}"),
        ))
    };
    if create.unique {
        return does_not("unique indexes");
    }
    if !create.include.is_empty() {
        return does_not("included columns");
    }
    if create.columns.len() != 1 {
        return does_not("multicolumn indexes");
    }
    if create.concurrently {
        return Err(unsupported("CREATE INDEX CONCURRENTLY")
            .with_hint("Without CONCURRENTLY the table is read meanwhile, and changes wait."));
    }
    let others = [
        (create.predicate.is_some(), "a partial index"),
        (create.nulls_distinct.is_some(), "NULLS DISTINCT of an index that is not unique"),
        (!create.index_options.is_empty() || !create.alter_options.is_empty(), "this clause"),
    ];
    match others.iter().find(|(given, _)| *given) {
        Some((_, what)) => Err(unsupported(what)),
        None => Ok(()),
    }
}

/// The place of the indexed column, the length of its vectors, and its class of operators.
fn indexed_column(
    create: &pg::CreateIndex,
    table: &Table,
) -> Result<(usize, usize, OperatorClass), SqlError> {
    let [column] = create.columns.as_slice() else {
        return Err(crate::error::internal("an index has one column"));
    };
    let pg::Expr::Identifier(ident) = &column.column.expr else {
        return Err(unsupported("an index over an expression"));
    };
    let options = &column.column.options;
    if options.asc.is_some() || options.nulls_first.is_some() {
        return Err(unsupported("an order of an index over vectors"));
    }
    let (name, schema): (String, SchemaRef) = (sql::fold(ident), table.schema());
    let place = schema.index_of(&name).map_err(|_| missing_column(&name, table.name(), &schema))?;
    let Some(class) = &column.operator_class else {
        let names: Vec<&str> = OperatorClass::ALL.iter().map(|class| class.name()).collect();
        return Err(SqlError::new(
            SqlState::UNDEFINED_OBJECT,
            format!(
                "data type vector has no default operator class for access method \"{METHOD}\""
            ),
        )
        .with_hint(format!("Say which after the column: {}.", names.join(", "))));
    };
    let class = class.to_string().to_lowercase();
    let operators =
        OperatorClass::ALL.into_iter().find(|known| known.name() == class).ok_or_else(|| {
            let error = SqlError::new(
                SqlState::UNDEFINED_OBJECT,
                format!("operator class \"{class}\" does not exist for access method \"{METHOD}\""),
            );
            match sql::closest(&class, OperatorClass::ALL.iter().map(|class| class.name())) {
                Some(near) => error.with_hint(format!("Did you mean \"{near}\"?")),
                None => error,
            }
        })?;
    let field = schema.field(place);
    let dim = vector_length(field.data_type()).and_then(|length| usize::try_from(length).ok());
    match dim {
        Some(dim) => Ok((place, dim, operators)),
        None => {
            let oid = thanosql_protocol::types::type_oid(field);
            let class = operators.name();
            let found = thanosql_protocol::types::sql_type_name(oid).unwrap_or_default();
            Err(SqlError::new(
                SqlState::DATATYPE_MISMATCH,
                format!("operator class \"{class}\" does not accept data type {found}"),
            ))
        }
    }
}

/// `WITH (m = 16, ef_construction = 64)`.
fn options_of(given: &[pg::Expr]) -> Result<GraphOptions, SqlError> {
    let invalid = |message: String| SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message);
    let mut options = GraphOptions::default();
    for expr in given {
        let pg::Expr::BinaryOp { left, op: pg::BinaryOperator::Eq, right } = expr else {
            return Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                format!("\"{expr}\" is no parameter of an index"),
            ));
        };
        let name = match left.as_ref() {
            pg::Expr::Identifier(ident) => sql::fold(ident),
            other => other.to_string(),
        };
        let (place, least, greatest) = match name.as_str() {
            "m" => (&mut options.links, 2, 100),
            "ef_construction" => (&mut options.construction_breadth, 4, 1000),
            _ => {
                return Err(invalid(format!("unrecognized parameter \"{name}\""))
                    .with_hint("Valid are: m, ef_construction."));
            }
        };
        let text = match right.as_ref() {
            pg::Expr::Value(value) => match &value.value {
                pg::Value::Number(text, _) | pg::Value::SingleQuotedString(text) => text.clone(),
                other => other.to_string(),
            },
            other => other.to_string(),
        };
        let value: i64 = text
            .parse()
            .map_err(|_| invalid(format!("invalid value for integer option \"{name}\": {text}")))?;
        *place = usize::try_from(value)
            .ok()
            .filter(|value| (least..=greatest).contains(value))
            .ok_or_else(|| {
                invalid(format!("value {value} out of bounds for option \"{name}\"")).with_detail(
                    format!("Valid values are between \"{least}\" and \"{greatest}\"."),
                )
            })?;
    }
    if options.construction_breadth < 2 * options.links {
        return Err(invalid("ef_construction must be greater than or equal to 2 * m".to_owned()));
    }
    Ok(options)
}
