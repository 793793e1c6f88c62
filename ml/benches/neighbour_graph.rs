//! How fast a graph of neighbours is built and searched, how much of the nearest it finds, and when it beats comparing all.
//!
//! The vectors are drawn digits through a random projection to 128 numbers, so that they lie near each other as embeddings do and not as
//! noise does. `THANOSQL_BENCH_VECTORS` sets how many, 20,000 unless told otherwise.

#![allow(clippy::print_stdout)] // figures are what a benchmark is for

use std::time::Instant;

use thanosql_ml::digits::draw_digit;
use thanosql_ml::neighbour_graph::{Builder, GraphMetric, GraphOptions, NeighbourGraph};
use thanosql_ml::quality::Gallery;

const DIM: usize = 128;
const QUERIES: usize = 500;
const NEAREST: usize = 10;

fn main() {
    let count = std::env::var("THANOSQL_BENCH_VECTORS").ok().and_then(|text| text.parse().ok());
    let count: usize = count.unwrap_or(20_000);
    let vectors = vectors(count + QUERIES);
    let (vectors, queries) = vectors.split_at(count * DIM);
    let options = GraphOptions::default();
    let mut graph = NeighbourGraph::new(GraphMetric::Cosine, DIM, options).expect("the defaults");
    let mut builder = Builder::default();
    let started = Instant::now();
    for vector in vectors.chunks_exact(DIM) {
        graph.insert(vector, &mut builder);
    }
    let seconds = started.elapsed().as_secs_f64();
    graph.shrink();
    println!(
        "{count} vectors of {DIM} numbers: built in {seconds:.1} s, {:.0} vectors/s, {} MiB",
        count as f64 / seconds,
        graph.memory() >> 20
    );
    let bytes = graph.to_bytes();
    let started = Instant::now();
    let read = NeighbourGraph::from_bytes(&bytes).expect("a graph");
    println!("read back in {:.2} s, {} MiB", started.elapsed().as_secs_f64(), bytes.len() >> 20);
    assert_eq!(read.len(), count);

    let gallery = Gallery::new(vectors, DIM);
    let started = Instant::now();
    let exact: Vec<Vec<u32>> = queries
        .chunks_exact(DIM)
        .map(|query| {
            let nearest = gallery.nearest(query, NEAREST, |_| None, &|| false);
            let nearest = nearest.expect("it was not stopped").remove(0);
            nearest.into_iter().map(|near| near.index).collect()
        })
        .collect();
    let all = QUERIES as f64 / started.elapsed().as_secs_f64();
    println!("comparing all: {all:.0} queries/s");
    for breadth in [NEAREST, 40, 100, 200, 400] {
        let started = Instant::now();
        let mut found = 0;
        for (query, exact) in queries.chunks_exact(DIM).zip(&exact) {
            let near = graph.nearest(query, breadth, |_| true, &|| false).expect("not stopped");
            let near = near.iter().take(NEAREST);
            found += near.filter(|near| exact.contains(&near.node)).count();
        }
        let rate = QUERIES as f64 / started.elapsed().as_secs_f64();
        println!(
            "ef_search {breadth}: recall@{NEAREST} {:.1} %, {rate:.0} queries/s, {:.1} times as many",
            100.0 * found as f64 / (NEAREST * QUERIES) as f64,
            rate / all
        );
    }
}

/// `[count, DIM]`
fn vectors(count: usize) -> Vec<f32> {
    let mut state = 1_u64;
    let mut signs = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        if state >> 63 == 0 { 1.0 } else { -1.0 }
    };
    let pixels = 28 * 28;
    let projection: Vec<f32> = (0..pixels * DIM).map(|_| signs()).collect();
    let mut vectors = Vec::with_capacity(count * DIM);
    for index in 0..count {
        let image = draw_digit((index % 10) as u8, index as u64);
        let mut vector = [0.0_f32; DIM];
        for (pixel, weights) in image.iter().zip(projection.chunks_exact(DIM)) {
            if *pixel > 0 {
                for (sum, weight) in vector.iter_mut().zip(weights) {
                    *sum += f32::from(*pixel) * weight;
                }
            }
        }
        vectors.extend(vector);
    }
    vectors
}
