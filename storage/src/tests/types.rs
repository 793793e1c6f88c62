//! Every type that a column can have, stored and read back.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BinaryViewArray, BooleanArray, Date32Array, Decimal128Array,
    FixedSizeBinaryArray, FixedSizeListArray, Float32Array, Float64Array, Int16Array, Int32Array,
    Int64Array, IntervalMonthDayNanoArray, LargeStringArray, ListArray, NullArray, RecordBatch,
    StringArray, StringViewArray, StructArray, Time64MicrosecondArray, TimestampMicrosecondArray,
    UInt64Array,
};
use arrow::datatypes::{
    DataType, Field, Float32Type, Int32Type, IntervalMonthDayNano, Schema, SchemaRef,
};

use super::open;
use crate::columns;

/// Three rows of every type: a value, NULL, another value.
fn columns_of_all_types() -> Vec<ArrayRef> {
    let vectors = FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(
        [
            Some(vec![Some(1.0), Some(-0.0), Some(f32::MAX)]),
            None,
            Some(vec![Some(4.0), None, Some(6.0)]),
        ],
        3,
    );
    let lists = ListArray::from_iter_primitive::<Int32Type, _, _>([
        Some(vec![Some(1), None]),
        None,
        Some(vec![]),
    ]);
    let texts = [Some("짧다"), None, Some("a longer text than twelve bytes")];
    let bytes: [Option<&[u8]>; 3] = [Some(&[0, 255]), None, Some(&[])];
    let uuids = [Some([7_u8; 16]), None, Some([9; 16])];
    let numbers = [Some(12_345_678_901_234_567_890_123_i128), None, Some(-1)];
    vec![
        Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])),
        Arc::new(Int16Array::from(vec![Some(i16::MIN), None, Some(2)])),
        Arc::new(Int32Array::from(vec![Some(1), None, Some(2)])),
        Arc::new(Int64Array::from(vec![Some(i64::MAX), None, Some(2)])),
        Arc::new(UInt64Array::from(vec![Some(u64::MAX), None, Some(2)])),
        Arc::new(Float32Array::from(vec![Some(f32::NAN), None, Some(-0.0)])),
        Arc::new(Float64Array::from(vec![Some(f64::INFINITY), None, Some(0.1)])),
        Arc::new(StringArray::from_iter(texts)),
        Arc::new(LargeStringArray::from_iter(texts)),
        Arc::new(StringViewArray::from_iter(texts)),
        Arc::new(BinaryArray::from_iter(bytes)),
        Arc::new(BinaryViewArray::from_iter(bytes)),
        Arc::new(Decimal128Array::from_iter(numbers).with_precision_and_scale(38, 10).unwrap()),
        Arc::new(Date32Array::from(vec![Some(-1), None, Some(20_000)])),
        Arc::new(Time64MicrosecondArray::from(vec![Some(1), None, Some(86_399_999_999)])),
        Arc::new(TimestampMicrosecondArray::from(vec![Some(-5), None, Some(5)])),
        Arc::new(
            TimestampMicrosecondArray::from(vec![Some(-5), None, Some(5)]).with_timezone("UTC"),
        ),
        Arc::new(IntervalMonthDayNanoArray::from(vec![
            Some(IntervalMonthDayNano::new(1, -2, 3)),
            None,
            Some(IntervalMonthDayNano::ZERO),
        ])),
        Arc::new(
            FixedSizeBinaryArray::try_from_sparse_iter_with_size(uuids.into_iter(), 16).unwrap(),
        ),
        Arc::new(vectors),
        Arc::new(lists),
        Arc::new(StructArray::from(vec![(
            Arc::new(Field::new("a", DataType::Int32, true)),
            Arc::new(Int32Array::from(vec![Some(1), None, Some(3)])) as ArrayRef,
        )])),
        Arc::new(NullArray::new(3)),
    ]
}

fn batch_of_all_types() -> RecordBatch {
    let columns = columns_of_all_types();
    let fields: Vec<Field> = columns
        .iter()
        .enumerate()
        .map(|(index, column)| Field::new(format!("c{index}"), column.data_type().clone(), true))
        .collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

#[test]
fn every_type_comes_back_as_it_went_in() {
    let batch = batch_of_all_types();
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let mut transaction = store.begin();
    transaction.create_table("small", batch.schema()).unwrap();
    transaction.append("small", &batch).unwrap();
    assert_eq!(transaction.snapshot().table("small").unwrap().read_group(0, None).unwrap(), batch);
    // Enough rows that each column has pieces of its own; appended as slices of one batch.
    let many = std::iter::repeat_n(&batch, 2000);
    let many = arrow::compute::concat_batches(&batch.schema(), many).unwrap();
    transaction.create_table("large", batch.schema()).unwrap();
    for start in (0..many.num_rows()).step_by(999) {
        let length = 999.min(many.num_rows() - start);
        transaction.append("large", &many.slice(start, length)).unwrap();
    }
    transaction.commit().unwrap();
    drop(store);

    let store = open(folder.path());
    let snapshot = store.snapshot();
    assert_eq!(snapshot.table("small").unwrap().read_group(0, None).unwrap(), batch);
    let large = snapshot.table("large").unwrap();
    for attempt in ["from the engine", "from the cache"] {
        assert_eq!(large.read_group(0, None).unwrap(), many, "{attempt}");
    }
    assert_eq!(large.read_group(0, Some(&[19, 0])).unwrap(), many.project(&[19, 0]).unwrap());
    let counted = large.read_group(0, Some(&[])).unwrap();
    assert_eq!((counted.num_columns(), counted.num_rows()), (0, 6000));
}

#[test]
fn slices_are_encoded_as_what_they_show() {
    for column in columns_of_all_types() {
        let many: Vec<&dyn arrow::array::Array> =
            std::iter::repeat_n(column.as_ref(), 40).collect();
        let many = arrow::compute::concat(&many).unwrap();
        for (start, length) in [(0, 0), (1, 1), (7, 50), (119, 1), (8, 64)] {
            let slice = many.slice(start, length);
            let bytes = columns::encode(&[Arc::clone(&slice)]).unwrap();
            let types = [slice.data_type()];
            let read = columns::decode(bytes.into(), length, &types, String::new).unwrap();
            assert_eq!(&read[0], &slice, "{} from {start}", slice.data_type());
        }
    }
}

#[test]
fn a_decoded_column_shares_the_buffer_that_was_read() {
    let values: ArrayRef = Arc::new(Float32Array::from_iter_values((0..10_000).map(|n| n as f32)));
    let bytes = columns::encode(&[Arc::clone(&values)]).unwrap();
    let buffer = arrow::buffer::Buffer::from_slice_ref(&bytes);
    let range = buffer.as_ptr_range();
    let read = columns::decode(buffer, 10_000, &[&DataType::Float32], String::new).unwrap();
    assert!(range.contains(&read[0].to_data().buffers()[0].as_ptr()));
    assert_eq!(&read[0], &values);
}

#[test]
fn nested_types_may_name_their_items_differently() {
    let stored = Arc::new(Field::new("element", DataType::Float32, true));
    let schema: SchemaRef =
        Arc::new(Schema::new(vec![Field::new("v", DataType::FixedSizeList(stored, 3), true)]));
    let vectors = FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(
        [Some(vec![Some(1.0), Some(2.0), Some(3.0)])],
        3,
    );
    let batch = RecordBatch::try_from_iter([("v", Arc::new(vectors) as ArrayRef)]).unwrap();
    assert_ne!(batch.schema().field(0).data_type(), schema.field(0).data_type());
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let mut transaction = store.begin();
    transaction.create_table("t", Arc::clone(&schema)).unwrap();
    transaction.append("t", &batch).unwrap();
    transaction.commit().unwrap();
    let read = store.snapshot().table("t").unwrap().read_group(0, None).unwrap();
    assert_eq!(read.schema(), schema);
    assert_eq!(read.num_rows(), 1);
}

#[test]
fn a_table_without_columns_has_rows() {
    let empty: SchemaRef = Arc::new(Schema::empty());
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let mut transaction = store.begin();
    transaction.create_table("t", Arc::clone(&empty)).unwrap();
    for rows in [2, 3] {
        let batch = columns::batch_of(&empty, Vec::new(), rows).unwrap();
        transaction.append("t", &batch).unwrap();
    }
    transaction.commit().unwrap();
    let mut transaction = store.begin();
    transaction.append("t", &columns::batch_of(&empty, Vec::new(), 7).unwrap()).unwrap();
    transaction.commit().unwrap();
    drop(store);
    let store = open(folder.path());
    let table = store.snapshot().table("t").unwrap();
    assert_eq!(table.row_count(), 12);
    let ids = table.read_group_with_row_ids(0, None).unwrap();
    assert_eq!(ids.num_columns(), 1);
}

#[test]
fn a_row_larger_than_a_group_may_be_is_stored_alone() {
    let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("b", DataType::Binary, true)]));
    let large = vec![5_u8; 20 << 20];
    let batch = BinaryArray::from_iter_values([large.as_slice(), &[1], large.as_slice()]);
    let batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(batch)]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let mut transaction = store.begin();
    transaction.create_table("t", schema).unwrap();
    transaction.append("t", &batch).unwrap();
    transaction.commit().unwrap();
    let table = store.snapshot().table("t").unwrap();
    assert_eq!((table.groups(), table.row_count()), (2, 3));
    let mut start = 0;
    for group in 0..table.groups() {
        let read = table.read_group(group, None).unwrap();
        assert_eq!(read, batch.slice(start, read.num_rows()));
        start += read.num_rows();
    }
}
