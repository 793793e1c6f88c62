//! Functions over vectors: `cosine_similarity`, pgvector's distances, and what tells of a vector or makes one.
//!
//! A vector is `vector(n)` (`FixedSizeList<Float32, n>`), an array of numbers, or its text form `[1,2,3]`. Sums are kept in
//! sixteen lanes, so that the compiler can use the processor's vector registers; a scan is then bound by memory.
//!
//! Where pgvector answers NaN, the cosine with a vector of zeros, the answer here is 0: such a vector is similar to nothing,
//! and NaN would stand before every other row in `ORDER BY ... DESC`. Results are clamped to [-1, 1], and equal vectors
//! give exactly 1.

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

use std::sync::Arc;

use arrow::array::{Float64Builder, Int32Builder};
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use thanosql_protocol::types::{MAX_VECTOR_DIMENSIONS, parse_vector};
use thanosql_protocol::{SqlError, SqlState};

use super::vector_arithmetic::{Arithmetic, Comparison, arithmetic_function, comparison_function};
use super::vector_column::{
    Vectors, different_lengths, through_column, two_vectors, unknown_length, vector_argument,
    vector_result, vectors_by_row, wrong_arguments,
};
use crate::error::through_datafusion;
use crate::plan::types::vector_length;

/// Partial sums kept side by side.
const LANES: usize = 16;

/// All functions of this module, to be registered in every session.
pub fn vector_functions() -> Vec<ScalarUDF> {
    let mut functions: Vec<ScalarUDF> = Metric::ALL.into_iter().map(metric_function).collect();
    functions.push(ScalarUDF::new_from_impl(MeasureFunction::new(Measure::Dimensions)));
    functions.push(ScalarUDF::new_from_impl(MeasureFunction::new(Measure::Norm)));
    functions.push(ScalarUDF::new_from_impl(ToVector::new()));
    functions.extend(Arithmetic::ALL.map(arithmetic_function));
    functions.extend(Comparison::ALL.map(comparison_function));
    functions.extend(super::vector_shape::shape_functions());
    functions
}

/// The function of one metric.
pub fn metric_function(metric: Metric) -> ScalarUDF {
    ScalarUDF::new_from_impl(MetricFunction::new(metric))
}

/// Whether a function takes two vectors.
pub fn compares_vectors(name: &str) -> bool {
    Metric::ALL.iter().any(|metric| metric.name() == name)
        || Arithmetic::ALL.iter().any(|operation| operation.name() == name)
        || Comparison::ALL.iter().any(|comparison| comparison.name() == name)
}

/// `to_vector(value, n)`, which a cast to `vector(n)` is planned as.
pub fn to_vector_function() -> ScalarUDF {
    ScalarUDF::new_from_impl(ToVector::new())
}

/// What two vectors are compared by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Metric {
    /// `a . b / (|a| |b|)`, from -1 to 1, higher is closer.
    CosineSimilarity,
    /// `1 - cosine_similarity`: pgvector's `<=>`.
    CosineDistance,
    /// `|a - b|`: pgvector's `<->`.
    L2Distance,
    /// `a . b`.
    InnerProduct,
    /// `-(a . b)`: pgvector's `<#>`.
    NegativeInnerProduct,
    /// The sum of `|a_i - b_i|`: pgvector's `<+>`.
    L1Distance,
}

impl Metric {
    /// All of them.
    pub const ALL: [Metric; 6] = [
        Metric::CosineSimilarity,
        Metric::CosineDistance,
        Metric::L2Distance,
        Metric::InnerProduct,
        Metric::NegativeInnerProduct,
        Metric::L1Distance,
    ];

    /// The function's name.
    pub fn name(self) -> &'static str {
        match self {
            Metric::CosineSimilarity => "cosine_similarity",
            Metric::CosineDistance => "cosine_distance",
            Metric::L2Distance => "l2_distance",
            Metric::InnerProduct => "inner_product",
            Metric::NegativeInnerProduct => "vector_negative_inner_product",
            Metric::L1Distance => "l1_distance",
        }
    }

    /// The metric of pgvector's operators.
    pub fn of_operator(operator: &str) -> Option<Metric> {
        match operator {
            "<=>" => Some(Metric::CosineDistance),
            "<->" => Some(Metric::L2Distance),
            "<#>" => Some(Metric::NegativeInnerProduct),
            "<+>" => Some(Metric::L1Distance),
            _ => None,
        }
    }

    /// Of two vectors of equal length.
    fn measure(self, a: &[f32], b: &[f32]) -> f64 {
        match self {
            Metric::CosineSimilarity => cosine(a, b),
            Metric::CosineDistance => 1.0 - cosine(a, b),
            Metric::L2Distance => f64::from(lanes(a, b, |x, y| (x - y) * (x - y))).sqrt(),
            Metric::InnerProduct => f64::from(dot(a, b)),
            Metric::NegativeInnerProduct => -f64::from(dot(a, b)),
            Metric::L1Distance => f64::from(lanes(a, b, |x, y| (x - y).abs())),
        }
    }
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    cosine_of_sums(dot(a, b), dot(a, a), dot(b, b))
}

/// The product of two f32 is exact in f64, so for equal vectors the root is exact too and the quotient is 1.
fn cosine_of_sums(product: f32, a_squared: f32, b_squared: f32) -> f64 {
    let norms = (f64::from(a_squared) * f64::from(b_squared)).sqrt();
    if norms == 0.0 {
        return 0.0;
    }
    (f64::from(product) / norms).clamp(-1.0, 1.0)
}

pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    lanes(a, b, |x, y| x * y)
}

#[inline(always)]
fn lanes(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let mut sums = [0.0_f32; LANES];
    let (a_blocks, a_rest) = a.as_chunks::<LANES>();
    let (b_blocks, b_rest) = b.as_chunks::<LANES>();
    for (a_block, b_block) in a_blocks.iter().zip(b_blocks) {
        for lane in 0..LANES {
            sums[lane] += term(a_block[lane], b_block[lane]);
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(x, y)| term(*x, *y)).sum();
    sums.iter().sum::<f32>() + rest
}

/// `a . b` and `a . a` in one pass over `a`, with the same order of additions as [`dot`].
fn dot_and_square(a: &[f32], b: &[f32]) -> (f32, f32) {
    let mut products = [0.0_f32; LANES];
    let mut squares = [0.0_f32; LANES];
    let (a_blocks, a_rest) = a.as_chunks::<LANES>();
    let (b_blocks, b_rest) = b.as_chunks::<LANES>();
    for (a_block, b_block) in a_blocks.iter().zip(b_blocks) {
        for lane in 0..LANES {
            products[lane] += a_block[lane] * b_block[lane];
            squares[lane] += a_block[lane] * a_block[lane];
        }
    }
    let product_rest: f32 = a_rest.iter().zip(b_rest).map(|(x, y)| x * y).sum();
    let square_rest: f32 = a_rest.iter().map(|x| x * x).sum();
    (products.iter().sum::<f32>() + product_rest, squares.iter().sum::<f32>() + square_rest)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct MetricFunction {
    metric: Metric,
    signature: Signature,
}

impl MetricFunction {
    fn new(metric: Metric) -> MetricFunction {
        MetricFunction { metric, signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for MetricFunction {
    fn name(&self) -> &str {
        self.metric.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        two_vectors(self.name(), arguments)
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [a, b] = args.args.as_slice() else {
            return Err(wrong_arguments(self.name(), "two vectors"));
        };
        match (a, b) {
            (ColumnarValue::Scalar(a), ColumnarValue::Scalar(b)) => {
                let a = Vectors::of(&a.to_array()?)?;
                let b = Vectors::of(&b.to_array()?)?;
                let value = match (a.get(0)?, b.get(0)?) {
                    (Some(a), Some(b)) => Some(self.pair(a, b)?),
                    (None, _) | (_, None) => None,
                };
                Ok(ColumnarValue::Scalar(ScalarValue::Float64(value)))
            }
            (ColumnarValue::Array(column), ColumnarValue::Scalar(query))
            | (ColumnarValue::Scalar(query), ColumnarValue::Array(column)) => {
                self.column_with_query(&Vectors::of(column)?, &Vectors::of(&query.to_array()?)?)
            }
            (ColumnarValue::Array(a), ColumnarValue::Array(b)) => {
                let (a, b) = (Vectors::of(a)?, Vectors::of(b)?);
                let mut results = Float64Builder::with_capacity(a.len);
                for row in 0..a.len {
                    match (a.get(row)?, b.get(row)?) {
                        (Some(a), Some(b)) => results.append_value(self.pair(a, b)?),
                        (None, _) | (_, None) => results.append_null(),
                    }
                }
                Ok(ColumnarValue::Array(Arc::new(results.finish())))
            }
        }
    }
}

impl MetricFunction {
    fn pair(&self, a: &[f32], b: &[f32]) -> Result<f64> {
        if a.len() != b.len() {
            return Err(different_lengths(a.len(), b.len()));
        }
        Ok(self.metric.measure(a, b))
    }

    /// Every metric is symmetric, so it does not matter which argument the column was.
    fn column_with_query(&self, column: &Vectors, query: &Vectors) -> Result<ColumnarValue> {
        let Some(query) = query.get(0)? else {
            return Ok(ColumnarValue::Scalar(ScalarValue::Float64(None)));
        };
        let query_squared = dot(query, query);
        let mut results = Float64Builder::with_capacity(column.len);
        for row in 0..column.len {
            let Some(vector) = column.get(row)? else {
                results.append_null();
                continue;
            };
            if vector.len() != query.len() {
                return Err(different_lengths(vector.len(), query.len()));
            }
            results.append_value(match self.metric {
                Metric::CosineSimilarity | Metric::CosineDistance => {
                    let (product, squared) = dot_and_square(vector, query);
                    let cosine = cosine_of_sums(product, squared, query_squared);
                    if self.metric == Metric::CosineSimilarity { cosine } else { 1.0 - cosine }
                }
                Metric::L2Distance
                | Metric::InnerProduct
                | Metric::NegativeInnerProduct
                | Metric::L1Distance => self.metric.measure(vector, query),
            });
        }
        Ok(ColumnarValue::Array(Arc::new(results.finish())))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Measure {
    Dimensions,
    Norm,
}

/// `vector_dims(v)` and `vector_norm(v)` (also `l2_norm`).
#[derive(Debug, PartialEq, Eq, Hash)]
struct MeasureFunction {
    measure: Measure,
    aliases: Vec<String>,
    signature: Signature,
}

impl MeasureFunction {
    fn new(measure: Measure) -> MeasureFunction {
        MeasureFunction {
            measure,
            aliases: match measure {
                Measure::Dimensions => Vec::new(),
                Measure::Norm => vec!["l2_norm".to_owned()],
            },
            signature: Signature::user_defined(Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for MeasureFunction {
    fn name(&self) -> &str {
        match self.measure {
            Measure::Dimensions => "vector_dims",
            Measure::Norm => "vector_norm",
        }
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        match arguments {
            [argument] => Ok(vec![vector_argument(argument)?]),
            _ => Err(wrong_arguments(self.name(), "one vector")),
        }
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(match self.measure {
            Measure::Dimensions => DataType::Int32,
            Measure::Norm => DataType::Float64,
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [argument] = args.args.as_slice() else {
            return Err(wrong_arguments(self.name(), "one vector"));
        };
        through_column(argument, |column| {
            let vectors = Vectors::of(column)?;
            Ok(match self.measure {
                Measure::Dimensions => {
                    let mut results = Int32Builder::with_capacity(vectors.len);
                    for row in 0..vectors.len {
                        let length = vectors.get(row)?.map(<[f32]>::len);
                        let length = length.map(|length| i32::try_from(length).unwrap_or(i32::MAX));
                        results.append_option(length);
                    }
                    Arc::new(results.finish())
                }
                Measure::Norm => {
                    let mut results = Float64Builder::with_capacity(vectors.len);
                    for row in 0..vectors.len {
                        let squared = vectors.get(row)?.map(|vector| dot(vector, vector));
                        results.append_option(squared.map(|squared| f64::from(squared).sqrt()));
                    }
                    Arc::new(results.finish())
                }
            })
        })
    }
}

/// `to_vector(value, n)`: an array or a text `[1,2,3]` as `vector(n)`. This is what a cast to `vector(n)` is planned as; without
/// `n` the value must be a literal text, whose length is taken.
#[derive(Debug, PartialEq, Eq, Hash)]
struct ToVector {
    signature: Signature,
}

impl ToVector {
    fn new() -> ToVector {
        ToVector { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for ToVector {
    fn name(&self) -> &str {
        "to_vector"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        match arguments {
            [value] => Ok(vec![vector_argument(value)?]),
            [value, _] => Ok(vec![vector_argument(value)?, DataType::Int64]),
            _ => Err(wrong_arguments(self.name(), "a vector and its length")),
        }
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Err(unknown_length())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let asked = match args.scalar_arguments.get(1) {
            Some(Some(ScalarValue::Int64(Some(dim)))) => Some(*dim),
            Some(_) => return Err(unknown_length()),
            None => None,
        };
        let own = match args.arg_fields.first().map(|field| field.data_type()) {
            Some(DataType::FixedSizeList(_, dim)) if *dim > 0 => Some(i64::from(*dim)),
            Some(_) | None => match args.scalar_arguments.first() {
                Some(Some(ScalarValue::Utf8(Some(text)))) => {
                    let parsed = parse_vector(text).map_err(through_datafusion)?;
                    Some(parsed.len() as i64)
                }
                Some(_) | None => None,
            },
        };
        let dim = asked.or(own).ok_or_else(unknown_length)?;
        let dim = usize::try_from(dim)
            .ok()
            .filter(|dim| (1..=MAX_VECTOR_DIMENSIONS).contains(dim))
            .ok_or_else(|| {
                through_datafusion(SqlError::new(
                    SqlState::INVALID_PARAMETER_VALUE,
                    format!("a vector cannot have {dim} dimensions: it must be from 1 to {MAX_VECTOR_DIMENSIONS}"),
                ))
            })?;
        Ok(Arc::new(vector_result(self.name(), dim, &args.arg_fields[..1])))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let data_type = args.return_field.data_type();
        let Some(argument) = args.args.first() else {
            return Err(wrong_arguments(self.name(), "a vector and its length"));
        };
        let wanted = vector_length(data_type).ok_or_else(unknown_length)?;
        through_column(argument, |column| {
            let vectors = Vectors::of(column)?;
            vectors_by_row(data_type, vectors.len, |row, values| {
                let Some(vector) = vectors.get(row)? else { return Ok(false) };
                if i32::try_from(vector.len()).ok() != Some(wanted) {
                    return Err(through_datafusion(SqlError::new(
                        SqlState::DATA_EXCEPTION,
                        format!("expected {wanted} dimensions, not {}", vector.len()),
                    )));
                }
                check_finite(vector)?;
                values.extend_from_slice(vector);
                Ok(true)
            })
        })
    }
}

/// Errors: 22000 for NaN and infinity, as pgvector refuses them.
fn check_finite(vector: &[f32]) -> Result<()> {
    match vector.iter().find(|value| !value.is_finite()) {
        None => Ok(()),
        Some(value) => {
            let what = if value.is_nan() { "NaN" } else { "infinite value" };
            Err(through_datafusion(SqlError::new(
                SqlState::DATA_EXCEPTION,
                format!("{what} not allowed in vector"),
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, ArrayRef, FixedSizeListArray, Float64Array, RecordBatch};
    use arrow::datatypes::Float32Type;
    use datafusion::prelude::SessionContext;

    use super::*;

    fn context() -> SessionContext {
        let context = SessionContext::new();
        for function in vector_functions() {
            context.register_udf(function);
        }
        context
    }

    async fn one(sql: &str) -> Result<ScalarValue, SqlError> {
        let batches = async { context().sql(sql).await?.collect().await }
            .await
            .map_err(|error| crate::error::datafusion_error(error, None))?;
        Ok(ScalarValue::try_from_array(batches[0].column(0), 0).unwrap())
    }

    async fn number(sql: &str) -> f64 {
        match one(sql).await.unwrap() {
            ScalarValue::Float64(Some(value)) => value,
            other => panic!("{sql}: {other:?}"),
        }
    }

    #[tokio::test]
    async fn values_worked_by_hand() {
        assert_eq!(number("SELECT cosine_similarity([1, 0], [0, 1])").await, 0.0);
        assert_eq!(number("SELECT cosine_similarity([3, 4], [3, 4])").await, 1.0);
        assert_eq!(number("SELECT cosine_similarity('[1,2]', [-2, -4])").await, -1.0);
        assert!(
            (number("SELECT cosine_similarity([1, 0], [1, 1])").await - 0.5_f64.sqrt()).abs()
                < 1e-9
        );
        assert_eq!(number("SELECT cosine_similarity([0, 0], [1, 1])").await, 0.0);
        assert_eq!(number("SELECT l2_distance([0, 0], '[3, 4]')").await, 5.0);
        assert_eq!(number("SELECT l1_distance([0, 0], '[3, -4]')").await, 7.0);
        assert_eq!(number("SELECT inner_product([1, 2], [3, 4])").await, 11.0);
        assert_eq!(number("SELECT vector_negative_inner_product([1, 2], [3, 4])").await, -11.0);
        assert_eq!(number("SELECT l2_norm([3, 4])").await, 5.0);
        assert_eq!(
            one("SELECT vector_dims('[1,2,3]')").await.unwrap(),
            ScalarValue::Int32(Some(3))
        );
        assert_eq!(
            one("SELECT cosine_similarity(NULL, [1.0])").await.unwrap(),
            ScalarValue::Float64(None)
        );
    }

    #[tokio::test]
    async fn errors_carry_their_codes() {
        for (sql, code) in [
            ("SELECT cosine_similarity([1, 2], [1, 2, 3])", SqlState::DATA_EXCEPTION),
            ("SELECT cosine_similarity('[1,', [1])", SqlState::INVALID_TEXT_REPRESENTATION),
            ("SELECT cosine_similarity([1, NULL], [1, 2])", SqlState::NULL_VALUE_NOT_ALLOWED),
            ("SELECT to_vector('[1,2]', 3)", SqlState::DATA_EXCEPTION),
            ("SELECT to_vector('[1,2]', 0)", SqlState::INVALID_PARAMETER_VALUE),
        ] {
            assert_eq!(one(sql).await.unwrap_err().code, code, "{sql}");
        }
    }

    #[tokio::test]
    async fn a_text_becomes_a_vector() {
        let value = one("SELECT to_vector('[1, 2.5,-3e1]', 3)").await.unwrap();
        let expected = FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(
            [Some([Some(1.0), Some(2.5), Some(-30.0)])],
            3,
        );
        assert_eq!(value, ScalarValue::FixedSizeList(Arc::new(expected)));
    }

    #[tokio::test]
    async fn a_column_against_one_vector_keeps_order_nulls_and_slices() {
        let dim = 37; // no multiple of the lanes
        let rows: Vec<Option<Vec<Option<f32>>>> = (0..50)
            .map(|row| {
                (row % 7 != 3).then(|| {
                    (0..dim).map(|i| Some(((row * 31 + i * 17) % 23) as f32 - 11.0)).collect()
                })
            })
            .collect();
        let array = FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(rows.clone(), dim);
        let array = array.slice(5, 40);
        let query: Vec<f32> =
            rows[9].as_ref().unwrap().iter().map(|value| value.unwrap()).collect();
        let batch = RecordBatch::try_from_iter([("v", Arc::new(array) as ArrayRef)]).unwrap();
        let context = context();
        context.register_batch("t", batch).unwrap();
        let text = format!("{query:?}");
        let batches = context
            .sql(&format!("SELECT cosine_similarity(v, '{text}') FROM t"))
            .await
            .unwrap()
            .collect()
            .await
            .unwrap();
        let results = arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap();
        let results = results.column(0).as_any().downcast_ref::<Float64Array>().unwrap();
        assert_eq!(results.len(), 40);
        for row in 0..40 {
            match &rows[row + 5] {
                None => assert!(results.is_null(row)),
                Some(vector) => {
                    let pair =
                        |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
                    let a: Vec<f64> =
                        vector.iter().map(|value| f64::from(value.unwrap())).collect();
                    let b: Vec<f64> = query.iter().map(|value| f64::from(*value)).collect();
                    let expected = pair(&a, &b) / (pair(&a, &a) * pair(&b, &b)).sqrt();
                    assert!((results.value(row) - expected).abs() < 1e-6, "row {row}");
                }
            }
        }
        assert_eq!(results.value(4), 1.0, "a vector with itself");
    }
}
