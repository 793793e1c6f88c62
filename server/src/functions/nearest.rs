//! `nearest(vector)`: the rows of another table whose vectors lie nearest, for FUNCTION compute.similarity.
//!
//! The other table's vectors and labels are read once, when the first rows arrive, as the plan that yields them; then each batch is compared with all of them in
//! blocked matrix products. They stand in memory while the statement runs, and count against the memory of queries.

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Float64Array, Int32Array, ListArray, StructArray, UInt32Array,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Fields};
use async_trait::async_trait;
use datafusion::common::Result;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::async_udf::{AsyncScalarUDF, AsyncScalarUDFImpl};
use datafusion::logical_expr::{
    ColumnarValue, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::physical_plan::execute_stream;
use futures::StreamExt as _;
use thanosql_ml::quality::{Gallery, Neighbour};
use thanosql_protocol::{SqlError, SqlState};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use super::vector_column::{Vectors, different_lengths};
use crate::error::{datafusion_error, through_datafusion};
use crate::learning::ml_error;

/// Vectors that are compared with the other table at once: a block of [`Gallery::nearest`].
const QUERIES_AT_ONCE: usize = 256;

/// What compute.similarity rests on in one statement.
pub struct NearestContext {
    /// The other table's vectors and labels, in this order.
    source: LogicalPlan,
    state: SessionState,
    label_type: DataType,
    k: usize,
    cancel: CancellationToken,
    loaded: OnceCell<Arc<Source>>,
}

impl std::fmt::Debug for NearestContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NearestContext").field("k", &self.k).finish_non_exhaustive()
    }
}

/// The other table in memory.
struct Source {
    gallery: Gallery,
    labels: ArrayRef,
    /// Given back when the statement ends.
    _memory: MemoryReservation,
}

impl NearestContext {
    /// `source` yields a vector and a label a row; `k` rows of it at most are given for each vector.
    pub fn new(
        source: LogicalPlan,
        state: SessionState,
        k: usize,
        cancel: CancellationToken,
    ) -> NearestContext {
        let label_type = source.schema().field(1).data_type().clone();
        NearestContext { source, state, label_type, k, cancel, loaded: OnceCell::new() }
    }

    /// What is given for each of the nearest rows.
    pub fn fields(&self) -> Fields {
        Fields::from(vec![
            Field::new("label", self.label_type.clone(), true),
            Field::new("score", DataType::Float64, true),
            Field::new("rank", DataType::Int32, true),
        ])
    }

    fn answer_type(&self) -> DataType {
        DataType::List(Arc::new(Field::new_list_field(DataType::Struct(self.fields()), true)))
    }

    async fn source(&self) -> Result<Arc<Source>, SqlError> {
        self.loaded.get_or_try_init(|| async { self.load().await.map(Arc::new) }).await.cloned()
    }

    async fn load(&self) -> Result<Source, SqlError> {
        let failed = |error| datafusion_error(error, None);
        let plan = crate::exec::query::physical_plan(&self.state, &self.source).await?;
        let task = self.state.task_ctx();
        let memory = MemoryConsumer::new("compute.similarity").register(task.memory_pool());
        let mut stream = execute_stream(plan, task).map_err(failed)?;
        let mut numbers: Vec<f32> = Vec::new();
        let mut dim = 0;
        let mut labels: Vec<ArrayRef> = Vec::new();
        while let Some(batch) = stream.next().await {
            let batch = batch.map_err(failed)?;
            let vectors = Vectors::of(batch.column(0)).map_err(failed)?;
            let mut kept: Vec<u32> = Vec::with_capacity(vectors.len);
            let before = numbers.len();
            for row in 0..vectors.len {
                if let Some(vector) = vectors.get(row).map_err(failed)? {
                    dim = vector.len();
                    numbers.extend_from_slice(vector);
                    kept.push(row as u32);
                }
            }
            let label = arrow::compute::take(batch.column(1), &UInt32Array::from(kept), None)
                .map_err(crate::error::arrow_error)?;
            // The numbers stand here twice for a moment: as they came, and as directions.
            let bytes = (numbers.len() - before) * 2 * size_of::<f32>();
            memory.try_grow(bytes + label.get_array_memory_size()).map_err(failed)?;
            labels.push(label);
        }
        let labels = if labels.is_empty() {
            arrow::array::new_empty_array(&self.label_type)
        } else {
            let parts: Vec<&dyn Array> = labels.iter().map(AsRef::as_ref).collect();
            arrow::compute::concat(&parts).map_err(crate::error::arrow_error)?
        };
        let gallery = tokio::task::spawn_blocking(move || Gallery::new(&numbers, dim))
            .await
            .map_err(crate::error::internal)?;
        Ok(Source { gallery, labels, _memory: memory })
    }
}

/// `nearest(vector)` for one statement: a list of structs of `label`, `score` and `rank`; one of NULLs for a NULL vector, or if there is no row to compare with.
pub fn nearest_function(context: Arc<NearestContext>) -> ScalarUDF {
    AsyncScalarUDF::new(Arc::new(Nearest {
        context,
        // Volatile for the reasons that embed is.
        signature: Signature::any(1, Volatility::Volatile),
    }))
    .into_scalar_udf()
}

#[derive(Debug)]
struct Nearest {
    context: Arc<NearestContext>,
    signature: Signature,
}

impl PartialEq for Nearest {
    fn eq(&self, other: &Nearest) -> bool {
        Arc::ptr_eq(&self.context, &other.context)
    }
}

impl Eq for Nearest {}

impl Hash for Nearest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.context).hash(state);
    }
}

impl ScalarUDFImpl for Nearest {
    fn name(&self) -> &str {
        "nearest"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(self.context.answer_type())
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Err(through_datafusion(SqlError::new(
            SqlState::FEATURE_NOT_SUPPORTED,
            "compute.similarity cannot stand in this place",
        )))
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for Nearest {
    fn ideal_batch_size(&self) -> Option<usize> {
        Some(QUERIES_AT_ONCE)
    }

    async fn invoke_async_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(argument) = args.args.first() else {
            return Err(through_datafusion(crate::error::internal("nearest takes a vector")));
        };
        let column = argument.to_array(args.number_rows)?;
        let context = Arc::clone(&self.context);
        let source = context.source().await.map_err(through_datafusion)?;
        let cancel = context.cancel.child_token();
        let _stop_when_dropped = cancel.clone().drop_guard();
        tokio::task::spawn_blocking(move || context.answer(&source, &column, &cancel))
            .await
            .map_err(|error| through_datafusion(crate::error::internal(error)))?
            .map(ColumnarValue::Array)
    }
}

impl NearestContext {
    fn answer(
        &self,
        source: &Source,
        column: &ArrayRef,
        cancel: &CancellationToken,
    ) -> Result<ArrayRef> {
        let vectors = Vectors::of(column)?;
        let (gallery, dim) = (&source.gallery, source.gallery.dim());
        let mut queries = Vec::new();
        let mut asked = vec![false; vectors.len];
        if !gallery.is_empty() {
            for (row, asked) in asked.iter_mut().enumerate() {
                let Some(vector) = vectors.get(row)? else { continue };
                if vector.len() != dim {
                    return Err(different_lengths(vector.len(), dim));
                }
                queries.extend_from_slice(vector);
                *asked = true;
            }
        }
        let mut found = gallery
            .nearest(&queries, self.k, |_| None, &|| cancel.is_cancelled())
            .map_err(|error| through_datafusion(ml_error(error)))?
            .into_iter();
        let mut places: Vec<Option<u32>> = Vec::new();
        let mut scores: Vec<Option<f64>> = Vec::new();
        let mut ranks: Vec<Option<i32>> = Vec::new();
        let mut lengths = Vec::with_capacity(asked.len());
        for asked in asked {
            let nearest = if asked { found.next().unwrap_or_default() } else { Vec::new() };
            lengths.push(nearest.len().max(1));
            if nearest.is_empty() {
                places.push(None);
                scores.push(None);
                ranks.push(None);
            }
            for (rank, Neighbour { index, cosine }) in (1..).zip(nearest) {
                places.push(Some(index));
                scores.push(Some(f64::from(cosine)));
                ranks.push(Some(rank));
            }
        }
        let labels = arrow::compute::take(&source.labels, &UInt32Array::from(places), None)?;
        let columns: Vec<ArrayRef> =
            vec![labels, Arc::new(Float64Array::from(scores)), Arc::new(Int32Array::from(ranks))];
        let rows = StructArray::try_new(self.fields(), columns, None)?;
        let DataType::List(item) = self.answer_type() else {
            return Err(through_datafusion(crate::error::internal("the nearest are a list")));
        };
        Ok(Arc::new(ListArray::try_new(
            item,
            OffsetBuffer::from_lengths(lengths),
            Arc::new(rows),
            None,
        )?))
    }
}
