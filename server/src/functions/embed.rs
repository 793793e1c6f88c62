//! `embed(model, image)`: the vector of an image, as an asynchronous function.
//!
//! The function is made for one statement. Its type depends on the model, so the model's name must be a literal. It is
//! declared volatile: not because its result changes, but because the optimizer may then neither compute it while planning
//! nor copy its call into a filter that it pushes below a projection, where each image would be embedded twice.
//!
//! DataFusion (55.2) wants a whole array from an asynchronous function, even if all arguments are scalars; such calls
//! are therefore computed once and repeated, and [`resolve_constants`] takes them out of the plan before it runs.

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef};
use async_trait::async_trait;
use datafusion::common::config::ConfigOptions;
use datafusion::common::metadata::FieldMetadata;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::async_udf::{AsyncScalarUDF, AsyncScalarUDFImpl};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, LogicalPlan, ReturnFieldArgs, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use sha2::{Digest, Sha256};
use thanosql_ml::images::ImageSource;
use thanosql_protocol::{SqlError, SqlState};
use thanosql_storage::{ModelEntry, Snapshot};
use tokio_util::sync::CancellationToken;

use super::vector_column::vectors_array;
use crate::error::through_datafusion;
use crate::files::FileAccess;
use crate::learning::reference::Reference;
use crate::learning::{Embedded, Learning, Mark, ModelMetadata, OnError, vector_type};
use crate::plan::rewrite::rewrite_expressions;

/// Vectors by model (object id, version) and image; none for an image that has no vector.
type Constants = HashMap<(u32, u64, ImageKey), Option<Vec<f32>>>;

/// What the function rests on in one statement.
#[derive(Debug)]
pub struct EmbedContext {
    learning: Arc<Learning>,
    snapshot: Snapshot,
    files: FileAccess,
    on_error: OnError,
    /// Images that go through the encoder at once; none for the configured number.
    batch_size: Option<usize>,
    cancel: CancellationToken,
    /// Vectors of scalar arguments by model (object id, version) and image.
    constants: Mutex<Constants>,
}

impl EmbedContext {
    /// For one statement.
    pub fn new(
        learning: Arc<Learning>,
        snapshot: Snapshot,
        files: FileAccess,
        on_error: OnError,
        batch_size: Option<usize>,
        cancel: CancellationToken,
    ) -> EmbedContext {
        EmbedContext {
            learning,
            snapshot,
            files,
            on_error,
            batch_size,
            cancel,
            constants: Mutex::default(),
        }
    }

    /// Rows that are embedded at once.
    pub(crate) fn rows_at_once(&self) -> usize {
        self.batch_size.unwrap_or(self.learning.options().embed_batch).max(1)
    }

    fn model(&self, name: &str) -> Result<ModelEntry, SqlError> {
        self.snapshot.model(name).ok_or_else(|| {
            SqlError::new(SqlState::UNDEFINED_OBJECT, format!("model \"{name}\" does not exist"))
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum ImageKey {
    Path(String),
    /// SHA-256.
    Bytes([u8; 32]),
}

/// `embed` for one statement: the planner binds calls of `embed` to it.
pub fn embed_function(context: Arc<EmbedContext>) -> ScalarUDF {
    AsyncScalarUDF::new(Arc::new(EmbedFunction {
        context,
        // Not user defined: an asynchronous function cannot coerce its arguments.
        signature: Signature::any(2, Volatility::Volatile),
    }))
    .into_scalar_udf()
}

#[derive(Debug)]
struct EmbedFunction {
    context: Arc<EmbedContext>,
    signature: Signature,
}

impl PartialEq for EmbedFunction {
    fn eq(&self, other: &EmbedFunction) -> bool {
        Arc::ptr_eq(&self.context, &other.context)
    }
}

impl Eq for EmbedFunction {}

impl Hash for EmbedFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.context).hash(state);
    }
}

impl ScalarUDFImpl for EmbedFunction {
    fn name(&self) -> &str {
        "embed"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Err(through_datafusion(model_not_literal()))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let name = args
            .scalar_arguments
            .first()
            .copied()
            .flatten()
            .and_then(|value| value.try_as_str().flatten())
            .ok_or_else(|| through_datafusion(model_not_literal()))?;
        if let Some(image) = args.arg_fields.get(1) {
            check_image_type(image.data_type()).map_err(through_datafusion)?;
        }
        let entry = self.context.model(name).map_err(through_datafusion)?;
        let metadata = ModelMetadata::read(&entry).map_err(through_datafusion)?;
        let field = Field::new(self.name(), vector_type(metadata.embedding_dim), true);
        Ok(Arc::new(field.with_metadata(Mark::of_model(&entry).metadata())))
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        // DataFusion calls the asynchronous form wherever it supports one: in SELECT lists, filters and aggregates.
        Err(through_datafusion(
            SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, "embed cannot be called in this place")
                .with_hint("Call it in the SELECT list of a subquery and use its column here."),
        ))
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for EmbedFunction {
    fn ideal_batch_size(&self) -> Option<usize> {
        Some(self.context.rows_at_once())
    }

    async fn invoke_async_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let outcome = self.call(args).await;
        outcome.map(ColumnarValue::Array).map_err(through_datafusion)
    }
}

impl EmbedFunction {
    async fn call(&self, args: ScalarFunctionArgs) -> Result<ArrayRef, SqlError> {
        let [model, image] = args.args.as_slice() else {
            return Err(SqlError::new(
                SqlState::UNDEFINED_FUNCTION,
                "function embed takes a model's name and an image",
            ));
        };
        let name = match model {
            ColumnarValue::Scalar(value) => value.try_as_str().flatten(),
            ColumnarValue::Array(_) => None,
        }
        .ok_or_else(model_not_literal)?;
        let entry = self.context.model(name)?;
        let dim = match args.return_field.data_type() {
            DataType::FixedSizeList(_, dim) => *dim,
            other => return Err(crate::error::internal(format!("embed was planned as {other}"))),
        };
        match image {
            ColumnarValue::Scalar(value) => {
                let vector = self.constant(&entry, value).await?;
                let count = args.number_rows;
                match vector {
                    Some(vector) => vectors_array(vector.repeat(count), vec![true; count], dim),
                    None => {
                        let numbers = count * usize::try_from(dim).unwrap_or(0);
                        vectors_array(vec![0.0; numbers], vec![false; count], dim)
                    }
                }
            }
            ColumnarValue::Array(array) => {
                let (vectors, valid) = self.context.vectors(&entry, array).await?;
                vectors_array(vectors, valid, dim)
            }
        }
    }

    async fn constant(
        &self,
        entry: &ModelEntry,
        value: &ScalarValue,
    ) -> Result<Option<Vec<f32>>, SqlError> {
        let array =
            value.to_array().map_err(|error| crate::error::datafusion_error(error, None))?;
        let Some(image) = images_of(&array)?.pop().flatten() else {
            return Ok(None);
        };
        let key = match &image {
            Image::Path(path) => ImageKey::Path(path.clone()),
            Image::Bytes(bytes) => ImageKey::Bytes(Sha256::digest(bytes).into()),
        };
        let key = (entry.oid(), entry.version(), key);
        if let Some(known) = self.constants().get(&key) {
            return Ok(known.clone());
        }
        let (vectors, valid) = self.context.vectors(entry, &array).await?;
        let vector = valid.first().is_some_and(|valid| *valid).then_some(vectors);
        self.constants().insert(key, vector.clone());
        Ok(vector)
    }

    fn constants(&self) -> std::sync::MutexGuard<'_, Constants> {
        self.context.constants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EmbedContext {
    /// The vectors of a column of images, `[count, dim]`, and which rows have one.
    pub(crate) async fn vectors(
        self: &Arc<Self>,
        entry: &ModelEntry,
        array: &ArrayRef,
    ) -> Result<(Vec<f32>, Vec<bool>), SqlError> {
        let (sources, valid) = self.sources(array).await?;
        let embedded = self
            .learning
            .embed(entry, sources, self.on_error, self.batch_size, &self.cancel)
            .await?;
        Ok(spread(&embedded, valid))
    }

    /// How far apart two views of each image in a column lie, and which rows have an image.
    pub(crate) async fn view_distances(
        self: &Arc<Self>,
        entry: &ModelEntry,
        array: &ArrayRef,
    ) -> Result<(Vec<f32>, Vec<bool>), SqlError> {
        let (sources, valid) = self.sources(array).await?;
        let distances = self.learning.view_distances(entry, sources, &self.cancel).await?;
        Ok(spread(&distances, valid))
    }

    /// The labelled vectors of a model.
    pub(crate) async fn reference(
        self: &Arc<Self>,
        entry: &ModelEntry,
    ) -> Result<Arc<Reference>, SqlError> {
        let (context, entry) = (Arc::clone(self), entry.clone());
        tokio::task::spawn_blocking(move || context.learning.reference(&entry))
            .await
            .map_err(crate::error::internal)?
    }

    /// Pulled when the statement shall stop.
    pub(crate) fn cancel(&self) -> &CancellationToken {
        &self.cancel
    }

    /// The images of a column that are there, and which rows those are.
    async fn sources(
        self: &Arc<Self>,
        array: &ArrayRef,
    ) -> Result<(Vec<ImageSource>, Vec<bool>), SqlError> {
        let context = Arc::clone(self);
        let images = images_of(array)?;
        let sources = tokio::task::spawn_blocking(move || context.allowed_sources(images))
            .await
            .map_err(crate::error::internal)??;
        let valid = sources.iter().map(Option::is_some).collect();
        Ok((sources.into_iter().flatten().collect(), valid))
    }

    /// The images as they may be opened. A missing file is None where unreadable images may be skipped; a forbidden one is
    /// always an error.
    fn allowed_sources(
        &self,
        images: Vec<Option<Image>>,
    ) -> Result<Vec<Option<ImageSource>>, SqlError> {
        images
            .into_iter()
            .map(|image| match image {
                None => Ok(None),
                Some(Image::Bytes(bytes)) => Ok(Some(ImageSource::Bytes(bytes))),
                Some(Image::Path(path)) => match self.files.resolve(&path) {
                    Ok(path) => Ok(Some(ImageSource::Path(path))),
                    Err(error)
                        if self.on_error == OnError::Skip
                            && error.code == SqlState::UNDEFINED_FILE =>
                    {
                        Ok(None)
                    }
                    Err(error) => Err(error),
                },
            })
            .collect()
    }
}

/// Spreads the numbers of the images that are there over all rows.
fn spread(embedded: &Embedded, mut valid: Vec<bool>) -> (Vec<f32>, Vec<bool>) {
    let dim = embedded.dim;
    let mut numbers = Vec::with_capacity(valid.len() * dim);
    let mut rows = embedded.vectors.chunks_exact(dim.max(1)).zip(&embedded.ok);
    for valid in &mut valid {
        let row = if *valid { rows.next() } else { None };
        match row {
            Some((vector, true)) => numbers.extend_from_slice(vector),
            Some((_, false)) | None => {
                numbers.resize(numbers.len() + dim, 0.0);
                *valid = false;
            }
        }
    }
    (numbers, valid)
}

/// An image as a query gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Image {
    Path(String),
    Bytes(Vec<u8>),
}

/// The images in a column of paths or bytes; NULL gives None.
pub(crate) fn images_of(array: &ArrayRef) -> Result<Vec<Option<Image>>, SqlError> {
    fn texts<'a>(values: impl Iterator<Item = Option<&'a str>>) -> Vec<Option<Image>> {
        values.map(|value| value.map(|path| Image::Path(path.to_owned()))).collect()
    }
    fn bytes<'a>(values: impl Iterator<Item = Option<&'a [u8]>>) -> Vec<Option<Image>> {
        values.map(|value| value.map(|bytes| Image::Bytes(bytes.to_owned()))).collect()
    }
    Ok(match array.data_type() {
        DataType::Utf8 => texts(array.as_string::<i32>().iter()),
        DataType::LargeUtf8 => texts(array.as_string::<i64>().iter()),
        DataType::Utf8View => texts(array.as_string_view().iter()),
        DataType::Binary => bytes(array.as_binary::<i32>().iter()),
        DataType::LargeBinary => bytes(array.as_binary::<i64>().iter()),
        DataType::BinaryView => bytes(array.as_binary_view().iter()),
        DataType::Null => vec![None; array.len()],
        other => return Err(wrong_image_type(other)),
    })
}

/// Errors: 42804 unless a column of this type can hold images.
pub(crate) fn check_image_type(data_type: &DataType) -> Result<(), SqlError> {
    match data_type {
        DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Utf8View
        | DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::Null => Ok(()),
        other => Err(wrong_image_type(other)),
    }
}

fn wrong_image_type(data_type: &DataType) -> SqlError {
    SqlError::new(
        SqlState::DATATYPE_MISMATCH,
        format!("an image must be text (a path) or bytea, not {data_type}"),
    )
}

fn model_not_literal() -> SqlError {
    SqlError::new(
        SqlState::INVALID_PARAMETER_VALUE,
        "the first argument of embed must be the name of a model, written out",
    )
    .with_hint("Write embed('my_model', image).")
}

/// Computes the asynchronous functions of a plan whose arguments are all literals, each different call once, and puts
/// their values in its place. To be called on the optimized logical plan of a statement that will run.
///
/// `cosine_similarity(vector, embed('m', '/query.jpg'))` then compares a column with one vector, instead of with a
/// column of equal ones.
pub async fn resolve_constants(
    plan: LogicalPlan,
    config: &Arc<ConfigOptions>,
) -> Result<LogicalPlan> {
    let mut calls: Vec<ScalarFunction> = Vec::new();
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expression| {
            expression.apply(|part| {
                if let Some(call) = constant_call(part)
                    && !calls.contains(call)
                {
                    calls.push(call.clone());
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    if calls.is_empty() {
        return Ok(plan);
    }
    let mut values = Vec::with_capacity(calls.len());
    for call in &calls {
        values.push(compute(call, config).await?);
    }
    let value_of = |part: &Expr| {
        let call = constant_call(part)?;
        let place = calls.iter().position(|known| known == call)?;
        values.get(place).cloned()
    };
    rewrite_expressions(plan, |expression, _| {
        expression.transform_up(|part| {
            Ok(match value_of(&part) {
                Some(value) => Transformed::yes(value),
                None => Transformed::no(part),
            })
        })
    })
}

fn constant_call(expression: &Expr) -> Option<&ScalarFunction> {
    match expression {
        Expr::ScalarFunction(call)
            if call.func.as_async().is_some()
                && call.args.iter().all(|argument| matches!(argument, Expr::Literal(_, _))) =>
        {
            Some(call)
        }
        _ => None,
    }
}

async fn compute(call: &ScalarFunction, config: &Arc<ConfigOptions>) -> Result<Expr> {
    let function = call
        .func
        .as_async()
        .ok_or_else(|| DataFusionError::Internal("not an asynchronous function".to_owned()))?;
    let expression = Expr::ScalarFunction(call.clone());
    let schema = DFSchema::empty();
    let (_, return_field) = expression.to_field(&schema)?;
    let mut args = Vec::with_capacity(call.args.len());
    let mut arg_fields = Vec::with_capacity(call.args.len());
    for argument in &call.args {
        if let Expr::Literal(value, _) = argument {
            args.push(ColumnarValue::Scalar(value.clone()));
        }
        arg_fields.push(argument.to_field(&schema)?.1);
    }
    let value = function
        .invoke_async_with_args(ScalarFunctionArgs {
            args,
            arg_fields,
            number_rows: 1,
            return_field: Arc::clone(&return_field),
            config_options: Arc::clone(config),
        })
        .await?;
    let value = match value {
        ColumnarValue::Scalar(value) => value,
        ColumnarValue::Array(array) => ScalarValue::try_from_array(&array, 0)?,
    };
    let metadata = return_field.metadata();
    let metadata = (!metadata.is_empty()).then(|| FieldMetadata::from(metadata.clone()));
    Ok(Expr::Literal(value, metadata))
}
