//! Values whose text and binary forms were taken from PostgreSQL 15, held against both directions of both forms.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, DictionaryArray, Float16Array, Float32Array, Float64Array, Int32Array,
    Int64Array, ListArray, StringArray, StructArray, UInt64Array,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Int32Type, TimeUnit};
use bytes::BytesMut;

use super::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn from_hex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| {
            let pair = std::str::from_utf8(pair).expect("ASCII");
            u8::from_str_radix(pair, 16).expect("hexadecimal")
        })
        .collect()
}

fn named(data_type: DataType, pg_type: &str) -> Field {
    let metadata = HashMap::from([(PG_TYPE_KEY.to_owned(), pg_type.to_owned())]);
    Field::new("x", data_type, true).with_metadata(metadata)
}

fn text_of(array: &dyn Array, field: &Field) -> String {
    text_value(array, 0, field, &TextStyle::default()).expect("not NULL")
}

fn binary_of(array: &dyn Array, field: &Field) -> Result<String, SqlError> {
    let mut out = BytesMut::new();
    let plan = TypePlan::of(field);
    assert!(write_binary(array, 0, &plan, &TextStyle::default(), &mut out)?);
    Ok(hex(&out))
}

/// Reads and writes a value in both forms.
fn check_field(field: &Field, text: &str, binary: &str) {
    let read = parse_text(text, field.data_type()).expect("PostgreSQL reads it");
    assert_eq!(text_of(read.as_ref(), field), text);
    assert_eq!(binary_of(read.as_ref(), field).expect("has a binary form"), binary, "{text}");
    let bytes = from_hex(binary);
    let zone = TimeZone::utc();
    let oid = type_oid(field);
    let received = read_parameter(Some(&bytes), Format::Binary, oid, field.data_type(), &zone)
        .expect("PostgreSQL receives it");
    assert_eq!(text_of(received.as_ref(), field), text, "{binary}");
    // One byte less or more is never taken for a value, but where any number of bytes is one.
    let any_length = matches!(read.data_type(), DataType::Utf8 | DataType::Binary);
    if !any_length {
        let shorter = &bytes[..bytes.len() - 1];
        let longer = [bytes.as_slice(), &[0]].concat();
        for wrong in [shorter, &longer] {
            let result = read_parameter(Some(wrong), Format::Binary, oid, field.data_type(), &zone);
            let error = result.expect_err("wrong length");
            assert_eq!(error.code, SqlState::INVALID_BINARY_REPRESENTATION, "{text}");
        }
    }
}

fn check(data_type: DataType, cases: &[(&str, &str)]) {
    let field = Field::new("x", data_type, true);
    for (text, binary) in cases {
        check_field(&field, text, binary);
    }
}

#[test]
fn booleans_and_integers() {
    check(DataType::Boolean, &[("t", "01"), ("f", "00")]);
    check(DataType::Int16, &[("-2", "fffe"), ("32767", "7fff")]);
    check(DataType::Int32, &[("1", "00000001"), ("-2147483648", "80000000")]);
    check(
        DataType::Int64,
        &[("-1", "ffffffffffffffff"), ("9223372036854775807", "7fffffffffffffff")],
    );
    check_field(&named(DataType::Int64, "oid"), "4294967295", "ffffffff");
    check_field(&named(DataType::UInt32, "oid"), "4294967295", "ffffffff");
}

#[test]
fn floats() {
    check(
        DataType::Float64,
        &[
            ("1e+15", "430c6bf526340000"),
            ("123456789012345", "42dc12218377de40"),
            ("100000000000000", "42d6bcc41e900000"),
            ("0.0001", "3f1a36e2eb1c432d"),
            ("1e-05", "3ee4f8b588e368f1"),
            ("1.1", "3ff199999999999a"),
            ("-0", "8000000000000000"),
            ("1e+100", "54b249ad2594c37d"),
            ("1.7976931348623157e+308", "7fefffffffffffff"),
            ("5e-324", "0000000000000001"),
            ("100", "4059000000000000"),
            ("123456.789", "40fe240c9fbe76c9"),
            ("NaN", "7ff8000000000000"),
            ("Infinity", "7ff0000000000000"),
            ("-Infinity", "fff0000000000000"),
        ],
    );
    let field = Field::new("x", DataType::Float32, true);
    for text in [
        "1e+06",
        "123456",
        "1.234567e+06",
        "0.1",
        "1.6777216e+07",
        "1e-05",
        "3.4028235e+38",
        "100000",
        "999999.9",
    ] {
        let value = parse_text(text, &DataType::Float32).expect("a float4");
        assert_eq!(text_of(value.as_ref(), &field), text);
    }
    let half = Float16Array::from(vec![half_of(1.5)]);
    assert_eq!(text_of(&half, &Field::new("x", DataType::Float16, true)), "1.5");
}

fn half_of(
    value: f32,
) -> <arrow::datatypes::Float16Type as arrow::array::ArrowPrimitiveType>::Native {
    <arrow::datatypes::Float16Type as arrow::array::ArrowPrimitiveType>::Native::from_f32(value)
}

#[test]
fn fewer_float_digits() {
    let with = |extra_float_digits, array: &dyn Array| {
        let style = TextStyle { extra_float_digits, ..TextStyle::default() };
        let field = Field::new("x", array.data_type().clone(), true);
        (0..array.len())
            .map(|row| text_value(array, row, &field, &style).expect("not NULL"))
            .collect::<Vec<_>>()
    };
    let doubles = Float64Array::from(vec![
        1e15,
        0.1 + 0.2,
        123_456_789_012_345_678.0,
        1.0 / 3.0,
        1e-7,
        100.0,
    ]);
    assert_eq!(
        with(0, &doubles),
        ["1e+15", "0.3", "1.23456789012346e+17", "0.333333333333333", "1e-07", "100"]
    );
    let singles = Float32Array::from(vec![0.1, 1e6, 123_456.7, 2.123_456_7]);
    assert_eq!(with(0, &singles), ["0.1", "1e+06", "123457", "2.12346"]);
    assert_eq!(with(-3, &Float64Array::from(vec![1.0 / 3.0])), ["0.333333333333"]);
}

#[test]
fn numerics() {
    let check = |precision, scale, cases: &[(&str, &str)]| {
        check(DataType::Decimal128(precision, scale), cases);
        check(DataType::Decimal256(precision, scale), cases);
    };
    check(
        10,
        0,
        &[
            ("0", "0000000000000000"),
            ("1", "00010000000000000001"),
            ("-1", "00010000400000000001"),
            ("10000", "00010001000000000001"),
        ],
    );
    check(10, 1, &[("12345678.9", "000300010000000104d2162e2328")]);
    check(
        10,
        4,
        &[("0.0001", "0001ffff000000040001"), ("10000.0001", "0003000100000004000100000001")],
    );
    check(10, 5, &[("0.00001", "0001fffe0000000503e8")]);
    check(10, 3, &[("-123.456", "0002000040000003007b11d0")]);
    check(10, 2, &[("1.50", "000200000000000200011388")]);
    check(10, 9, &[("0.000000010", "0001fffe000000090001")]);
    check(
        36,
        10,
        &[(
            "99999999999999999999999999.9999999999",
            "000a00060000000a0063270f270f270f270f270f270f270f270f26ac",
        )],
    );
}

#[test]
fn numerics_are_rounded_half_away_from_zero() {
    let rounded = |text| {
        let data_type = DataType::Decimal128(5, 2);
        parse_text(text, &data_type)
            .map(|value| text_of(value.as_ref(), &Field::new("x", data_type, true)))
            .map_err(|error| error.code)
    };
    assert_eq!(rounded("1.005").as_deref(), Ok("1.01"));
    assert_eq!(rounded("-1.005").as_deref(), Ok("-1.01"));
    assert_eq!(rounded("1.004999").as_deref(), Ok("1.00"));
    assert_eq!(rounded("0.5e1").as_deref(), Ok("5.00"));
    assert_eq!(rounded("1e-30").as_deref(), Ok("0.00"));
    assert_eq!(rounded("999.994").as_deref(), Ok("999.99"));
    for (text, code) in [
        ("999.995", SqlState::NUMERIC_VALUE_OUT_OF_RANGE),
        ("1e1000000000", SqlState::NUMERIC_VALUE_OUT_OF_RANGE),
        ("1e99999999999", SqlState::INVALID_TEXT_REPRESENTATION),
        ("NaN", SqlState::FEATURE_NOT_SUPPORTED),
        ("", SqlState::INVALID_TEXT_REPRESENTATION),
        (".", SqlState::INVALID_TEXT_REPRESENTATION),
        ("1.2.3", SqlState::INVALID_TEXT_REPRESENTATION),
        ("1,5", SqlState::INVALID_TEXT_REPRESENTATION),
    ] {
        assert_eq!(rounded(text), Err(code), "{text}");
    }
}

#[test]
fn dates_and_times() {
    check(
        DataType::Date32,
        &[
            ("2000-01-01", "00000000"),
            ("1999-12-31", "ffffffff"),
            ("0044-03-15 BC", "fff49d7b"),
            ("10000-01-01", "002c95d4"),
            ("infinity", "7fffffff"),
            ("-infinity", "80000000"),
            ("1970-01-01", "ffffd533"),
            ("0001-01-01", "fff4dbf9"),
        ],
    );
    check(
        DataType::Timestamp(TimeUnit::Microsecond, None),
        &[
            ("2000-01-01 00:00:00", "0000000000000000"),
            ("1997-12-17 07:37:16.5", "ffffc57b8b916420"),
            ("0044-03-15 12:00:00 BC", "ff1af9e8fb46d000"),
            ("infinity", "7fffffffffffffff"),
            ("1969-12-31 23:59:59.999999", "fffca2fec4c81fff"),
        ],
    );
    check(
        DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        &[("1997-12-17 07:37:16.5+00", "ffffc57b8b916420")],
    );
    check(
        DataType::Timestamp(TimeUnit::Millisecond, None),
        &[("1997-12-17 07:37:16.5", "ffffc57b8b916420")],
    );
    check(
        DataType::Time64(TimeUnit::Microsecond),
        &[("07:37:16.5", "000000066357c420"), ("24:00:00", "000000141dd76000")],
    );
    check(
        DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano),
        &[("1 year 2 mons 3 days 04:05:06.7", "000000036c966ee0000000030000000e")],
    );
}

#[test]
fn time_zones_and_date_styles() {
    let moment = parse_text(
        "1997-12-17 15:37:16+00",
        &DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
    )
    .expect("a timestamptz");
    let field = Field::new("x", moment.data_type().clone(), true);
    let day = parse_text("1997-12-17", &DataType::Date32).expect("a date");
    let shown = |zone: &str, date_style, date_order| {
        let style = TextStyle {
            date_style,
            date_order,
            time_zone: TimeZone::parse(zone).expect("a zone"),
            ..TextStyle::default()
        };
        let moment = text_value(moment.as_ref(), 0, &field, &style);
        let day = text_value(day.as_ref(), 0, &Field::new("x", DataType::Date32, true), &style);
        (moment.expect("not NULL"), day.expect("not NULL"))
    };
    let angeles = "america/los_angeles";
    for (zone, style, order, moment, day) in [
        (angeles, DateStyle::Iso, DateOrder::Mdy, "1997-12-17 07:37:16-08", "1997-12-17"),
        (angeles, DateStyle::Sql, DateOrder::Mdy, "12/17/1997 07:37:16-08", "12/17/1997"),
        (angeles, DateStyle::Sql, DateOrder::Dmy, "17/12/1997 07:37:16-08", "17/12/1997"),
        (angeles, DateStyle::Postgres, DateOrder::Mdy, "Wed Dec 17 07:37:16 1997-08", "12-17-1997"),
        (angeles, DateStyle::Postgres, DateOrder::Dmy, "Wed 17 Dec 07:37:16 1997-08", "17-12-1997"),
        (angeles, DateStyle::German, DateOrder::Dmy, "17.12.1997 07:37:16-08", "17.12.1997"),
        ("Asia/Kolkata", DateStyle::Iso, DateOrder::Mdy, "1997-12-17 21:07:16+05:30", "1997-12-17"),
        (
            "America/St_Johns",
            DateStyle::Iso,
            DateOrder::Mdy,
            "1997-12-17 12:07:16-03:30",
            "1997-12-17",
        ),
        ("+09:00", DateStyle::Iso, DateOrder::Mdy, "1997-12-18 00:37:16+09", "1997-12-17"),
    ] {
        assert_eq!(shown(zone, style, order), (moment.to_owned(), day.to_owned()));
    }
    assert!(TimeZone::parse("Mars/Olympus").is_none());
    let old = parse_text("1883-11-18 12:00+00", field.data_type()).expect("a timestamptz");
    let style = TextStyle {
        time_zone: TimeZone::parse("America/New_York").expect("a zone"),
        ..TextStyle::default()
    };
    assert_eq!(
        text_value(old.as_ref(), 0, &field, &style).as_deref(),
        Some("1883-11-18 07:03:58-04:56:02")
    );
}

#[test]
fn dates_in_other_words() {
    let date = |text| parse_text(text, &DataType::Date32);
    let field = Field::new("x", DataType::Date32, true);
    for text in [
        "Jan 8, 1999",
        "January 8, 1999",
        "8 Jan 1999",
        "1999-Jan-08",
        "1/8/1999",
        "19990108",
        "1999.01.08",
        "1999/1/8",
        " 1999-01-08 ",
        "1999-01-08 12:34:56",
        "1999-01-08 +00",
        "1999-01-08 12:34:56-08:00",
    ] {
        let read = date(text).expect("PostgreSQL reads it");
        assert_eq!(text_of(read.as_ref(), &field), "1999-01-08", "{text}");
    }
    for (text, code) in [
        ("", SqlState::INVALID_DATETIME_FORMAT),
        ("1999", SqlState::INVALID_DATETIME_FORMAT),
        ("1999-13-01", SqlState::DATETIME_FIELD_OVERFLOW),
        ("1999-02-29", SqlState::DATETIME_FIELD_OVERFLOW),
        ("0000-01-01", SqlState::DATETIME_FIELD_OVERFLOW),
        ("99999999-01-01", SqlState::DATETIME_FIELD_OVERFLOW),
        ("Smarch 1, 1999", SqlState::INVALID_DATETIME_FORMAT),
        ("1999-01-08 nonsense", SqlState::INVALID_DATETIME_FORMAT),
    ] {
        assert_eq!(date(text).expect_err("refused").code, code, "{text}");
    }

    let data_type = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let field = Field::new("x", data_type.clone(), true);
    for (text, expected) in [
        ("2024-02-29 12:00:00+09", "2024-02-29 03:00:00+00"),
        ("2024-02-29T12:00:00Z", "2024-02-29 12:00:00+00"),
        ("2024-02-29 12:00 Asia/Seoul", "2024-02-29 03:00:00+00"),
        ("2024-02-29 12:00 America/Lima", "2024-02-29 17:00:00+00"),
        ("2024-02-29 12:00:00.1234567-03:30", "2024-02-29 15:30:00.123457+00"),
        ("2024-02-29", "2024-02-29 00:00:00+00"),
        ("2024-02-29 12:00 PM", "2024-02-29 12:00:00+00"),
        ("20240229T120000", "2024-02-29 12:00:00+00"),
        ("2024-02-29 24:00:00", "2024-03-01 00:00:00+00"),
        ("2024-02-29 23:59:60", "2024-03-01 00:00:00+00"),
        ("2024-02-29 12:00:00 utc", "2024-02-29 12:00:00+00"),
    ] {
        let read = parse_text(text, &data_type).expect("PostgreSQL reads it");
        assert_eq!(text_of(read.as_ref(), &field), expected, "{text}");
    }
    for text in [
        "2024-02-29 25:00",
        "2024-02-29 12:60",
        "2024-02-29 12:00 Nowhere",
        "2024-02-29 12",
        "12:00",
    ] {
        assert!(parse_text(text, &data_type).is_err(), "{text}");
    }
    let seoul = TimeZone::parse("Asia/Seoul").expect("a zone");
    let local = parse_text_in("2024-02-29 12:00", &data_type, &seoul).expect("a local time");
    assert_eq!(text_of(local.as_ref(), &field), "2024-02-29 03:00:00+00");
}

#[test]
fn strings_bytes_and_uuids() {
    check(DataType::Utf8, &[("", ""), ("안녕", "ec9588eb8595")]);
    check_field(&named(DataType::Utf8, "jsonb"), "{\"a\": 1}", "017b2261223a20317d");
    check_field(&named(DataType::Utf8, "name"), "pg_class", "70675f636c617373");
    check(DataType::Binary, &[("\\x", ""), ("\\x0041ff5c", "0041ff5c")]);
    check(
        DataType::FixedSizeBinary(16),
        &[("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "a0eebc999c0b4ef8bb6d6bb9bd380a11")],
    );
    for text in ["{A0EEBC99-9C0B4EF8-BB6D6BB9-BD380A11}", "a0eebc999c0b4ef8bb6d6bb9bd380a11"] {
        let read = parse_text(text, &DataType::FixedSizeBinary(16)).expect("a uuid");
        let field = Field::new("x", DataType::FixedSizeBinary(16), true);
        assert_eq!(text_of(read.as_ref(), &field), "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11");
    }
    for text in
        ["", "a0eebc99", "a0e-ebc999c0b4ef8bb6d6bb9bd380a11", "{a0eebc999c0b4ef8bb6d6bb9bd380a11"]
    {
        assert!(parse_text(text, &DataType::FixedSizeBinary(16)).is_err(), "{text}");
    }
    let bytes = parse_text("\\000A\\377\\\\", &DataType::Binary).expect("the escape form");
    let style = TextStyle { bytea_output: ByteaOutput::Escape, ..TextStyle::default() };
    let field = Field::new("x", DataType::Binary, true);
    assert_eq!(text_value(bytes.as_ref(), 0, &field, &style).as_deref(), Some("\\000A\\377\\\\"));
    for text in ["\\x0", "\\xzz", "\\9", "\\400"] {
        assert!(parse_text(text, &DataType::Binary).is_err(), "{text}");
    }
}

fn list_type(element: DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(element, true)))
}

#[test]
fn arrays() {
    check(
        list_type(DataType::Int32),
        &[
            (
                "{1,NULL,3}",
                "00000001000000010000001700000003000000010000000400000001ffffffff0000000400000003",
            ),
            ("{}", "000000000000000000000017"),
        ],
    );
    check(
        list_type(list_type(DataType::Int32)),
        &[(
            "{{1,2},{3,4}}",
            "000000020000000000000017000000020000000100000002000000010000000400000001000000040000000200000004000000030000000400000004",
        )],
    );
    check(
        list_type(DataType::Utf8),
        &[("{a,NULL,\"\"}", "00000001000000010000001900000003000000010000000161ffffffff00000000")],
    );
    let field = Field::new("x", list_type(DataType::Utf8), true);
    let quoted = "{\"a b\",\"\",\"NULL\",\"a\\\"b\",\"a\\\\b\",\"{\",\"x,y\",NULL,\"a\tb\",plain}";
    let read = parse_text(quoted, field.data_type()).expect("an array");
    assert_eq!(text_of(read.as_ref(), &field), quoted);
    let spaced = parse_text(" { a b , \\NULL , c } ", field.data_type()).expect("an array");
    assert_eq!(text_of(spaced.as_ref(), &field), "{\"a b\",\"NULL\",c}");
    let bounds = parse_text("[2:3]={1,2}", &list_type(DataType::Int32)).expect("an array");
    assert_eq!(
        text_of(bounds.as_ref(), &Field::new("x", list_type(DataType::Int32), true)),
        "{1,2}"
    );
    for text in ["", "{", "}", "{1,}", "{,1}", "{1}2", "1", "{\"a}", "{{1},2}", "{1{2}}"] {
        let error = parse_text(text, &list_type(DataType::Int32)).expect_err("malformed");
        assert_eq!(error.code, SqlState::INVALID_TEXT_REPRESENTATION, "{text}");
    }
    let deep = "{".repeat(100_000);
    assert!(parse_text(&deep, &list_type(DataType::Int32)).is_err());
}

#[test]
fn ragged_arrays_have_no_binary_form() {
    let inner = ListArray::new(
        Arc::new(Field::new_list_field(DataType::Int32, true)),
        OffsetBuffer::from_lengths([1, 2]),
        Arc::new(Int32Array::from(vec![1, 2, 3])),
        None,
    );
    let field = Arc::new(Field::new_list_field(inner.data_type().clone(), true));
    let outer = ListArray::new(field, OffsetBuffer::from_lengths([2]), Arc::new(inner), None);
    let field = Field::new("x", outer.data_type().clone(), true);
    assert_eq!(text_of(&outer, &field), "{{1},{2,3}}");
    assert_eq!(
        binary_of(&outer, &field).expect_err("ragged").code,
        SqlState::ARRAY_SUBSCRIPT_ERROR
    );
}

#[test]
fn system_vectors() {
    let int2vector = named(list_type(DataType::Int16), "int2vector");
    let value = parse_text("{1,2}", int2vector.data_type()).expect("an array");
    assert_eq!(text_of(value.as_ref(), &int2vector), "1 2");
    assert_eq!(
        binary_of(value.as_ref(), &int2vector).expect("binary"),
        "0000000100000000000000150000000200000000000000020001000000020002"
    );
    let oidvector = named(list_type(DataType::Int64), "oidvector");
    let value = parse_text("{1,2}", oidvector.data_type()).expect("an array");
    assert_eq!(text_of(value.as_ref(), &oidvector), "1 2");
    assert_eq!(
        binary_of(value.as_ref(), &oidvector).expect("binary"),
        "00000001000000000000001a000000020000000000000004000000010000000400000002"
    );
}

#[test]
fn vectors_have_the_forms_of_pgvector() {
    let vector = |length| {
        DataType::FixedSizeList(Arc::new(Field::new_list_field(DataType::Float32, true)), length)
    };
    check(vector(3), &[("[1,2.5,-3]", "000300003f80000040200000c0400000")]);
    // A vector whose length is not known takes any.
    let any = parse_text("[1,2]", &vector(0)).expect("any length");
    assert_eq!(any.data_type(), &vector(2));
    assert_eq!(data_type(VECTOR_OID), Some(vector(0)));
    let zone = TimeZone::utc();
    let received = read_parameter(
        Some(&from_hex("000100003f800000")),
        Format::Binary,
        VECTOR_OID,
        &vector(0),
        &zone,
    )
    .expect("any length");
    assert_eq!(received.data_type(), &vector(1));
    for (text, code) in [
        ("[1,2]", SqlState::DATA_EXCEPTION),
        ("[]", SqlState::DATA_EXCEPTION),
        ("[1,NaN,2]", SqlState::DATA_EXCEPTION),
        ("[1,-Infinity,2]", SqlState::DATA_EXCEPTION),
        ("[1,1e39,2]", SqlState::NUMERIC_VALUE_OUT_OF_RANGE),
        ("[1,,2]", SqlState::INVALID_TEXT_REPRESENTATION),
        ("[1,2,x]", SqlState::INVALID_TEXT_REPRESENTATION),
        ("1,2,3", SqlState::INVALID_TEXT_REPRESENTATION),
    ] {
        let error = parse_text(text, &vector(3)).expect_err("refused");
        assert_eq!(error.code, code, "{text}");
    }
    let long = |length| format!("[{}]", vec!["0"; length].join(","));
    assert_eq!(parse_vector(&long(16_000)).expect("the longest").len(), 16_000);
    let error = parse_vector(&long(16_001)).expect_err("refused");
    assert_eq!(error.code, SqlState::PROGRAM_LIMIT_EXCEEDED);
    // A length of 16,001 and of 0, in binary.
    for (bytes, code) in
        [("3e810000", SqlState::PROGRAM_LIMIT_EXCEEDED), ("00000000", SqlState::DATA_EXCEPTION)]
    {
        let bytes = from_hex(bytes);
        let read = read_parameter(Some(&bytes), Format::Binary, VECTOR_OID, &vector(0), &zone);
        assert_eq!(read.expect_err("refused").code, code);
    }
    let vectors = list_type(vector(2));
    let field = Field::new("x", vectors.clone(), true);
    let value = list_of_vectors();
    assert_eq!(text_of(value.as_ref(), &field), "{\"[1,2]\",\"[3,4]\"}");
    assert_eq!(
        binary_of(value.as_ref(), &field).expect("binary"),
        "000000010000000000004001000000020000000100\
         00000c000200003f800000400000000000000c000200004040000040800000"
            .replace(' ', "")
    );
}

fn list_of_vectors() -> ArrayRef {
    let element = Arc::new(Field::new_list_field(DataType::Float32, true));
    let vectors = arrow::array::FixedSizeListArray::new(
        element,
        2,
        Arc::new(Float32Array::from(vec![1.0, 2.0, 3.0, 4.0])),
        None,
    );
    let field = Arc::new(Field::new_list_field(vectors.data_type().clone(), true));
    Arc::new(ListArray::new(field, OffsetBuffer::from_lengths([2]), Arc::new(vectors), None))
}

#[test]
fn what_only_results_hold() {
    let strings: DictionaryArray<Int32Type> = vec![Some("a"), None].into_iter().collect();
    let field = Field::new("x", strings.data_type().clone(), true);
    assert_eq!(type_oid(&field), 25);
    assert_eq!(text_of(&strings, &field), "a");
    assert_eq!(text_value(&strings, 1, &field, &TextStyle::default()), None);
    assert_eq!(binary_of(&strings, &field).expect("binary"), "61");

    let columns: Vec<(&str, ArrayRef)> = vec![
        ("a", Arc::new(Int32Array::from(vec![1]))),
        ("b", Arc::new(StringArray::from(vec!["a b"]))),
        ("c", Arc::new(StringArray::from(vec![None::<&str>]))),
        ("d", Arc::new(StringArray::from(vec![""]))),
        ("e", Arc::new(StringArray::from(vec!["x\"y"]))),
        ("f", Arc::new(StringArray::from(vec!["a\\b"]))),
        ("g", Arc::new(StringArray::from(vec!["("]))),
    ];
    let row = StructArray::try_from(columns).expect("columns of one length");
    let field = Field::new("x", row.data_type().clone(), true);
    assert_eq!(text_of(&row, &field), "(1,\"a b\",,\"\",\"x\"\"y\",\"a\\\\b\",\"(\")");

    let field = Field::new("x", DataType::UInt64, true);
    let large = UInt64Array::from(vec![u64::MAX]);
    assert_eq!(text_of(&large, &field), "18446744073709551615");
    assert_eq!(
        binary_of(&large, &field).expect_err("beyond bigint").code,
        SqlState::NUMERIC_VALUE_OUT_OF_RANGE
    );
    assert_eq!(binary_of(&UInt64Array::from(vec![7]), &field).expect("fits"), "0000000000000007");

    let class = named(DataType::Utf8, "regclass");
    let by_name = StringArray::from(vec!["pg_class"]);
    assert_eq!(
        binary_of(&by_name, &class).expect_err("no number").code,
        SqlState::FEATURE_NOT_SUPPORTED
    );
    let by_number = Int64Array::from(vec![1259]);
    assert_eq!(
        binary_of(&by_number, &named(DataType::Int64, "regclass")).expect("a number"),
        "000004eb"
    );
}

#[test]
fn money_is_shown_in_dollars() {
    let field = named(DataType::Decimal128(19, 2), "money");
    for (text, shown) in
        [("-1234567.89", "-$1,234,567.89"), ("0", "$0.00"), ("999.999", "$1,000.00")]
    {
        let value = parse_text(text, field.data_type()).expect("a numeric");
        assert_eq!(text_of(value.as_ref(), &field), shown);
    }
    let bytes = from_hex("ffffffffffffff85");
    let zone = TimeZone::utc();
    let received = read_parameter(Some(&bytes), Format::Binary, 790, field.data_type(), &zone)
        .expect("eight bytes");
    assert_eq!(text_of(received.as_ref(), &field), "-$1.23");
    assert_eq!(binary_of(received.as_ref(), &field).expect("binary"), "ffffffffffffff85");
}

#[test]
fn words_for_booleans() {
    let read = |text| {
        parse_text(text, &DataType::Boolean)
            .map(|value| text_of(value.as_ref(), &Field::new("x", DataType::Boolean, true)))
    };
    for text in ["t", "TRUE", "tr", "yes", "y", "on", "1", " true "] {
        assert_eq!(read(text).as_deref(), Ok("t"), "{text}");
    }
    for text in ["f", "False", "n", "no", "of", "off", "0"] {
        assert_eq!(read(text).as_deref(), Ok("f"), "{text}");
    }
    for text in ["", "o", "2", "truee", "yess"] {
        assert!(read(text).is_err(), "{text}");
    }
}

#[test]
fn integers_in_other_forms() {
    let read = |text| {
        parse_text(text, &DataType::Int16)
            .map(|value| text_of(value.as_ref(), &Field::new("x", DataType::Int16, true)))
            .map_err(|error| error.code)
    };
    for (text, value) in [
        (" 42 ", "42"),
        ("+7", "7"),
        ("0x10", "16"),
        ("-0b11", "-3"),
        ("0o17", "15"),
        ("1_000", "1000"),
    ] {
        assert_eq!(read(text).as_deref(), Ok(value), "{text}");
    }
    for text in ["", "-", "1.5", "1__0", "_1", "1_", "0x", "--1", "1 2", "١"] {
        assert_eq!(read(text), Err(SqlState::INVALID_TEXT_REPRESENTATION), "{text}");
    }
    for text in ["32768", "-32769", "99999999999999999999999999999999999999999"] {
        assert_eq!(read(text), Err(SqlState::NUMERIC_VALUE_OUT_OF_RANGE), "{text}");
    }
    for text in ["1e400", "-1e400", "1e-400"] {
        let error = parse_text(text, &DataType::Float64).expect_err("out of range");
        assert_eq!(error.code, SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "{text}");
    }
    assert!(parse_text("0e-400", &DataType::Float64).is_ok());
}

/// Reading never panics, whatever the bytes are.
#[test]
fn arbitrary_bytes_are_read_or_refused() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let oids: Vec<u32> = (0..6000)
        .chain([VECTOR_OID, VECTOR_ARRAY_OID])
        .filter(|oid| data_type(*oid).is_some())
        .collect();
    assert!(oids.len() > 60);
    let zone = TimeZone::utc();
    for _ in 0..200 {
        for oid in &oids {
            let length = (random() % 40) as usize;
            let bytes: Vec<u8> = (0..length)
                .map(|_| if random() % 2 == 0 { (random() % 4) as u8 } else { random() as u8 })
                .collect();
            let wanted = data_type(*oid).expect("known");
            for format in [Format::Binary, Format::Text] {
                if let Ok(array) = read_parameter(Some(&bytes), format, *oid, &wanted, &zone) {
                    assert_eq!(array.len(), 1);
                    let field = named(array.data_type().clone(), type_name(*oid).expect("known"));
                    let _ = text_value(array.as_ref(), 0, &field, &TextStyle::default());
                    let _ = binary_of(array.as_ref(), &field);
                }
            }
        }
    }
}
