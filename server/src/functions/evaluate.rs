//! What EVALUATE is made of: a look at each image, an aggregate over all looks, and the measures of what the aggregate keeps.
//!
//! ```text
//!  rows -> examine(image) -> vector, predicted class, distance of two views
//!       -> evaluation_sample(vector, label, predicted, distance), one row
//!       -> evaluation_scores(sample) -> metric, score
//! ```
//!
//! What can be counted is counted over all rows: which class was predicted for which, and the distances of views. What needs the vectors themselves (retrieval,
//! uniformity, rank, dead dimensions) is measured on a uniform sample of [`SAMPLE`] of them, so that memory is bounded however large the query is; the
//! aggregate counts against the memory of queries like any other. Whether a vector is in the sample follows from it and its place, so the same query gives
//! the same scores.

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

use std::collections::{BTreeMap, BinaryHeap};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float32Array, Float64Array, ListArray, StringArray, StructArray,
    UInt64Array,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Float32Type, Float64Type, UInt64Type};
use async_trait::async_trait;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::async_udf::{AsyncScalarUDF, AsyncScalarUDFImpl};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, ColumnarValue, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility,
};
use thanosql_ml::MlError;
use thanosql_ml::quality::{
    Classification, Gallery, Neighbour, dead_dimensions, effective_rank, recall_at, uniformity,
    vote,
};
use thanosql_protocol::SqlError;
use thanosql_storage::ModelEntry;
use tokio_util::sync::CancellationToken;

use super::embed::{EmbedContext, Image, images_of};
use super::predict::{texts, vectors_of, votes};
use super::vector_column::{Vectors, vectors_array};
use crate::error::through_datafusion;
use crate::learning::{ml_error, vector_type};

/// Vectors that are kept at most; RankMe's authors found their measure steady from as many on.
pub const SAMPLE: usize = 25_600;

/// How many neighbours vote, as in the measurements of a training.
pub const NEIGHBOURS: usize = 5;

/// Where recall is measured.
const RECALL_AT: [usize; 3] = [1, 5, 10];

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Measures {
    /// Against labels.
    Labelled {
        /// Whether the model's labelled vectors predict; otherwise the sample's vectors vote for one another.
        by_model: bool,
    },
    /// Without labels.
    Unlabelled {
        /// Whether there are images, so that views of them can be drawn.
        views: bool,
    },
}

impl Measures {
    fn predicts(self) -> bool {
        matches!(self, Measures::Labelled { by_model: true })
    }

    fn draws_views(self) -> bool {
        matches!(self, Measures::Unlabelled { views: true })
    }
}

/// What EVALUATE rests on in one statement.
#[derive(Debug)]
pub struct EvaluateContext {
    /// How images become vectors.
    pub embed: Arc<EmbedContext>,
    /// The model.
    pub model: ModelEntry,
    /// The length of its vectors.
    pub dim: usize,
    /// What is measured.
    pub measures: Measures,
}

impl EvaluateContext {
    /// What `examine` answers.
    pub fn looks(&self) -> Fields {
        Fields::from(vec![
            Field::new("vector", vector_type(self.dim), true),
            Field::new("predicted", DataType::Utf8, true),
            Field::new("distance", DataType::Float64, true),
        ])
    }
}

/// A row of the answer.
pub fn score_fields() -> Fields {
    Fields::from(vec![
        Field::new("metric", DataType::Utf8, true),
        Field::new("score", DataType::Float64, true),
    ])
}

/// `examine(source, image)` for one statement. `source` is what the vector comes from: the image, or a vector that the model has made. `image` is the image, by
/// which a training image is kept from voting for itself, and of which views are drawn; or NULL.
pub fn examine_function(context: Arc<EvaluateContext>) -> ScalarUDF {
    AsyncScalarUDF::new(Arc::new(Examine {
        context,
        // Volatile for the reasons that embed is.
        signature: Signature::any(2, Volatility::Volatile),
    }))
    .into_scalar_udf()
}

#[derive(Debug)]
struct Examine {
    context: Arc<EvaluateContext>,
    signature: Signature,
}

impl PartialEq for Examine {
    fn eq(&self, other: &Examine) -> bool {
        Arc::ptr_eq(&self.context, &other.context)
    }
}

impl Eq for Examine {}

impl Hash for Examine {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.context).hash(state);
    }
}

impl ScalarUDFImpl for Examine {
    fn name(&self) -> &str {
        "examine"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Struct(self.context.looks()))
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Err(through_datafusion(crate::error::internal("examine was called in its other form")))
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for Examine {
    fn ideal_batch_size(&self) -> Option<usize> {
        Some(self.context.embed.rows_at_once())
    }

    async fn invoke_async_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let mut columns = Vec::with_capacity(2);
        for argument in &args.args {
            columns.push(argument.to_array(args.number_rows)?);
        }
        let [source, image] = columns.as_slice() else {
            return Err(through_datafusion(crate::error::internal("examine takes two arguments")));
        };
        self.context
            .examine(source, image)
            .await
            .map(ColumnarValue::Array)
            .map_err(through_datafusion)
    }
}

impl EvaluateContext {
    async fn examine(&self, source: &ArrayRef, image: &ArrayRef) -> Result<ArrayRef, SqlError> {
        let (vectors, valid) = vectors_of(&self.embed, &self.model, source).await?;
        let rows = valid.len();
        let predicted: StringArray = if self.measures.predicts() {
            let reference = self.embed.reference(&self.model).await?;
            let own = images_of(image)?
                .into_iter()
                .map(|image| match image {
                    Some(Image::Path(path)) => reference.find(&path),
                    Some(Image::Bytes(_)) | None => None,
                })
                .collect();
            let (vectors, valid) = (vectors.clone(), valid.clone());
            let votes =
                votes(&self.embed, Arc::clone(&reference), vectors, valid, NEIGHBOURS, own).await?;
            let name = |label: u32| reference.class_names().get(label as usize).cloned();
            votes.into_iter().map(|vote| vote.and_then(|vote| name(vote.label))).collect()
        } else {
            std::iter::repeat_n(None::<String>, rows).collect()
        };
        let distances: Float64Array = if self.measures.draws_views() {
            let (distances, valid) = self.embed.view_distances(&self.model, image).await?;
            distances
                .into_iter()
                .zip(valid)
                .map(|(distance, valid)| valid.then(|| f64::from(distance)))
                .collect()
        } else {
            std::iter::repeat_n(None::<f64>, rows).collect()
        };
        let dim = i32::try_from(self.dim).unwrap_or(i32::MAX);
        let columns: Vec<ArrayRef> =
            vec![vectors_array(vectors, valid, dim)?, Arc::new(predicted), Arc::new(distances)];
        StructArray::try_new(self.looks(), columns, None)
            .map(|array| Arc::new(array) as ArrayRef)
            .map_err(crate::error::arrow_error)
    }
}

/// `evaluation_sample(vector, label, predicted, distance)`: what all looks come to.
pub fn sample_function(labelled: bool) -> AggregateUDF {
    AggregateUDF::new_from_impl(SampleFunction {
        labelled,
        signature: Signature::any(4, Volatility::Immutable),
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct SampleFunction {
    /// Whether only rows with a label count.
    labelled: bool,
    signature: Signature,
}

/// The parts of what is kept, each one list a state.
const STATE: [(&str, DataType); 8] = [
    ("keys", DataType::UInt64),
    ("vectors", DataType::Float32),
    ("labels", DataType::Utf8),
    ("truths", DataType::Utf8),
    ("predictions", DataType::Utf8),
    ("counts", DataType::UInt64),
    ("distances", DataType::UInt64),
    ("distance_sum", DataType::Float64),
];

fn state_fields() -> Fields {
    STATE
        .into_iter()
        .map(|(name, data_type)| {
            Field::new_list(name, Field::new_list_field(data_type, true), true)
        })
        .collect()
}

impl AggregateUDFImpl for SampleFunction {
    fn name(&self) -> &str {
        "evaluation_sample"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Struct(state_fields()))
    }

    fn state_fields(&self, _args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        Ok(state_fields().iter().cloned().collect())
    }

    fn accumulator(&self, _args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Looks::new(self.labelled, SAMPLE)))
    }
}

/// What is kept of all looks.
#[derive(Debug)]
struct Looks {
    labelled: bool,
    capacity: usize,
    /// Rows seen, so that equal vectors get different keys.
    seen: u64,
    /// The largest key on top, with its place in `vectors` and `labels`.
    sample: BinaryHeap<(u64, usize)>,
    dim: usize,
    vectors: Vec<f32>,
    labels: Vec<Option<String>>,
    /// How often a class was predicted for another.
    counts: BTreeMap<(String, String), u64>,
    distance_count: u64,
    distance_sum: f64,
}

impl Looks {
    fn new(labelled: bool, capacity: usize) -> Looks {
        Looks {
            labelled,
            capacity,
            seen: 0,
            sample: BinaryHeap::new(),
            dim: 0,
            vectors: Vec::new(),
            labels: Vec::new(),
            counts: BTreeMap::new(),
            distance_count: 0,
            distance_sum: 0.0,
        }
    }

    /// Keeps the vectors with the smallest keys, which is a uniform sample, for the keys are as good as random.
    fn offer(&mut self, key: u64, vector: &[f32], label: Option<&str>) {
        self.dim = vector.len();
        let place = if self.sample.len() < self.capacity {
            self.labels.push(None);
            self.vectors.extend_from_slice(vector);
            self.labels.len() - 1
        } else {
            match self.sample.peek() {
                Some((largest, _)) if key < *largest => {}
                Some(_) | None => return,
            }
            let Some((_, place)) = self.sample.pop() else { return };
            self.vectors[place * self.dim..(place + 1) * self.dim].copy_from_slice(vector);
            place
        };
        self.labels[place] = label.map(str::to_owned);
        self.sample.push((key, place));
    }

    fn states(&self) -> Result<Vec<ArrayRef>> {
        let mut places: Vec<(u64, usize)> = self.sample.iter().copied().collect();
        places.sort_unstable();
        let mut vectors = Vec::with_capacity(self.vectors.len());
        for (_, place) in &places {
            vectors.extend_from_slice(&self.vectors[place * self.dim..(place + 1) * self.dim]);
        }
        let keys = UInt64Array::from_iter_values(places.iter().map(|(key, _)| *key));
        let labels: StringArray =
            places.iter().map(|(_, place)| self.labels[*place].as_deref()).collect();
        let truths =
            StringArray::from_iter_values(self.counts.keys().map(|(truth, _)| truth.as_str()));
        let predictions = StringArray::from_iter_values(
            self.counts.keys().map(|(_, prediction)| prediction.as_str()),
        );
        let counts = UInt64Array::from_iter_values(self.counts.values().copied());
        Ok(vec![
            Arc::new(keys),
            Arc::new(Float32Array::from(vectors)),
            Arc::new(labels),
            Arc::new(truths),
            Arc::new(predictions),
            Arc::new(counts),
            Arc::new(UInt64Array::from(vec![self.distance_count])),
            Arc::new(Float64Array::from(vec![self.distance_sum])),
        ])
    }
}

/// One row that holds a list.
fn one_list(values: ArrayRef) -> Result<ArrayRef> {
    let item = Arc::new(Field::new_list_field(values.data_type().clone(), true));
    let offsets = OffsetBuffer::from_lengths([values.len()]);
    Ok(Arc::new(ListArray::try_new(item, offsets, values, None)?))
}

/// A key as good as random that follows from a vector and its place. FNV-1a, with SplitMix64's mixer behind it.
fn key_of(vector: &[f32], place: u64) -> u64 {
    let words = vector.iter().map(|value| u64::from(value.to_bits())).chain([place]);
    let hash = words
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, word| (hash ^ word).wrapping_mul(0x0100_0000_01b3));
    let mixed = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

impl Accumulator for Looks {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let [vectors, labels, predicted, distances] = values else {
            return Err(through_datafusion(crate::error::internal("a look has four parts")));
        };
        let vectors = Vectors::of(vectors)?;
        let (labels, predicted) = (texts(labels)?, texts(predicted)?);
        let distances = arrow::compute::cast(distances, &DataType::Float64)?;
        let distances = distances.as_primitive::<Float64Type>();
        for row in 0..vectors.len {
            self.seen += 1;
            let Some(vector) = vectors.get(row)? else { continue };
            let label = labels.get(row).and_then(Option::as_deref);
            if self.labelled && label.is_none() {
                continue;
            }
            self.offer(key_of(vector, self.seen), vector, label);
            if let (Some(label), Some(predicted)) =
                (label, predicted.get(row).and_then(Option::as_deref))
            {
                *self.counts.entry((label.to_owned(), predicted.to_owned())).or_default() += 1;
            }
            if distances.is_valid(row) {
                self.distance_sum += distances.value(row);
                self.distance_count += 1;
            }
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let columns = self.states()?.into_iter().map(one_list).collect::<Result<Vec<_>>>()?;
        Ok(ScalarValue::Struct(Arc::new(StructArray::try_new(state_fields(), columns, None)?)))
    }

    fn size(&self) -> usize {
        let texts: usize = self.labels.iter().flatten().map(String::len).sum::<usize>()
            + self.counts.keys().map(|(a, b)| a.len() + b.len() + 64).sum::<usize>();
        size_of::<Self>()
            + self.vectors.capacity() * size_of::<f32>()
            + self.labels.capacity() * size_of::<Option<String>>()
            + self.sample.len() * size_of::<(u64, usize)>()
            + texts
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.states()?
            .into_iter()
            .map(|values| ScalarValue::try_from_array(&one_list(values)?, 0))
            .collect()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let rows = states.first().map_or(0, |state| state.len());
        for row in 0..rows {
            let parts: Vec<ArrayRef> =
                states.iter().map(|state| state.as_list::<i32>().value(row)).collect();
            let kept = Kept::of(&parts)?;
            let dim = kept.dim();
            for (place, key) in kept.keys.iter().enumerate() {
                let vector = &kept.vectors[place * dim..(place + 1) * dim];
                self.offer(*key, vector, kept.labels[place].as_deref());
            }
            for (truth, prediction, count) in kept.counts {
                *self.counts.entry((truth, prediction)).or_default() += count;
            }
            self.distance_count += kept.distance_count;
            self.distance_sum += kept.distance_sum;
        }
        Ok(())
    }
}

/// What [`Looks`] keeps, read back from its state.
struct Kept {
    keys: Vec<u64>,
    vectors: Vec<f32>,
    labels: Vec<Option<String>>,
    counts: Vec<(String, String, u64)>,
    distance_count: u64,
    distance_sum: f64,
}

impl Kept {
    fn of(parts: &[ArrayRef]) -> Result<Kept> {
        let [keys, vectors, labels, truths, predictions, counts, distances, sum] = parts else {
            return Err(through_datafusion(crate::error::internal("a sample has eight parts")));
        };
        let numbers = |array: &ArrayRef| array.as_primitive::<UInt64Type>().values().to_vec();
        let truths = texts(truths)?.into_iter().flatten();
        let predictions = texts(predictions)?.into_iter().flatten();
        Ok(Kept {
            keys: numbers(keys),
            vectors: vectors.as_primitive::<Float32Type>().values().to_vec(),
            labels: texts(labels)?,
            counts: truths
                .zip(predictions)
                .zip(numbers(counts))
                .map(|((truth, prediction), count)| (truth, prediction, count))
                .collect(),
            distance_count: numbers(distances).first().copied().unwrap_or(0),
            distance_sum: sum
                .as_primitive::<Float64Type>()
                .values()
                .first()
                .copied()
                .unwrap_or(0.0),
        })
    }

    fn dim(&self) -> usize {
        if self.keys.is_empty() { 0 } else { self.vectors.len() / self.keys.len() }
    }

    /// The labels as numbers.
    fn numbered(&self) -> Vec<u32> {
        let mut numbers: BTreeMap<&str, u32> = BTreeMap::new();
        self.labels
            .iter()
            .flatten()
            .map(|label| {
                let next = numbers.len() as u32;
                *numbers.entry(label).or_insert(next)
            })
            .collect()
    }

    fn scores(
        &self,
        measures: Measures,
        stop: &dyn Fn() -> bool,
    ) -> Result<Vec<(String, Option<f64>)>, MlError> {
        let dim = self.dim();
        let mut scores: Vec<(String, Option<f64>)> = Vec::new();
        let mut add = |name: &str, score| scores.push((name.to_owned(), score));
        match measures {
            Measures::Labelled { by_model } => {
                let numbers = self.numbered();
                let most = RECALL_AT.into_iter().max().unwrap_or(0).max(NEIGHBOURS);
                let gallery = Gallery::new(&self.vectors, dim);
                let nearest = gallery.nearest(&self.vectors, most, Some, stop)?;
                let classification = if by_model {
                    Classification::of(self.counts.iter().cloned())
                } else {
                    Classification::of(among(&nearest, &numbers))
                };
                add("accuracy", classification.map(|scores| scores.accuracy));
                add("precision_macro", classification.map(|scores| scores.precision));
                add("recall_macro", classification.map(|scores| scores.recall));
                add("f1_macro", classification.map(|scores| scores.f1));
                let recall = recall_at(&nearest, &numbers, &RECALL_AT);
                for (place, k) in RECALL_AT.iter().enumerate() {
                    add(&format!("recall@{k}"), recall.as_ref().map(|recall| recall[place]));
                }
            }
            Measures::Unlabelled { .. } => {
                let mean = self.distance_sum / self.distance_count as f64;
                add("alignment", (self.distance_count > 0).then_some(mean));
                add("uniformity", uniformity(&self.vectors, dim, stop)?);
                add("effective_rank", effective_rank(&self.vectors, dim, stop)?);
                add("dead_dimensions", dead_dimensions(&self.vectors, dim));
            }
        }
        Ok(scores)
    }
}

/// What each vector's nearest others vote for: truth, prediction, once each.
fn among(nearest: &[Vec<Neighbour>], labels: &[u32]) -> Vec<(u32, u32, u64)> {
    let voters = nearest.iter().map(|nearest| &nearest[..nearest.len().min(NEIGHBOURS)]);
    voters
        .zip(labels)
        .filter_map(|(voters, label)| Some((*label, vote(voters, labels)?.label, 1)))
        .collect()
}

/// `evaluation_scores(sample)` for one statement: a list of `metric` and `score`.
pub fn scores_function(measures: Measures, cancel: CancellationToken) -> ScalarUDF {
    AsyncScalarUDF::new(Arc::new(Scores {
        measures,
        cancel: Cancel(cancel),
        signature: Signature::any(1, Volatility::Volatile),
    }))
    .into_scalar_udf()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Scores {
    measures: Measures,
    cancel: Cancel,
    signature: Signature,
}

/// All tokens are alike to a plan.
#[derive(Debug)]
struct Cancel(CancellationToken);

impl PartialEq for Cancel {
    fn eq(&self, _other: &Cancel) -> bool {
        true
    }
}

impl Eq for Cancel {}

impl Hash for Cancel {
    fn hash<H: Hasher>(&self, _state: &mut H) {}
}

fn scores_type() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::Struct(score_fields()), true)))
}

impl ScalarUDFImpl for Scores {
    fn name(&self) -> &str {
        "evaluation_scores"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(scores_type())
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Err(through_datafusion(crate::error::internal("scores were called in their other form")))
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for Scores {
    async fn invoke_async_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(argument) = args.args.first() else {
            return Err(through_datafusion(crate::error::internal("scores need a sample")));
        };
        let samples = argument.to_array(args.number_rows)?;
        let measures = self.measures;
        let cancel = self.cancel.0.child_token();
        let _stop_when_dropped = cancel.clone().drop_guard();
        let work = move || -> Result<ArrayRef> {
            let mut names: Vec<String> = Vec::new();
            let mut values: Vec<Option<f64>> = Vec::new();
            let mut lengths = Vec::new();
            for row in 0..samples.len() {
                let parts: Vec<ArrayRef> = samples
                    .as_struct()
                    .columns()
                    .iter()
                    .map(|column| column.as_list::<i32>().value(row))
                    .collect();
                let scores = Kept::of(&parts)?
                    .scores(measures, &|| cancel.is_cancelled())
                    .map_err(|error| through_datafusion(ml_error(error)))?;
                lengths.push(scores.len());
                for (name, score) in scores {
                    names.push(name);
                    values.push(score);
                }
            }
            let columns: Vec<ArrayRef> =
                vec![Arc::new(StringArray::from(names)), Arc::new(Float64Array::from(values))];
            let rows = StructArray::try_new(score_fields(), columns, None)?;
            let DataType::List(item) = scores_type() else {
                return Err(through_datafusion(crate::error::internal("scores are a list")));
            };
            let offsets = OffsetBuffer::from_lengths(lengths);
            Ok(Arc::new(ListArray::try_new(item, offsets, Arc::new(rows), None)?))
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|error| through_datafusion(crate::error::internal(error)))?
            .map(ColumnarValue::Array)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::FixedSizeListArray;

    use super::*;

    fn batch(
        vectors: &[[f32; 2]],
        labels: &[Option<&str>],
        predicted: &[Option<&str>],
    ) -> Vec<ArrayRef> {
        let rows = vectors.iter().map(|vector| Some(vector.map(Some)));
        let distances: Float64Array = (0..vectors.len()).map(|row| Some(row as f64)).collect();
        vec![
            Arc::new(FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(rows, 2)),
            Arc::new(StringArray::from(labels.to_vec())),
            Arc::new(StringArray::from(predicted.to_vec())),
            Arc::new(distances),
        ]
    }

    fn kept(looks: &mut Looks) -> Kept {
        Kept::of(&looks.states().unwrap()).unwrap()
    }

    #[test]
    fn what_is_kept_survives_a_merge() {
        let labels = [Some("a"), None, Some("b")];
        let values = batch(&[[1.0, 0.0], [2.0, 0.0], [3.0, 1.0]], &labels, &[Some("a"); 3]);
        let mut all = Looks::new(true, 10);
        for _ in 0..2 {
            let mut part = Looks::new(true, 10);
            part.update_batch(&values).unwrap();
            let states: Vec<ArrayRef> =
                part.state().unwrap().iter().map(|state| state.to_array().unwrap()).collect();
            all.merge_batch(&states).unwrap();
        }
        let kept = kept(&mut all);
        assert_eq!(kept.keys.len(), 4, "a row without a label does not count");
        assert_eq!(kept.dim(), 2);
        let expected = [("a", "a", 2), ("b", "a", 2)]
            .map(|(truth, predicted, count)| (truth.to_string(), predicted.to_string(), count));
        assert_eq!(kept.counts, expected);
        assert_eq!((kept.distance_count, kept.distance_sum), (4, 4.0));
    }

    #[test]
    fn a_sample_is_bounded_and_keeps_vectors_with_their_labels() {
        let vectors: Vec<[f32; 2]> = (0..1000).map(|row| [row as f32, 1.0]).collect();
        let names: Vec<String> = (0..1000).map(|row| row.to_string()).collect();
        let labels: Vec<Option<&str>> = names.iter().map(|name| Some(name.as_str())).collect();
        let mut looks = Looks::new(true, 100);
        looks.update_batch(&batch(&vectors, &labels, &vec![None; 1000])).unwrap();
        let kept = kept(&mut looks);
        assert_eq!((kept.keys.len(), kept.vectors.len()), (100, 200));
        let mut sum = 0.0;
        for (vector, label) in kept.vectors.chunks(2).zip(&kept.labels) {
            assert_eq!(label.as_deref(), Some(vector[0].to_string().as_str()));
            sum += vector[0];
        }
        // The mean of 100 of 0..1000 strays by 29 or so.
        assert!((sum / 100.0 - 500.0).abs() < 120.0, "{sum}");
    }

    #[test]
    fn scores_of_a_known_sample() {
        let labels = [Some("a"), Some("a"), Some("b"), Some("b")];
        let vectors = [[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]];
        let predicted = [Some("a"), Some("b"), Some("b"), Some("b")];
        let mut looks = Looks::new(true, 10);
        looks.update_batch(&batch(&vectors, &labels, &predicted)).unwrap();
        let kept = kept(&mut looks);
        let score = |measures, name: &str| {
            let scores = kept.scores(measures, &|| false).unwrap();
            scores.into_iter().find(|(found, _)| found == name).unwrap().1.unwrap()
        };
        let by_model = Measures::Labelled { by_model: true };
        assert_eq!(score(by_model, "accuracy"), 0.75);
        assert_eq!(score(by_model, "recall@1"), 1.0);
        // Three others vote, of which two are of the other class.
        assert_eq!(score(Measures::Labelled { by_model: false }, "accuracy"), 0.0);
        let unlabelled = Measures::Unlabelled { views: true };
        assert_eq!(score(unlabelled, "alignment"), 1.5);
        assert_eq!(score(unlabelled, "dead_dimensions"), 0.0);
        assert!((1.5..2.0).contains(&score(unlabelled, "effective_rank")));
    }

    #[test]
    fn nothing_has_no_scores() {
        let kept = kept(&mut Looks::new(true, 10));
        for measures in [
            Measures::Labelled { by_model: true },
            Measures::Labelled { by_model: false },
            Measures::Unlabelled { views: true },
        ] {
            let scores = kept.scores(measures, &|| false).unwrap();
            assert!(scores.iter().all(|(_, score)| score.is_none()), "{scores:?}");
        }
    }
}
