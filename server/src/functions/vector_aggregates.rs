//! `avg` and `sum` of vectors, element by element.
//!
//! DataFusion knows both for numbers. One name is one function there, so these take the place of DataFusion's: an argument that is
//! a vector is theirs, every other goes to the function whose place they took.
//!
//! Sums are kept in f64. A mean of a model's vectors keeps the model's mark: it lies among them, so it can be searched with. NULL
//! vectors do not count; over none, both give NULL.

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, ListArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type, Int64Type};
use datafusion::common::{Result, ScalarValue};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, Expr, GroupsAccumulator, Operator,
    ReversedUDAF, SetMonotonicity, Signature, StatisticsArgs, Volatility,
};
use thanosql_protocol::{SqlError, SqlState};

use super::in_front::coerced_types;
use super::vector_column::{Vectors, different_lengths, vector_result, vectors_array};
use crate::error::through_datafusion;
use crate::plan::types::vector_length;

/// Puts `avg` and `sum` of vectors in front of the same functions over numbers.
pub fn vector_aggregates(numbers: impl Fn(&str) -> Option<Arc<AggregateUDF>>) -> Vec<AggregateUDF> {
    [("avg", Fold::Mean), ("sum", Fold::Sum)]
        .into_iter()
        .filter_map(|(name, fold)| Some(vector_aggregate(fold, numbers(name)?)))
        .collect()
}

fn vector_aggregate(fold: Fold, numbers: Arc<AggregateUDF>) -> AggregateUDF {
    let signature = Signature::user_defined(Volatility::Immutable);
    AggregateUDF::new_from_impl(VectorAggregate { fold, numbers, signature })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Fold {
    Mean,
    Sum,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct VectorAggregate {
    fold: Fold,
    /// The function for all that is no vector.
    numbers: Arc<AggregateUDF>,
    signature: Signature,
}

fn length(data_type: &DataType) -> Option<usize> {
    vector_length(data_type).and_then(|length| usize::try_from(length).ok())
}

fn length_of(args: &AccumulatorArgs<'_>) -> Option<usize> {
    length(args.return_field.data_type())
}

fn distinct() -> DataFusionError {
    through_datafusion(SqlError::new(
        SqlState::FEATURE_NOT_SUPPORTED,
        "DISTINCT is not supported in aggregates over vectors",
    ))
}

/// The type in which numbers are added up: the mean of numerics has sixteen digits after the point, as PostgreSQL's, of which DataFusion adds four.
fn wide(fold: Fold, number: &DataType) -> DataType {
    const MEAN_SCALE: i8 = 12;
    match (fold, number) {
        (Fold::Mean, DataType::Decimal128(precision, scale))
            if *scale < MEAN_SCALE && i16::from(*precision) - i16::from(*scale) <= 22 =>
        {
            DataType::Decimal128(38, MEAN_SCALE)
        }
        _ => number.clone(),
    }
}

impl AggregateUDFImpl for VectorAggregate {
    fn name(&self) -> &str {
        self.numbers.name()
    }

    fn aliases(&self) -> &[String] {
        self.numbers.aliases()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        if let [argument] = arguments
            && length(argument).is_some()
        {
            return Ok(arguments.to_vec());
        }
        let coerced = coerced_types(arguments, self.numbers.as_ref())?;
        Ok(match coerced.as_slice() {
            [number] => vec![wide(self.fold, number)],
            _ => coerced,
        })
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        match arguments.first() {
            Some(argument) if length(argument).is_some() => Ok(argument.clone()),
            _ => self.numbers.return_type(arguments),
        }
    }

    fn return_field(&self, arguments: &[FieldRef]) -> Result<FieldRef> {
        match arguments.first().and_then(|argument| length(argument.data_type())) {
            Some(dim) => Ok(Arc::new(vector_result(self.name(), dim, arguments))),
            None => self.numbers.return_field(arguments),
        }
    }

    fn is_nullable(&self) -> bool {
        self.numbers.is_nullable()
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        match length_of(&args) {
            Some(_) if args.is_distinct => Err(distinct()),
            Some(dim) => Ok(Box::new(VectorSum::new(self.fold, dim))),
            None => self.numbers.accumulator(args),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        if length(args.return_field.data_type()).is_none() {
            return self.numbers.state_fields(args);
        }
        let sums = Field::new_list(
            format!("{}[sums]", args.name),
            Field::new_list_field(DataType::Float64, true),
            true,
        );
        let count = Field::new(format!("{}[count]", args.name), DataType::Int64, true);
        Ok(vec![Arc::new(sums), Arc::new(count)])
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        length_of(&args).is_none() && self.numbers.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        self.numbers.create_groups_accumulator(args)
    }

    fn create_sliding_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn Accumulator>> {
        match length_of(&args) {
            Some(_) if args.is_distinct => Err(distinct()),
            Some(dim) => Ok(Box::new(VectorSum::new(self.fold, dim))),
            None => self.numbers.create_sliding_accumulator(args),
        }
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        self.numbers.inner().reverse_expr()
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.numbers.order_sensitivity()
    }

    fn simplify_expr_op_literal(
        &self,
        function: &AggregateFunction,
        argument: &Expr,
        operator: Operator,
        literal: &Expr,
        argument_is_left: bool,
    ) -> Result<Option<Expr>> {
        self.numbers.simplify_expr_op_literal(
            function,
            argument,
            operator,
            literal,
            argument_is_left,
        )
    }

    fn value_from_stats(&self, statistics: &StatisticsArgs<'_>) -> Option<ScalarValue> {
        self.numbers.value_from_stats(statistics)
    }

    fn default_value(&self, data_type: &DataType) -> Result<ScalarValue> {
        self.numbers.default_value(data_type)
    }

    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.numbers.inner().set_monotonicity(data_type)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.numbers.documentation()
    }
}

#[derive(Debug)]
struct VectorSum {
    fold: Fold,
    sums: Vec<f64>,
    count: i64,
}

impl VectorSum {
    fn new(fold: Fold, dim: usize) -> VectorSum {
        VectorSum { fold, sums: vec![0.0; dim], count: 0 }
    }

    fn each(&mut self, values: &[ArrayRef], change: impl Fn(&mut f64, f32)) -> Result<i64> {
        let Some(array) = values.first() else { return Ok(0) };
        let vectors = Vectors::of(array)?;
        let mut count = 0;
        for row in 0..vectors.len {
            let Some(vector) = vectors.get(row)? else { continue };
            if vector.len() != self.sums.len() {
                return Err(different_lengths(self.sums.len(), vector.len()));
            }
            self.sums.iter_mut().zip(vector).for_each(|(sum, value)| change(sum, *value));
            count += 1;
        }
        Ok(count)
    }
}

impl Accumulator for VectorSum {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.count += self.each(values, |sum, value| *sum += f64::from(value))?;
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.count -= self.each(values, |sum, value| *sum -= f64::from(value))?;
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let dim = i32::try_from(self.sums.len()).unwrap_or(i32::MAX);
        if self.count == 0 {
            return ScalarValue::try_new_null(&crate::plan::types::vector(dim));
        }
        let divisor = match self.fold {
            Fold::Mean => self.count as f64,
            Fold::Sum => 1.0,
        };
        let values: Vec<f32> = self.sums.iter().map(|sum| (sum / divisor) as f32).collect();
        if values.iter().any(|value| value.is_infinite()) {
            return Err(through_datafusion(SqlError::new(
                SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
                "value out of range: overflow",
            )));
        }
        let mean = vectors_array(values, vec![true], dim).map_err(through_datafusion)?;
        ScalarValue::try_from_array(&mean, 0)
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.sums.capacity() * size_of::<f64>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let sums = ListArray::try_new(
            Arc::new(Field::new_list_field(DataType::Float64, true)),
            OffsetBuffer::from_lengths([self.sums.len()]),
            Arc::new(Float64Array::from(self.sums.clone())),
            None,
        )?;
        Ok(vec![ScalarValue::List(Arc::new(sums)), ScalarValue::Int64(Some(self.count))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let [sums, counts] = states else {
            return Err(through_datafusion(crate::error::internal("a mean has two states")));
        };
        let sums = sums.as_list::<i32>();
        for (row, count) in counts.as_primitive::<Int64Type>().iter().enumerate() {
            if sums.is_null(row) {
                continue;
            }
            let values = sums.value(row);
            let values = values.as_primitive::<Float64Type>().values();
            self.sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
            self.count += count.unwrap_or(0);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::FixedSizeListArray;
    use arrow::datatypes::Float32Type;

    use super::*;

    fn vectors(rows: Vec<Option<Vec<Option<f32>>>>) -> ArrayRef {
        Arc::new(FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(rows, 2))
    }

    fn vector(a: f32, b: f32) -> Option<Vec<Option<f32>>> {
        Some(vec![Some(a), Some(b)])
    }

    fn numbers(value: &ScalarValue) -> Vec<f32> {
        let ScalarValue::FixedSizeList(array) = value else { panic!("{value:?}") };
        array.value(0).as_primitive::<Float32Type>().values().to_vec()
    }

    #[test]
    fn means_and_sums_merge() {
        let mut first = VectorSum::new(Fold::Mean, 2);
        first.update_batch(&[vectors(vec![vector(1.0, 2.0), None, vector(3.0, 2.0)])]).unwrap();
        let mut second = VectorSum::new(Fold::Mean, 2);
        second.update_batch(&[vectors(vec![vector(5.0, -1.0)])]).unwrap();
        let states: Vec<ArrayRef> =
            second.state().unwrap().iter().map(|state| state.to_array().unwrap()).collect();
        first.merge_batch(&states).unwrap();
        assert_eq!(numbers(&first.evaluate().unwrap()), [3.0, 1.0]);
        first.retract_batch(&[vectors(vec![vector(1.0, 2.0)])]).unwrap();
        assert_eq!(numbers(&first.evaluate().unwrap()), [4.0, 0.5]);
        let mut sum = VectorSum::new(Fold::Sum, 2);
        assert!(sum.evaluate().unwrap().is_null());
        sum.update_batch(&[vectors(vec![vector(1.0, 2.0), vector(1.0, 2.0)])]).unwrap();
        assert_eq!(numbers(&sum.evaluate().unwrap()), [2.0, 4.0]);
        sum.update_batch(&[vectors(vec![vector(f32::MAX, 0.0), vector(f32::MAX, 0.0)])]).unwrap();
        assert!(sum.evaluate().is_err());
    }
}
