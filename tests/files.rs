//! The files that golden files read: data in every format that COPY takes, and bad input of every kind.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Float32Array, Float64Array, Int32Array,
    Int64Array, ListArray, RecordBatch, StringArray, StructArray, TimestampMicrosecondArray,
    UInt64Array,
};
use arrow::datatypes::{DataType, Field, Float32Type};
use flate2::Compression;
use flate2::write::GzEncoder;
use parquet::arrow::ArrowWriter;

/// Writes `copy` and `bad` into the data root. The drawn digits must be there.
pub(crate) fn prepare(data: &Path) {
    copy(&data.join("copy"));
    bad(data);
}

fn copy(folder: &Path) {
    fs::create_dir(folder).unwrap();
    let texts: &[(&str, &[u8])] = &[
        (
            "types.csv",
            b"id,ok,ratio,big,day,moment,zoned,code,note\n\
              1,true,0.5,1,2022-06-01,2022-06-01 12:30:00,2022-06-01 12:30:00+09,007,plain\n\
              2,false,-1e3,99999999999999999999,2024-02-29,2022-06-01,2022-06-01T03:30:00Z,8,\"say \"\"hi\"\", \nand go\"\n\
              3,,,,,,,,\"\"\n",
        ),
        (
            "사람.csv",
            "\u{feff}이름,\"나이 (세)\",\"a \"\"b\"\"\"\r\n\"홍 길동\",30,x\r\n\r\n김,,y\r\n".as_bytes(),
        ),
        ("more.csv", b"note,id\nnew,10\n,11\n"),
        ("extra.csv", b"id,nope\n1,2\n"),
        ("wrong.csv", b"id,note\n1,a\n\n2,b\nmany,c\n"),
        ("null.csv", b"id,note\n1,a\n,b\n"),
        ("long.csv", b"id,note\n1,a\n2,much too long\n"),
        ("short_line.csv", b"a,b\n1,2\n3\n"),
        ("long_line.csv", b"a,b\n1,2\n3,4,5\n"),
        ("quote.csv", b"a,b\n1,\"never closed\n2,x\n"),
        ("latin1.csv", b"a,b\n1,caf\xe9\n"),
        ("empty.csv", b""),
        ("header.csv", b"a,b\n"),
        ("duplicate.csv", b"a,b,a\n1,2,3\n"),
        ("unnamed.csv", b"a,,c\n1,2,3\n"),
        ("unknown.xyz", b"a,b\n1,2\n"),
        (
            "rows.json",
            br#"[{"id": 1, "name": "a", "ok": true, "ratio": 1, "tags": ["x", null], "deep": {"b": [1, {"c": null}]}},
                 {"name": "b", "id": 2, "ratio": 0.5, "tags": [], "mixed": 7},
                 {"id": null, "mixed": "seven", "vec": [1, 2.5, 3]}]"#,
        ),
        ("lines.jsonl", "{\"id\": 5, \"이름\": \"가\"}\n{\"id\": 6}\n\n".as_bytes()),
        ("vectors.ndjson", b"{\"id\": 1, \"v\": [1, 2, 3]}\n{\"id\": 2, \"v\": [4, 5]}\n"),
        ("typed.json", br#"[{"id": "7", "day": "2022-06-01", "v": [1, 2, 3], "note": 5}]"#),
        ("broken.json", b"[{\"a\": 1},\n {\"a\": 2,}\n]"),
        ("twice.json", br#"[{"a": 1, "a": 2}]"#),
        ("scalar.json", b"[1, 2]"),
        ("nothing.json", b"[]"),
        ("words.txt", b"1\tone\n2\t\\N\n"),
        ("words.csv", b"a;b\n1;\"on;e\"\n2;\n3;skip\n"),
        ("defaults.csv", b"1,\\D\n2,x\n"),
        ("broken.parquet", b"PAR1 this is none PAR1"),
    ];
    for (name, bytes) in texts {
        fs::write(folder.join(name), bytes).unwrap();
    }
    let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>([
        Some(vec![Some(1.0), Some(2.0), Some(3.0)]),
        None,
    ]));
    parquet(
        &folder.join("types.parquet"),
        vec![
            ("id", Arc::new(Int32Array::from(vec![1, 2]))),
            ("이름", Arc::new(StringArray::from(vec![Some("가"), None]))),
            ("ok", Arc::new(BooleanArray::from(vec![true, false]))),
            ("real", Arc::new(Float32Array::from(vec![0.5, 1.5]))),
            ("double", Arc::new(Float64Array::from(vec![Some(0.25), None]))),
            ("day", Arc::new(Date32Array::from(vec![0, 19_000]))),
            ("moment", Arc::new(TimestampMicrosecondArray::from(vec![0, 1_500_000]))),
            ("bytes", Arc::new(BinaryArray::from_vec(vec![b"\x00\xff", b""]))),
            ("list", lists),
            ("unsigned", Arc::new(UInt64Array::from(vec![1, 2]))),
        ],
    );
    parquet(
        &folder.join("more.parquet"),
        vec![
            ("id", Arc::new(Int64Array::from(vec![Some(20), Some(21)]))),
            ("note", Arc::new(StringArray::from(vec!["p", "q"]))),
        ],
    );
    parquet(&folder.join("texts.parquet"), vec![("id", Arc::new(StringArray::from(vec!["30"])))]);
    parquet(
        &folder.join("large.parquet"),
        vec![("id", Arc::new(Int64Array::from(vec![1, 3_000_000_000])))],
    );
    let inner: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let group = StructArray::from(vec![(Arc::new(Field::new("x", DataType::Int64, true)), inner)]);
    parquet(&folder.join("group.parquet"), vec![("그룹", Arc::new(group))]);
    let whole = fs::read(folder.join("types.parquet")).unwrap();
    fs::write(folder.join("cut.parquet"), &whole[..whole.len() / 2]).unwrap();
}

fn parquet(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    let columns = columns.into_iter().map(|(name, array)| (name, array, true));
    let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    let file = fs::File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn bad(data: &Path) {
    let folder = data.join("bad");
    for name in ["empty", "text", "cut", "huge", "one", "sizes", "mixed"] {
        fs::create_dir_all(folder.join(name)).unwrap();
    }
    let digit = |id: usize| fs::read(data.join(format!("digits/train_data/{id}.jpg"))).unwrap();
    let whole = digit(0);
    fs::write(folder.join("text/글.jpg"), "this is no image, 이것은 글이다").unwrap();
    fs::write(folder.join("cut/깨진.jpg"), &whole[..whole.len() / 2]).unwrap();
    fs::write(folder.join("huge/huge.png"), png_header(30_000, 30_000)).unwrap();
    fs::write(folder.join("one/0.jpg"), &whole).unwrap();
    for (index, (width, height)) in [(28, 28), (7, 40), (100, 20), (1, 1)].into_iter().enumerate() {
        fs::write(folder.join(format!("sizes/{index}.pgm")), gray(width, height)).unwrap();
    }
    for id in 0..6 {
        fs::write(folder.join(format!("mixed/{id}.jpg")), digit(id)).unwrap();
    }
    fs::write(folder.join("mixed/6.jpg"), "no image").unwrap();
    fs::write(folder.join("mixed/7.jpg"), b"").unwrap();
    // Beside the data root, and a link to it from inside.
    let outside = data.with_file_name("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret.jpg"), &whole).unwrap();
    fs::write(outside.join("secret.csv"), "a\n1\n").unwrap();
    std::os::unix::fs::symlink(&outside, folder.join("link")).unwrap();
    std::os::unix::fs::symlink(outside.join("secret.jpg"), folder.join("link.jpg")).unwrap();
}

/// A PNG that claims a size and holds nothing.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    let chunk = |kind: &[u8; 4], data: &[u8]| -> Vec<u8> {
        let body = [kind.as_slice(), data].concat();
        let mut sum = flate2::Crc::new();
        sum.update(&body);
        [&(data.len() as u32).to_be_bytes()[..], &body, &sum.sum().to_be_bytes()].concat()
    };
    // Eight bits, grey, and the only compression, filter and no interlacing.
    let size = [width.to_be_bytes(), height.to_be_bytes()].concat();
    bytes.extend(chunk(b"IHDR", &[size.as_slice(), &[8, 0, 0, 0, 0]].concat()));
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(b"nothing").unwrap();
    bytes.extend(chunk(b"IDAT", &packed.finish().unwrap()));
    bytes.extend(chunk(b"IEND", b""));
    bytes
}

/// A grey image in PNM's form.
fn gray(width: usize, height: usize) -> Vec<u8> {
    let mut bytes = format!("P5\n{width} {height}\n255\n").into_bytes();
    bytes.extend((0..width * height).map(|at| (at * 37 % 256) as u8));
    bytes
}
