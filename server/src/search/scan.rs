//! The scan of a table that an index narrows to where the nearest rows are.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use thanosql_protocol::{SqlError, SqlState};
use thanosql_storage::Table;

use super::VectorIndexes;
use super::rows::Candidates;
use crate::catalog::leaf::{RowSource, Rows};
use crate::catalog::vector_index::VectorIndex;
use crate::error::{arrow_error, storage_error};

/// What of a table is nearest, by an index.
#[derive(Clone)]
pub struct Nearest {
    /// Where graphs are.
    pub indexes: Arc<VectorIndexes>,
    /// The index.
    pub index: VectorIndex,
    /// Nearest to this; `None` where it is not computed because nothing runs.
    pub vector: Option<Arc<[f32]>>,
    /// How many rows are wanted.
    pub k: usize,
    /// Vectors in the search's view.
    pub breadth: usize,
}

impl std::fmt::Debug for Nearest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Nearest").field("index", &self.index.name).finish_non_exhaustive()
    }
}

/// Reads the rows of a table among which its nearest are.
#[derive(Debug)]
pub struct NearestScan {
    /// The table.
    pub table: Table,
    /// What of it.
    pub nearest: Nearest,
    /// Indexes into the table's columns.
    pub columns: Vec<usize>,
}

impl RowSource for NearestScan {
    const NAME: &'static str = "NearestExec";

    fn describe(&self) -> Vec<(&'static str, String)> {
        let Nearest { indexes, index, k, breadth, .. } = &self.nearest;
        let mut facts = vec![
            ("table", self.table.name().to_owned()),
            ("index", index.name.clone()),
            ("k", k.to_string()),
            ("ef_search", breadth.to_string()),
        ];
        // EXPLAIN reads nothing, so this is said of an index that is in memory alone.
        if let Some(rows) = indexes.in_memory(index.oid) {
            facts.push(("unindexed_rows", rows.missing(&self.table).to_string()));
        }
        facts
    }

    fn read(&self, schema: &SchemaRef, rows: &mut Rows<'_>) -> Result<(), SqlError> {
        match self.candidates(rows)? {
            Some(Candidates { rows: ids, groups }) => {
                let near = self.table.rows(&ids, Some(&self.columns)).map_err(storage_error)?;
                if !rows.send(self.shown(schema, near)?) {
                    return Ok(());
                }
                self.read_groups(schema, groups, rows)
            }
            None => self.read_groups(schema, 0..self.table.groups(), rows),
        }
    }
}

impl NearestScan {
    fn candidates(&self, rows: &Rows<'_>) -> Result<Option<Candidates>, SqlError> {
        let Nearest { indexes, index, vector, k, breadth } = &self.nearest;
        let vector = vector.as_ref().ok_or_else(|| {
            SqlError::new(SqlState::INTERNAL_ERROR, "the vector of a search was not computed")
        })?;
        let Some(found) = indexes.get(index) else { return Ok(None) };
        if found.dim() != vector.len() {
            return Ok(None);
        }
        indexes.refresh(&self.table, index, &found);
        found.candidates(&self.table, vector, *k, *breadth, &|| rows.is_unwanted())
    }

    fn read_groups(
        &self,
        schema: &SchemaRef,
        groups: impl IntoIterator<Item = usize>,
        rows: &mut Rows<'_>,
    ) -> Result<(), SqlError> {
        for group in groups {
            let batch = self.table.read_group(group, Some(&self.columns)).map_err(storage_error)?;
            if !rows.send(self.shown(schema, batch)?) {
                break;
            }
        }
        Ok(())
    }

    /// Under the schema that the plan knows.
    fn shown(&self, schema: &SchemaRef, batch: RecordBatch) -> Result<RecordBatch, SqlError> {
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(schema.clone(), batch.columns().to_vec(), &options)
            .map_err(arrow_error)
    }
}
