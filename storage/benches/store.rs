//! What the store costs: `cargo bench -p thanosql-storage`. Prints one line a measurement.
//!
//! A program of its own and no statistics framework: the figures are of the disk as much as of the processor, and the ratio
//! that matters (a flush against a bare `fdatasync`, a scan against memory) is printed beside each.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{
    ArrayRef, AsArray, FixedSizeListArray, Float32Array, Int64Array, RecordBatch, StringArray,
};
use arrow::datatypes::{DataType, Field, Float32Type, Schema, SchemaRef};
use thanosql_storage::{Store, StoreOptions};

const VECTORS: usize = 60_000;

fn main() {
    let folder =
        tempfile::tempdir_in(std::env::var("STORAGE_BENCH_FOLDER").unwrap_or(".".to_owned()))
            .unwrap();
    let options = StoreOptions { sled_cache_bytes: 32 << 20, column_cache_bytes: 1 << 30 };
    let open = || Store::open(&folder.path().join("store"), options).unwrap();

    let fsync = bare_fdatasync(folder.path());
    println!("bare fdatasync of 4 KiB: {fsync:?}");

    let store = open();
    let mut transaction = store.begin();
    transaction.create_table("t", rows_schema()).unwrap();
    transaction.commit().unwrap();
    let commits = 2000;
    let mut times = Vec::new();
    for key in 0..commits {
        let start = Instant::now();
        let mut transaction = store.begin();
        transaction.append("t", &rows(key)).unwrap();
        transaction.commit().unwrap();
        times.push(start.elapsed());
    }
    times.sort();
    println!(
        "single-row commit: median {:?}, 99 % {:?}, mean {:?}; {} row groups",
        times[times.len() / 2],
        times[times.len() * 99 / 100],
        times.iter().sum::<Duration>() / commits as u32,
        store.snapshot().table("t").unwrap().groups()
    );

    let threads = 16;
    let each = 100;
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                for key in 0..each {
                    let mut transaction = store.begin();
                    transaction.append("t", &rows(key)).unwrap();
                    transaction.commit().unwrap();
                }
            });
        }
    });
    let per_second = f64::from(threads) * each as f64 / start.elapsed().as_secs_f64();
    println!("{threads} threads: {per_second:.0} single-row commits/s");

    for dim in [128, 512] {
        let name = format!("v{dim}");
        let batches = vectors(dim);
        let bytes = (VECTORS * dim * 4) as f64;
        let start = Instant::now();
        let mut transaction = store.begin();
        transaction.create_table(&name, vectors_schema(dim)).unwrap();
        for batch in &batches {
            transaction.append(&name, batch).unwrap();
        }
        let written = start.elapsed();
        transaction.commit().unwrap();
        println!(
            "{VECTORS} x {dim} floats: {:?} to commit ({:?} of it the commit), {:.0} MB/s",
            start.elapsed(),
            start.elapsed() - written,
            bytes / 1e6 / start.elapsed().as_secs_f64()
        );
    }
    println!("on disk: {:.0} MB", store.size_on_disk().unwrap() as f64 / 1e6);
    drop(store);

    let start = Instant::now();
    let store = open();
    println!("reopening: {:?}", start.elapsed());
    for dim in [128, 512] {
        let bytes = (VECTORS * dim * 4) as f64;
        for attempt in ["cold", "cached"] {
            let start = Instant::now();
            let table = store.snapshot().table(&format!("v{dim}")).unwrap();
            let mut sum = 0.0;
            for group in 0..table.groups() {
                let batch = table.read_group(group, Some(&[0])).unwrap();
                let values = batch.column(0).as_fixed_size_list().values();
                sum += values.as_primitive::<Float32Type>().values().iter().sum::<f32>();
            }
            println!(
                "{attempt} scan with a sum, {dim} floats: {:?}, {:.1} GB/s ({sum})",
                start.elapsed(),
                bytes / 1e9 / start.elapsed().as_secs_f64()
            );
        }
    }
    println!("peak memory: {}", status("VmHWM"));
    drop(store);
    println!("memory after closing: {}", status("VmRSS"));
}

fn bare_fdatasync(folder: &std::path::Path) -> Duration {
    let mut file = std::fs::File::create(folder.join("bare")).unwrap();
    let start = Instant::now();
    for _ in 0..50 {
        file.write_all(&[1; 4096]).unwrap();
        file.sync_data().unwrap();
    }
    start.elapsed() / 50
}

fn rows_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("key", DataType::Int64, false),
        Field::new("text", DataType::Utf8, true),
        Field::new("number", DataType::Float32, true),
    ]))
}

fn rows(key: i64) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![key])),
        Arc::new(StringArray::from(vec![format!("row {key}")])),
        Arc::new(Float32Array::from(vec![key as f32])),
    ];
    RecordBatch::try_new(rows_schema(), columns).unwrap()
}

fn vectors_schema(dim: usize) -> SchemaRef {
    let item = Arc::new(Field::new("item", DataType::Float32, true));
    Arc::new(Schema::new(vec![Field::new("v", DataType::FixedSizeList(item, dim as i32), true)]))
}

fn vectors(dim: usize) -> Vec<RecordBatch> {
    let item = Arc::new(Field::new("item", DataType::Float32, true));
    (0..VECTORS)
        .step_by(1000)
        .map(|start| {
            let values = (0..1000 * dim).map(|at| ((start + at) % 1009) as f32 / 1009.0);
            let values = Arc::new(Float32Array::from_iter_values(values));
            let list = FixedSizeListArray::new(Arc::clone(&item), dim as i32, values, None);
            RecordBatch::try_new(vectors_schema(dim), vec![Arc::new(list)]).unwrap()
        })
        .collect()
}

fn status(field: &str) -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(field));
    line.map_or("unknown".to_owned(), |line| {
        line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
    })
}
