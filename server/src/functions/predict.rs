//! `predict(image)`: the class that an image's nearest labelled training images vote for, and its share of the votes.
//!
//! The argument is an image (a path or bytes), which is embedded, or a vector that the model has made.

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, StructArray, UInt32Array};
use arrow::datatypes::{DataType, Field, Fields};
use async_trait::async_trait;
use datafusion::common::Result;
use datafusion::logical_expr::async_udf::{AsyncScalarUDF, AsyncScalarUDFImpl};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use thanosql_ml::quality::{Vote, vote};
use thanosql_protocol::{SqlError, SqlState};
use thanosql_storage::ModelEntry;

use super::embed::EmbedContext;
use super::vector_column::Vectors;
use crate::error::through_datafusion;
use crate::learning::ml_error;
use crate::learning::reference::Reference;

/// What PREDICT rests on in one statement.
#[derive(Debug)]
pub struct PredictContext {
    /// How images become vectors.
    pub embed: Arc<EmbedContext>,
    /// The model.
    pub model: ModelEntry,
    /// The type of its classes.
    pub class_type: DataType,
    /// How many neighbours vote.
    pub k: usize,
}

impl PredictContext {
    /// What the function answers: the class and its share of the votes.
    pub fn fields(&self) -> Fields {
        Fields::from(vec![
            Field::new("class", self.class_type.clone(), true),
            Field::new("score", DataType::Float64, true),
        ])
    }
}

/// `predict(image)` for one statement: a struct of `class` and `score`. NULL gives NULLs; an image that cannot be read is an error.
pub fn predict_function(context: Arc<PredictContext>) -> ScalarUDF {
    AsyncScalarUDF::new(Arc::new(PredictFunction {
        context,
        // Volatile for the reasons that embed is.
        signature: Signature::any(1, Volatility::Volatile),
    }))
    .into_scalar_udf()
}

#[derive(Debug)]
struct PredictFunction {
    context: Arc<PredictContext>,
    signature: Signature,
}

impl PartialEq for PredictFunction {
    fn eq(&self, other: &PredictFunction) -> bool {
        Arc::ptr_eq(&self.context, &other.context)
    }
}

impl Eq for PredictFunction {}

impl Hash for PredictFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.context).hash(state);
    }
}

impl ScalarUDFImpl for PredictFunction {
    fn name(&self) -> &str {
        "predict"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Struct(self.context.fields()))
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Err(through_datafusion(SqlError::new(
            SqlState::FEATURE_NOT_SUPPORTED,
            "PREDICT cannot stand in this place",
        )))
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for PredictFunction {
    fn ideal_batch_size(&self) -> Option<usize> {
        Some(self.context.embed.rows_at_once())
    }

    async fn invoke_async_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let outcome = self.call(args).await;
        outcome.map(ColumnarValue::Array).map_err(through_datafusion)
    }
}

impl PredictFunction {
    async fn call(&self, args: ScalarFunctionArgs) -> Result<ArrayRef, SqlError> {
        let context = &self.context;
        let Some(argument) = args.args.first() else {
            return Err(crate::error::internal("predict takes an image"));
        };
        let column = argument
            .to_array(args.number_rows)
            .map_err(|error| crate::error::datafusion_error(error, None))?;
        let (vectors, valid) = vectors_of(&context.embed, &context.model, &column).await?;
        let reference = context.embed.reference(&context.model).await?;
        let votes =
            votes(&context.embed, Arc::clone(&reference), vectors, valid, context.k, Vec::new())
                .await?;
        let places: UInt32Array = votes.iter().map(|vote| vote.map(|vote| vote.label)).collect();
        let scores: Float64Array = votes.iter().map(|vote| vote.map(|vote| vote.share)).collect();
        let classes = arrow::compute::take(reference.classes().as_ref(), &places, None)
            .map_err(crate::error::arrow_error)?;
        let columns: Vec<ArrayRef> = vec![classes, Arc::new(scores)];
        StructArray::try_new(context.fields(), columns, None)
            .map(|array| Arc::new(array) as ArrayRef)
            .map_err(crate::error::arrow_error)
    }
}

/// The vectors of a column of images, or of vectors, `[count, dim]`, and which rows have one.
pub(crate) async fn vectors_of(
    embed: &Arc<EmbedContext>,
    model: &ModelEntry,
    column: &ArrayRef,
) -> Result<(Vec<f32>, Vec<bool>), SqlError> {
    let DataType::FixedSizeList(_, dim) = column.data_type() else {
        return embed.vectors(model, column).await;
    };
    let dim = usize::try_from(*dim).unwrap_or(0);
    let planned = |error| crate::error::datafusion_error(error, None);
    let vectors = Vectors::of(column).map_err(planned)?;
    let mut numbers = Vec::with_capacity(vectors.len * dim);
    let mut valid = Vec::with_capacity(vectors.len);
    for row in 0..vectors.len {
        let vector = vectors.get(row).map_err(planned)?;
        valid.push(vector.is_some());
        match vector {
            Some(vector) => numbers.extend_from_slice(vector),
            None => numbers.resize(numbers.len() + dim, 0.0),
        }
    }
    Ok((numbers, valid))
}

/// What each row's nearest labelled vectors vote for; none for a row without a vector. `own` names a row's own vector among the labelled ones, which then does not
/// vote; it may be empty. The work is done on a blocking thread and ends when the statement does.
pub(crate) async fn votes(
    embed: &Arc<EmbedContext>,
    reference: Arc<Reference>,
    vectors: Vec<f32>,
    valid: Vec<bool>,
    k: usize,
    own: Vec<Option<usize>>,
) -> Result<Vec<Option<Vote>>, SqlError> {
    // A statement that is dropped stops the work too.
    let cancel = embed.cancel().child_token();
    let _stop_when_dropped = cancel.clone().drop_guard();
    tokio::task::spawn_blocking(move || {
        let gallery = reference.gallery();
        let dim = gallery.dim();
        let rows: Vec<usize> = (0..valid.len()).filter(|row| valid[*row]).collect();
        let mut queries = Vec::with_capacity(rows.len() * dim);
        for row in &rows {
            queries.extend_from_slice(&vectors[row * dim..(row + 1) * dim]);
        }
        let skip = |place: usize| own.get(rows[place]).copied().flatten();
        let nearest =
            gallery.nearest(&queries, k, skip, &|| cancel.is_cancelled()).map_err(ml_error)?;
        let mut votes = vec![None; valid.len()];
        for (row, nearest) in rows.iter().zip(&nearest) {
            votes[*row] = vote(nearest, reference.labels());
        }
        Ok(votes)
    })
    .await
    .map_err(crate::error::internal)?
}

/// A column's text, row by row.
pub(crate) fn texts(column: &ArrayRef) -> Result<Vec<Option<String>>> {
    let column = arrow::compute::cast(column, &DataType::Utf8)?;
    Ok(column.as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect())
}
