//! The graph against comparing all.

use super::*;

const DIM: usize = 20;

/// Vectors around a few middles, as embeddings are.
fn vectors(count: usize, seed: u64) -> Vec<Vec<f32>> {
    let middles: Vec<Vec<f32>> = (0..10)
        .map(|middle| {
            let mut random = Random::keyed(&[seed, 1, middle]);
            (0..DIM).map(|_| random.normal()).collect()
        })
        .collect();
    (0..count)
        .map(|index| {
            let mut random = Random::keyed(&[seed, 2, index as u64]);
            let middle = &middles[random.below(middles.len())];
            middle.iter().map(|x| x + 0.5 * random.normal()).collect()
        })
        .collect()
}

fn graph(metric: GraphMetric, vectors: &[Vec<f32>]) -> NeighbourGraph {
    let mut graph = NeighbourGraph::new(metric, DIM, GraphOptions::default()).unwrap();
    let mut builder = Builder::default();
    for vector in vectors {
        assert!(graph.insert(vector, &mut builder));
    }
    graph
}

/// The nearest, by comparing all.
fn exactly(
    metric: GraphMetric,
    vectors: &[Vec<f32>],
    query: &[f32],
    count: usize,
    counts: impl Fn(u32) -> bool,
) -> Vec<Near> {
    let query = metric.prepared(query).unwrap();
    let mut all: Vec<Near> = (0..)
        .zip(vectors)
        .filter(|(node, _)| counts(*node))
        .map(|(node, vector)| Near {
            node,
            distance: metric.distance(&metric.prepared(vector).unwrap(), &query),
        })
        .collect();
    all.sort_unstable();
    all.truncate(count);
    all
}

/// The part of the nearest ten that the graph finds for each query.
fn recall(
    metric: GraphMetric,
    graph: &NeighbourGraph,
    vectors: &[Vec<f32>],
    queries: &[Vec<f32>],
    counts: impl Fn(u32) -> bool + Copy,
) -> f64 {
    let mut found = 0;
    for query in queries {
        let expected = exactly(metric, vectors, query, 10, counts);
        let near = graph.nearest(query, 40, counts, &|| false).unwrap();
        assert!(near.len() >= expected.len(), "{} of {}", near.len(), expected.len());
        assert!(near.is_sorted() && near.iter().all(|near| counts(near.node)));
        let near = &near[..expected.len()];
        found += near.iter().filter(|near| expected.contains(near)).count();
    }
    found as f64 / (10 * queries.len()) as f64
}

#[test]
fn nearly_all_of_the_nearest_are_found() {
    let all = vectors(3100, 1);
    let (vectors, queries) = all.split_at(3000);
    for metric in GraphMetric::ALL {
        let graph = graph(metric, vectors);
        let recall = recall(metric, &graph, vectors, queries, |_| true);
        let least = if metric == GraphMetric::InnerProduct { 0.9 } else { 0.97 };
        assert!(recall >= least, "{metric:?}: {recall}");
    }
}

#[test]
fn nodes_that_do_not_count_are_walked_through() {
    let all = vectors(3100, 2);
    let (vectors, queries) = all.split_at(3000);
    let graph = graph(GraphMetric::L2, vectors);
    for part in [2, 10, 100] {
        let recall = recall(GraphMetric::L2, &graph, vectors, queries, |node| node % part == 0);
        assert!(recall > 0.97, "one in {part}: {recall}");
    }
    // Fewer than are asked for: all of them.
    let near = graph.nearest(&vectors[0], 40, |node| node < 7, &|| false).unwrap();
    assert_eq!(near.len(), 7);
}

#[test]
fn equal_vectors_stand_in_one_place() {
    let mut all = vec![vec![1.0; DIM]; 500];
    all.extend(vec![vec![-1.0; DIM]; 500]);
    let graph = graph(GraphMetric::Cosine, &all);
    assert_eq!(NeighbourGraph::from_bytes(&graph.to_bytes()).unwrap(), graph);
    for (query, nodes) in [(1.0, 0..500), (-1.0, 500..1000)] {
        let near = graph.nearest(&[query; DIM], 100, |_| true, &|| false).unwrap();
        assert_eq!(near.len(), 100);
        assert!(near.iter().all(|near| nodes.contains(&near.node)), "{near:?}");
    }
}

#[test]
fn what_has_no_place_among_others_is_not_taken_in() {
    let mut builder = Builder::default();
    let mut graph = NeighbourGraph::new(GraphMetric::Cosine, 2, GraphOptions::default()).unwrap();
    assert!(graph.nearest(&[1.0, 0.0], 5, |_| true, &|| false).unwrap().is_empty());
    assert!(!graph.insert(&[0.0, 0.0], &mut builder));
    assert!(!graph.insert(&[f32::NAN, 1.0], &mut builder));
    assert!(graph.insert(&[3.0, 4.0], &mut builder));
    let near = graph.nearest(&[4.0, 3.0], 5, |_| true, &|| false).unwrap();
    // (3 * 4 + 4 * 3) / 25
    assert!((near[0].distance - (1.0 - 24.0 / 25.0)).abs() < 1e-6, "{near:?}");
    assert!(graph.nearest(&[0.0, 0.0], 5, |_| true, &|| false).unwrap().is_empty());
}

#[test]
fn a_search_stops_when_asked() {
    let vectors = vectors(6000, 3);
    let graph = graph(GraphMetric::L2, &vectors);
    let stopped = graph.nearest(&vectors[0], 6000, |_| true, &|| true);
    assert!(matches!(stopped, Err(MlError::Stopped)));
}

#[test]
fn options_have_ranges() {
    for (links, construction_breadth) in [(1, 64), (101, 400), (16, 3), (16, 1001), (16, 31)] {
        let options = GraphOptions { links, construction_breadth };
        let error = NeighbourGraph::new(GraphMetric::L2, 2, options).unwrap_err();
        assert!(matches!(error, MlError::InvalidOption { .. }));
    }
}

#[test]
fn a_graph_goes_into_bytes_and_back_and_goes_on() {
    let all = vectors(800, 4);
    let whole = graph(GraphMetric::Cosine, &all);
    let half = graph(GraphMetric::Cosine, &all[..400]);
    let mut read = NeighbourGraph::from_bytes(&half.to_bytes()).unwrap();
    assert_eq!(read, half);
    let mut builder = Builder::default();
    for vector in &all[400..] {
        read.insert(vector, &mut builder);
    }
    assert_eq!(read, whole);
    let empty = NeighbourGraph::new(GraphMetric::L1, 3, GraphOptions::default()).unwrap();
    assert_eq!(NeighbourGraph::from_bytes(&empty.to_bytes()).unwrap(), empty);
}

#[test]
fn damaged_bytes_are_an_error_or_another_graph_and_never_a_panic() {
    let graph = graph(GraphMetric::L2, &vectors(60, 5));
    let bytes = graph.to_bytes();
    for length in 0..bytes.len() {
        let cut = NeighbourGraph::from_bytes(&bytes[..length]);
        assert!(matches!(cut, Err(MlError::InvalidGraph { .. })), "{length}");
    }
    let mut random = Random::keyed(&[5]);
    let mut refused = 0;
    for _ in 0..3000 {
        let mut damaged = bytes.clone();
        let place = random.below(damaged.len());
        damaged[place] ^= 1 << random.below(8);
        match NeighbourGraph::from_bytes(&damaged) {
            Ok(graph) if graph.dim() == DIM => {
                graph.nearest(&[0.5; DIM], 10, |_| true, &|| false).unwrap();
            }
            Ok(_) => {}
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 300, "{refused}");
}
