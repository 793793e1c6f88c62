//! A table's definition: what its rows must hold to, keys and checks, how they are kept and what they are called, and its indexes.
//!
//! Keys are the storage's ([`UniqueKey`]), NOT NULL and defaults are a column's, and CHECK is an expression's text in the
//! schema's metadata. [`TableDefinition`] holds all of it while a statement changes it. Names are made as PostgreSQL makes them,
//! because clients match on them: `t_pkey`, `t_a_b_key`, `t_a_check`.

use std::sync::Arc;

use arrow::datatypes::{Field, FieldRef, Schema, SchemaRef};
use serde::{Deserialize, Serialize};
use thanosql_storage::{INDEX_DATA_KEY, Table, UniqueKey, with_keys};

use super::vector_index::{INDEXES, VectorIndex, vector_indexes};

/// Where a table's checks are in its schema's metadata.
const CHECKS: &str = "thanosql.checks";
/// Where a temporary table says what a commit does to it.
const ON_COMMIT: &str = "thanosql.on_commit";
/// The longest name, in bytes.
const MAX_NAME_BYTES: usize = 63;

/// A CHECK.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Its object id.
    pub oid: u32,
    /// Its name.
    pub name: String,
    /// Its expression's SQL text.
    pub expression: String,
}

/// What a commit does to a temporary table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnCommit {
    /// Nothing.
    PreserveRows,
    /// Its rows go.
    DeleteRows,
    /// It goes.
    Drop,
}

/// A table's definition, to be changed.
#[derive(Clone, Debug)]
pub struct TableDefinition {
    /// Columns with their defaults.
    pub columns: Vec<FieldRef>,
    /// Primary and unique keys.
    pub keys: Vec<UniqueKey>,
    /// Checks.
    pub checks: Vec<Check>,
    /// Indexes over vectors.
    pub vector_indexes: Vec<VectorIndex>,
    /// For a temporary table.
    pub on_commit: OnCommit,
}

impl TableDefinition {
    /// A table with columns and nothing else.
    pub fn new(columns: Vec<Field>) -> TableDefinition {
        TableDefinition {
            columns: columns.into_iter().map(Arc::new).collect(),
            keys: Vec::new(),
            checks: Vec::new(),
            vector_indexes: Vec::new(),
            on_commit: OnCommit::PreserveRows,
        }
    }

    /// Columns and nothing else, for a table that is there. A temporary one stays one.
    pub fn in_place_of(table: &Table, columns: &Schema) -> TableDefinition {
        let columns = columns.fields().iter().map(|field| field.as_ref().clone()).collect();
        TableDefinition { on_commit: on_commit(&table.schema()), ..TableDefinition::new(columns) }
    }

    /// The definition of a table that is there.
    pub fn of(table: &Table) -> TableDefinition {
        let schema = table.schema();
        TableDefinition {
            columns: schema.fields().iter().cloned().collect(),
            keys: table.keys().to_vec(),
            checks: checks_of(&schema),
            vector_indexes: vector_indexes(&schema),
            on_commit: on_commit(&schema),
        }
    }

    /// The definition as the storage keeps it.
    pub fn schema(&self) -> SchemaRef {
        let mut metadata = std::collections::HashMap::new();
        if !self.checks.is_empty() {
            let text = serde_json::to_string(&self.checks).unwrap_or_default();
            metadata.insert(CHECKS.to_string(), text);
        }
        if !self.vector_indexes.is_empty() {
            let text = serde_json::to_string(&self.vector_indexes).unwrap_or_default();
            metadata.insert(INDEXES.to_string(), text);
            let oids: Vec<String> =
                self.vector_indexes.iter().map(|index| index.oid.to_string()).collect();
            metadata.insert(INDEX_DATA_KEY.to_string(), oids.join(" "));
        }
        let word = match self.on_commit {
            OnCommit::PreserveRows => None,
            OnCommit::DeleteRows => Some("delete rows"),
            OnCommit::Drop => Some("drop"),
        };
        if let Some(word) = word {
            metadata.insert(ON_COMMIT.to_string(), word.to_string());
        }
        let columns: Vec<FieldRef> = self.columns.clone();
        with_keys(&Schema::new_with_metadata(columns, metadata), &self.keys)
    }

    /// The index of a column.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name() == name)
    }

    /// Takes a column out, with the keys and indexes that it is in. Checks are the caller's.
    pub fn remove_column(&mut self, column: usize) {
        self.keys.retain(|key| !key.columns.contains(&column));
        self.vector_indexes.retain(|index| index.column != column);
        let of_keys = self.keys.iter_mut().flat_map(|key| &mut key.columns);
        let of_indexes = self.vector_indexes.iter_mut().map(|index| &mut index.column);
        for position in of_keys.chain(of_indexes) {
            *position -= usize::from(*position > column);
        }
        self.columns.remove(column);
    }

    /// Makes a column NOT NULL, or lets it be NULL.
    pub fn set_nullable(&mut self, column: usize, nullable: bool) {
        let field = self.columns[column].as_ref().clone().with_nullable(nullable);
        self.columns[column] = Arc::new(field);
    }

    /// Whether a constraint of that name is here.
    pub fn has_constraint(&self, name: &str) -> bool {
        self.keys.iter().any(|key| key.name == name)
            || self.checks.iter().any(|check| check.name == name)
    }
}

/// The checks that a schema names.
pub fn checks_of(schema: &Schema) -> Vec<Check> {
    match schema.metadata().get(CHECKS) {
        Some(text) => serde_json::from_str(text).unwrap_or_else(|error| {
            tracing::error!(%error, "the checks of a table do not parse");
            Vec::new()
        }),
        None => Vec::new(),
    }
}

/// What a commit does to a temporary table of that schema.
pub fn on_commit(schema: &Schema) -> OnCommit {
    match schema.metadata().get(ON_COMMIT).map(String::as_str) {
        Some("delete rows") => OnCommit::DeleteRows,
        Some(_) => OnCommit::Drop,
        None => OnCommit::PreserveRows,
    }
}

/// A constraint's name as PostgreSQL makes it: `table_columns_suffix`, and a number if that is taken.
pub fn choose_name(
    table: &str,
    columns: &[&str],
    suffix: &str,
    is_taken: impl Fn(&str) -> bool,
) -> String {
    let mut number = 0;
    loop {
        let suffix = if number == 0 { suffix.to_string() } else { format!("{suffix}{number}") };
        let name = joined(table, &columns.join("_"), &suffix);
        if !is_taken(&name) {
            return name;
        }
        number += 1;
    }
}

/// Both names shortened, the longer one first, until all fits.
fn joined(table: &str, columns: &str, suffix: &str) -> String {
    let middle = if columns.is_empty() { 0 } else { columns.len() + 1 };
    let (mut left, mut right) = (table.len(), columns.len());
    let mut over = (left + middle + 1 + suffix.len()).saturating_sub(MAX_NAME_BYTES);
    while over > 0 && left + right > 0 {
        if left > right {
            left -= 1
        } else {
            right -= 1
        }
        over -= 1;
    }
    let cut = |text: &str, length: usize| {
        let end = (0..=length).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text[..end].to_string()
    };
    if columns.is_empty() {
        format!("{}_{suffix}", cut(table, left))
    } else {
        format!("{}_{}_{suffix}", cut(table, left), cut(columns, right))
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::DataType;

    use super::*;
    use crate::catalog::vector_index::OperatorClass;

    #[test]
    fn names_are_postgresqls() {
        let free = |_: &str| false;
        assert_eq!(choose_name("t", &[], "pkey", free), "t_pkey");
        assert_eq!(choose_name("t", &["a", "b"], "key", free), "t_a_b_key");
        let taken = |name: &str| name == "t_a_check" || name == "t_a_check1";
        assert_eq!(choose_name("t", &["a"], "check", taken), "t_a_check2");
        // As PostgreSQL 15 cuts it.
        let table = "a".repeat(60);
        let name = choose_name(&table, &["column"], "key", free);
        assert_eq!(name, format!("{}_column_key", "a".repeat(52)));
        let name = choose_name(&"가".repeat(30), &[], "pkey", free);
        assert!(name.len() <= MAX_NAME_BYTES && name.ends_with("_pkey"), "{name}");
    }

    #[test]
    fn a_definition_is_read_back() {
        let mut definition = TableDefinition::new(vec![Field::new("a", DataType::Int32, true)]);
        definition.checks.push(Check {
            oid: 3,
            name: "t_a_check".to_string(),
            expression: "a > 'x'".to_string(),
        });
        definition.on_commit = OnCommit::DeleteRows;
        definition.set_nullable(0, false);
        for (oid, column) in [(7, 0), (8, 1)] {
            definition.columns.push(Arc::new(Field::new(oid.to_string(), DataType::Int32, true)));
            definition.vector_indexes.push(VectorIndex {
                oid,
                name: oid.to_string(),
                column,
                operators: OperatorClass::L2,
                m: 16,
                ef_construction: 64,
            });
        }
        let schema = definition.schema();
        assert_eq!(vector_indexes(&schema), definition.vector_indexes);
        assert_eq!(schema.metadata()[INDEX_DATA_KEY], "7 8");
        let mut shorter = definition.clone();
        shorter.remove_column(0);
        assert_eq!(shorter.vector_indexes.len(), 1);
        assert_eq!((shorter.vector_indexes[0].oid, shorter.vector_indexes[0].column), (8, 0));
        assert_eq!(checks_of(&schema), definition.checks);
        assert_eq!(on_commit(&schema), OnCommit::DeleteRows);
        assert!(!schema.field(0).is_nullable());
    }
}
