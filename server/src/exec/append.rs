//! Rows from outside on their way into a table: what COPY in all its forms has in common.
//!
//! Whoever reads a format hands over chunks of columns that are already values of the table's types. Here the columns that
//! the data lacks are filled in, lengths and NULLs are looked at, rows that a WHERE does not want are dropped, and the rest is
//! stored. When a chunk is refused, be it by a key or a CHECK, its first bad row is found, so that the error names a line of the data
//! and not a range of them.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, new_null_array,
};
use arrow::compute::{CastOptions, cast_with_options, filter_record_batch, prep_null_mask_filter};
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::logical_expr::Expr;
use datafusion::physical_expr::PhysicalExpr;
use thanosql_protocol::{SqlError, SqlState};

use super::given_values::default_expression;
use super::rowset;
use crate::error::{arrow_error, datafusion_error};
use crate::plan::{self, Scope};
use crate::session::ClientSession;
use crate::session::transaction::SessionTransaction;

/// Rows that are handed over at once.
pub const CHUNK_ROWS: usize = 4096;
/// Bytes after which a chunk is handed over even if it could take more rows.
pub const CHUNK_BYTES: usize = 16 << 20;

/// Rows as they were read.
#[derive(Debug)]
pub struct Chunk {
    /// By the data's columns.
    pub columns: Vec<ArrayRef>,
    /// Where each row stood.
    pub places: Places,
}

/// Where the rows of a chunk stood in the data.
#[derive(Debug)]
pub enum Places {
    /// The line of each row.
    Lines(Vec<u64>),
    /// Counted rows; the number of the first.
    Rows {
        /// Counted from 1.
        first: u64,
        /// How many there are.
        count: usize,
    },
}

impl Places {
    /// How many rows there are.
    pub fn len(&self) -> usize {
        match self {
            Places::Lines(lines) => lines.len(),
            Places::Rows { count, .. } => *count,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `line 7` or `row 7`.
    pub fn of(&self, row: usize) -> String {
        match self {
            Places::Lines(lines) => format!("line {}", lines.get(row).copied().unwrap_or_default()),
            Places::Rows { first, .. } => format!("row {}", first + row as u64),
        }
    }
}

/// A chunk's rows as rows of the table.
struct Prepared {
    batch: RecordBatch,
    /// Which of the chunk's rows these are; `None` for all.
    wanted: Option<BooleanArray>,
}

/// Stores chunks in a table of the session's transaction, whose lock must be held.
pub struct Appender {
    transaction: SessionTransaction,
    /// The table's name.
    pub(crate) table: String,
    /// The table's columns.
    pub(crate) schema: SchemaRef,
    /// The table's column of each of the data's.
    pub(crate) targets: Vec<usize>,
    /// The default of each of the table's columns, if it has one.
    defaults: Vec<Option<Arc<dyn PhysicalExpr>>>,
    /// Over the table's columns: which rows are taken.
    filter: Option<Arc<dyn PhysicalExpr>>,
    /// How many rows were stored.
    pub(crate) rows: u64,
}

impl ClientSession {
    /// What stores rows in a table, whose columns of the data's columns are `targets`. The table must be locked.
    ///
    /// # Errors
    /// What planning the columns' defaults answers.
    pub(crate) fn appender(
        &self,
        scope: &Scope,
        table: &str,
        schema: SchemaRef,
        targets: Vec<usize>,
        filter: Option<Arc<dyn PhysicalExpr>>,
    ) -> Result<Appender, SqlError> {
        Ok(Appender {
            transaction: self.transaction.clone(),
            table: table.to_owned(),
            defaults: self.column_defaults(scope, &schema)?,
            filter,
            rows: 0,
            schema,
            targets,
        })
    }

    /// The default of each column that has one. What is volatile in it has a value of its own for each row.
    fn column_defaults(
        &self,
        scope: &Scope,
        schema: &SchemaRef,
    ) -> Result<Vec<Option<Arc<dyn PhysicalExpr>>>, SqlError> {
        let mut defaults = Vec::with_capacity(schema.fields().len());
        for field in schema.fields() {
            defaults.push(match default_expression(field)? {
                Some(expression) => {
                    let value = plan::plan_constant(&self.state, scope, expression)?;
                    Some(self.constant(value, field)?)
                }
                None => None,
            });
        }
        Ok(defaults)
    }

    /// A constant's value as one of a column.
    pub(crate) fn evaluate(&self, value: Expr, field: &Field) -> Result<ArrayRef, SqlError> {
        values_of(self.constant(value, field)?.as_ref(), 1)
    }

    /// A constant as one of a column, ready to run.
    fn constant(&self, value: Expr, field: &Field) -> Result<Arc<dyn PhysicalExpr>, SqlError> {
        let schema = DFSchema::empty();
        plan::coerce::assign(value, &schema, field)
            .and_then(|value| plan::physical(&self.state, value, &schema))
            .map_err(|error| datafusion_error(error, None))
    }
}

/// So many values of an expression over no columns.
fn values_of(expression: &dyn PhysicalExpr, count: usize) -> Result<ArrayRef, SqlError> {
    let rows = RecordBatch::try_new_with_options(
        Arc::new(Schema::empty()),
        Vec::new(),
        &RecordBatchOptions::new().with_row_count(Some(count)),
    )
    .map_err(arrow_error)?;
    // A sequence's values may have to be reserved on disk.
    tokio::task::block_in_place(|| expression.evaluate(&rows))
        .and_then(|values| values.into_array(count))
        .map_err(|error| datafusion_error(error, None))
}

impl Appender {
    /// The table's field of a column of the data.
    pub fn field(&self, column: usize) -> &Field {
        self.schema.field(self.targets[column])
    }

    /// Whether a column of the data has a default.
    pub fn has_default(&self, column: usize) -> bool {
        self.defaults[self.targets[column]].is_some()
    }

    /// What so many rows have in a column of the data that ask for its default.
    ///
    /// # Errors
    /// What the default answers, such as 2200H when a sequence comes to its end.
    pub fn default_values(&self, column: usize, count: usize) -> Result<ArrayRef, SqlError> {
        self.unasked(self.targets[column], count)
    }

    /// What so many rows have in a column of the table that the data says nothing of.
    fn unasked(&self, column: usize, count: usize) -> Result<ArrayRef, SqlError> {
        match &self.defaults[column] {
            Some(default) => values_of(default.as_ref(), count),
            None => Ok(new_null_array(self.schema.field(column).data_type(), count)),
        }
    }

    /// Stores a chunk.
    ///
    /// # Errors
    /// 23502, 22001, what the WHERE answers, and what the store answers; the detail says in which line.
    pub fn store(&mut self, chunk: Chunk) -> Result<(), SqlError> {
        let count = chunk.places.len();
        if count == 0 {
            return Ok(());
        }
        let Prepared { batch, wanted } = match self.prepare(&chunk.columns, count) {
            Ok(prepared) => prepared,
            Err(error) => return Err(self.placed(error, &chunk)),
        };
        if batch.num_rows() > 0
            && let Err(error) = self.append(&batch)
        {
            let place = |row: usize| match &wanted {
                Some(wanted) => wanted.values().set_indices().nth(row).unwrap_or(row),
                None => row,
            };
            return Err(match self.first_refused(&batch, &error) {
                Some((row, error)) => {
                    placed(error, &self.table, &chunk.places.of(place(row)), None)
                }
                None => error,
            });
        }
        self.rows += batch.num_rows() as u64;
        Ok(())
    }

    /// Stores rows of the data's columns, which may have other types, from nowhere a place could be told of.
    ///
    /// # Errors
    /// As [`store`](Self::store), without the place, and for a value that its column cannot have.
    pub fn append_rows(&self, rows: &RecordBatch) -> Result<(), SqlError> {
        let options = CastOptions { safe: false, ..CastOptions::default() };
        let mut columns = Vec::with_capacity(rows.num_columns());
        for (column, target) in rows.columns().iter().zip(&self.targets) {
            let data_type = self.schema.field(*target).data_type();
            columns.push(cast_with_options(column, data_type, &options).map_err(arrow_error)?);
        }
        let Prepared { batch, .. } = self.prepare(&columns, rows.num_rows())?;
        self.append(&batch)
    }

    fn append(&self, batch: &RecordBatch) -> Result<(), SqlError> {
        self.transaction.change(|transaction| transaction.append(&self.table, batch))
    }

    /// The first of rows that were refused together which is refused when they come one by one. The statement fails either way, so it
    /// does not matter that those before it are stored.
    fn first_refused(&self, batch: &RecordBatch, error: &SqlError) -> Option<(usize, SqlError)> {
        // Only what is wrong with a value has a row: class 22 are bad values, class 23 broken constraints.
        if !["22", "23"].iter().any(|class| error.code.0.starts_with(class)) {
            return None;
        }
        (0..batch.num_rows()).find_map(|row| Some((row, self.append(&batch.slice(row, 1)).err()?)))
    }

    /// The chunk's rows as rows of the table.
    fn prepare(&self, given: &[ArrayRef], count: usize) -> Result<Prepared, SqlError> {
        let mut columns: Vec<Option<ArrayRef>> = vec![None; self.schema.fields().len()];
        for (target, column) in self.targets.iter().zip(given) {
            columns[*target] = Some(column.clone());
        }
        let mut whole = Vec::with_capacity(columns.len());
        for (index, column) in columns.into_iter().enumerate() {
            whole.push(match column {
                Some(column) => column,
                None => self.unasked(index, count)?,
            });
        }
        let fields: Vec<Field> = self
            .schema
            .fields()
            .iter()
            .zip(&whole)
            .map(|(field, column)| Field::new(field.name(), column.data_type().clone(), true))
            .collect();
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let batch =
            RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), whole, &options)
                .map_err(arrow_error)?;
        let batch = rowset::conform(&batch, &self.schema)?;
        let wanted = match &self.filter {
            Some(filter) => Some(wanted(filter.as_ref(), &batch)?),
            None => None,
        };
        let batch = match &wanted {
            Some(wanted) => filter_record_batch(&batch, wanted).map_err(arrow_error)?,
            None => batch,
        };
        for (column, field) in batch.columns().iter().zip(self.schema.fields()) {
            if !field.is_nullable() && column.logical_null_count() > 0 {
                return Err(crate::error::storage_error(thanosql_storage::StorageError::NotNull {
                    table: self.table.clone(),
                    column: field.name().clone(),
                }));
            }
        }
        Ok(Prepared { batch, wanted })
    }

    /// The error with the place of the first row that has it.
    fn placed(&self, error: SqlError, chunk: &Chunk) -> SqlError {
        let alone = |row: usize| -> Vec<ArrayRef> {
            chunk.columns.iter().map(|column| column.slice(row, 1)).collect()
        };
        for row in 0..chunk.places.len() {
            if let Err(error) = self.prepare(&alone(row), 1) {
                return placed(error, &self.table, &chunk.places.of(row), None);
            }
        }
        error
    }
}

/// Says where an error is, unless it says more already: `COPY t, line 7, column a`.
pub fn placed(error: SqlError, table: &str, place: &str, column: Option<&str>) -> SqlError {
    let mut context = format!("COPY {table}, {place}");
    if let Some(column) = column {
        context.push_str(&format!(", column {column}"));
    }
    match &error.detail {
        Some(detail) => {
            let detail = format!("{detail}\n{context}");
            error.with_detail(detail)
        }
        None => error.with_detail(context),
    }
}

/// The rows for which a condition is true; no NULL is among the answers.
fn wanted(filter: &dyn PhysicalExpr, batch: &RecordBatch) -> Result<BooleanArray, SqlError> {
    let values = filter
        .evaluate(batch)
        .and_then(|values| values.into_array(batch.num_rows()))
        .map_err(|error| datafusion_error(error, None))?;
    let Some(keep) = values.as_boolean_opt() else {
        return Err(SqlError::new(
            SqlState::DATATYPE_MISMATCH,
            "argument of WHERE must be type boolean",
        ));
    };
    Ok(match keep.nulls() {
        Some(_) => prep_null_mask_filter(keep),
        None => keep.clone(),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::Int64Array;
    use arrow::datatypes::DataType;
    use datafusion::physical_expr::expressions::lit;
    use thanosql_storage::{Owner, Store, StoreOptions};
    use tokio_util::sync::CancellationToken;

    use super::*;

    async fn appender(folder: &std::path::Path) -> Appender {
        let options = StoreOptions { sled_cache_bytes: 1 << 20, column_cache_bytes: 1 << 20 };
        let store = Store::open(folder, options).unwrap();
        let transaction = SessionTransaction::new(store, Owner::default(), Arc::default());
        transaction.write("t", None, &CancellationToken::new()).await.unwrap();
        let schema = Arc::new(Schema::new(vec![
            Field::new("a", DataType::Int64, false),
            Field::new("b", DataType::Utf8, true),
            Field::new("c", DataType::Int64, true),
        ]));
        transaction
            .change(|transaction| transaction.create_table("t", schema.clone()).map(|_| ()))
            .unwrap();
        Appender {
            transaction,
            table: "t".to_string(),
            schema,
            targets: vec![2, 0],
            defaults: vec![None, Some(lit("x")), None],
            filter: None,
            rows: 0,
        }
    }

    fn integers(values: Vec<Option<i64>>) -> ArrayRef {
        Arc::new(Int64Array::from(values))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn columns_that_are_missing_get_their_default() {
        let folder = tempfile::tempdir().unwrap();
        let mut appender = appender(folder.path()).await;
        let columns = vec![integers(vec![None, Some(7)]), integers(vec![Some(1), Some(2)])];
        appender.store(Chunk { columns, places: Places::Rows { first: 1, count: 2 } }).unwrap();
        assert_eq!(appender.rows, 2);
        let table = appender.transaction.snapshot().table("t").unwrap();
        let batch = table.read_group(0, None).unwrap();
        assert_eq!(batch.column(0).as_ref(), integers(vec![Some(1), Some(2)]).as_ref());
        assert_eq!(batch.column(1).as_string::<i32>().value(1), "x");
        assert_eq!(batch.column(2).as_ref(), integers(vec![None, Some(7)]).as_ref());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_first_bad_row_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let mut appender = appender(folder.path()).await;
        let columns =
            vec![integers(vec![Some(7), None, Some(8)]), integers(vec![Some(1), Some(2), None])];
        let chunk = Chunk { columns, places: Places::Lines(vec![2, 3, 5]) };
        let error = appender.store(chunk).unwrap_err();
        assert_eq!(error.code, SqlState::NOT_NULL_VIOLATION);
        assert!(error.detail.unwrap().ends_with("COPY t, line 5"));
        assert_eq!(appender.rows, 0);
    }
}
