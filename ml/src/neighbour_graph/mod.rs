//! Near vectors found without comparing all of them: a hierarchical navigable small world (HNSW; Malkov and Yashunin, arXiv 1603.09320).
//!
//! Every vector is a node with links to near ones; a few nodes stand on higher layers, too, where links are long. A search goes
//! down the layers, greedily, and on the lowest one keeps the `breadth` nearest nodes that it has met, until no open one is nearer
//! than the farthest of those. So its answer is nearly always right, and never certainly: whoever needs certainty compares all ([`super::quality::Gallery`]).
//!
//! What it gains and costs is measured by `benches/neighbour_graph.rs`.
//!
//! - Nodes are numbered in the order of their insertion. There is no removal: a search is told which nodes count, and walks through the others.
//! - Equal vectors stand in one place: the first of them has the links, and whoever meets it meets all.
//! - The same vectors in the same order give the same graph: a node's layer is drawn from its number.
//! - [`bytes`] writes a graph down and reads it back.

mod bytes;
mod distance;

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashMap};

pub use distance::GraphMetric;

use crate::error::MlError;
use crate::random::Random;

/// No node stands on a higher layer: with the fewest links, 2, one in 4 billion would.
const MAX_LAYER: usize = 31;

/// How a graph is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GraphOptions {
    /// Links of a node to others on each layer; twice as many on the lowest. pgvector's and the paper's `m`, from 2 to 100.
    pub links: usize,
    /// Nodes that an insertion keeps while it looks for the nearest: `ef_construction`, from 4 to 1000 and at least `2 * links`.
    pub construction_breadth: usize,
}

impl Default for GraphOptions {
    /// pgvector's.
    fn default() -> GraphOptions {
        GraphOptions { links: 16, construction_breadth: 64 }
    }
}

impl GraphOptions {
    /// Values that the paper and pgvector find useful.
    ///
    /// # Errors
    ///
    /// [`MlError::InvalidOption`].
    pub fn check(self) -> Result<(), MlError> {
        let invalid = |option, value: usize, reason| {
            Err(MlError::InvalidOption { option, value: value.to_string(), reason })
        };
        if !(2..=100).contains(&self.links) {
            return invalid("m", self.links, "it must be from 2 to 100");
        }
        if !(4..=1000).contains(&self.construction_breadth) {
            let reason = "it must be from 4 to 1000";
            return invalid("ef_construction", self.construction_breadth, reason);
        }
        if self.construction_breadth < 2 * self.links {
            let reason = "it must be at least twice m";
            return invalid("ef_construction", self.construction_breadth, reason);
        }
        Ok(())
    }
}

/// A node met by a search.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Near {
    /// Its number.
    pub node: u32,
    /// By the graph's metric, lower is nearer.
    pub distance: f32,
}

/// Farther is greater; of two equally far ones the later node.
impl Eq for Near {}

impl Ord for Near {
    fn cmp(&self, other: &Near) -> Ordering {
        self.distance.total_cmp(&other.distance).then(self.node.cmp(&other.node))
    }
}

impl PartialOrd for Near {
    fn partial_cmp(&self, other: &Near) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Vectors and the links between near ones.
#[derive(Clone, Debug, PartialEq)]
pub struct NeighbourGraph {
    metric: GraphMetric,
    dim: usize,
    options: GraphOptions,
    /// `[nodes, dim]`; directions if the metric is the cosine.
    vectors: Vec<f32>,
    /// The links on the lowest layer: for each node how many, and room for twice [`GraphOptions::links`].
    base: Vec<u32>,
    /// The links of the nodes that stand higher, from layer 1 up.
    upper: HashMap<u32, Vec<Vec<u32>>>,
    /// Nodes without links of their own, by the node with the same vector that stands for them.
    equal: HashMap<u32, Vec<u32>>,
    /// The node on the highest layer.
    entry: Option<u32>,
}

/// Nodes that a walk has been at, by round, so that a new walk need not clear them.
#[derive(Debug, Default)]
struct Visited {
    rounds: Vec<u32>,
    round: u32,
}

/// Room for building, kept from one insertion to the next.
#[derive(Debug, Default)]
pub struct Builder {
    visited: Visited,
}

impl NeighbourGraph {
    /// A graph without nodes, for vectors of `dim` numbers.
    ///
    /// # Errors
    ///
    /// [`MlError::InvalidOption`] for options outside their ranges.
    pub fn new(
        metric: GraphMetric,
        dim: usize,
        options: GraphOptions,
    ) -> Result<NeighbourGraph, MlError> {
        options.check()?;
        Ok(NeighbourGraph {
            metric,
            dim: dim.max(1),
            options,
            vectors: Vec::new(),
            base: Vec::new(),
            upper: HashMap::new(),
            equal: HashMap::new(),
            entry: None,
        })
    }

    /// Nodes.
    pub fn len(&self) -> usize {
        self.vectors.len() / self.dim
    }

    /// Whether it has no node.
    pub fn is_empty(&self) -> bool {
        self.vectors.is_empty()
    }

    /// The length of its vectors.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// How far apart its vectors are.
    pub fn metric(&self) -> GraphMetric {
        self.metric
    }

    /// How it is built.
    pub fn options(&self) -> GraphOptions {
        self.options
    }

    /// Bytes of memory that it takes, about.
    pub fn memory(&self) -> usize {
        let lists = self.upper.values().flatten().chain(self.equal.values());
        let lists: usize = lists.map(|list| 32 + 4 * list.len()).sum();
        4 * (self.vectors.capacity() + self.base.capacity()) + lists
    }

    /// Gives back memory that was taken for more nodes.
    pub fn shrink(&mut self) {
        self.vectors.shrink_to_fit();
        self.base.shrink_to_fit();
    }

    /// Bytes that a graph of so many nodes takes, about.
    pub fn memory_for(nodes: usize, dim: usize, options: GraphOptions) -> usize {
        // Besides the vector and the links of the lowest layer: what stands higher, and the row of the node.
        nodes.saturating_mul(4 * (dim + 2 * options.links + 1 + 4))
    }

    /// Takes in a vector as the next node. `false`, and no node, for one that has no place among others: a vector of zeros where only directions
    /// count, or one that is not finite.
    ///
    /// # Panics
    ///
    /// If the vector is not [`dim`](Self::dim) long, or there are 2^32 nodes.
    pub fn insert(&mut self, vector: &[f32], builder: &mut Builder) -> bool {
        assert_eq!(vector.len(), self.dim, "vectors of one length");
        let Some(vector) = self.metric.prepared(vector) else { return false };
        let node = u32::try_from(self.len()).expect("a graph has fewer than 2^32 nodes");
        let layer = self.layer_of(node);
        let Some(entry) = self.entry else {
            self.put(node, &vector, layer);
            self.entry = Some(node);
            return true;
        };
        let top = self.height(entry);
        let mut nearest = Near { node: entry, distance: self.distance_to(entry, &vector) };
        for layer in (layer + 1..=top).rev() {
            nearest = self.descend(&vector, nearest, layer);
        }
        let breadth = self.options.construction_breadth;
        let mut found = vec![nearest];
        let mut chosen = Vec::new();
        for layer in (0..=layer.min(top)).rev() {
            builder.visited.start(self.len());
            found = self.walk(&vector, &found, layer, breadth, &mut builder.visited, None);
            chosen.push((layer, self.diverse(&found, self.options.links)));
        }
        if let Some(same) = found.iter().find(|near| self.vector(near.node) == vector) {
            self.put(node, &vector, 0);
            self.equal.entry(same.node).or_default().push(node);
            return true;
        }
        self.put(node, &vector, layer);
        for (layer, chosen) in chosen {
            for near in &chosen {
                self.link(near.node, node, near.distance, layer);
            }
            self.set_links(node, layer, chosen.iter().map(|near| near.node));
        }
        if layer > top {
            self.entry = Some(node);
        }
        true
    }

    /// Makes room for a node, without links.
    fn put(&mut self, node: u32, vector: &[f32], layer: usize) {
        self.vectors.extend_from_slice(vector);
        self.base.resize(self.base.len() + self.base_stride(), 0);
        if layer > 0 {
            self.upper.insert(node, vec![Vec::new(); layer]);
        }
    }

    /// The nodes nearest to a vector among those that count, nearest first: at most `breadth`, fewer only if there are no more within reach. The broader, the
    /// surer. Nothing is near a vector that has no place among others.
    ///
    /// # Errors
    ///
    /// [`MlError::Stopped`] once `stop` says so.
    ///
    /// # Panics
    ///
    /// If the vector is not [`dim`](Self::dim) long.
    pub fn nearest(
        &self,
        vector: &[f32],
        breadth: usize,
        counts: impl Fn(u32) -> bool,
        stop: &dyn Fn() -> bool,
    ) -> Result<Vec<Near>, MlError> {
        assert_eq!(vector.len(), self.dim, "vectors of one length");
        let (Some(vector), Some(entry)) = (self.metric.prepared(vector), self.entry) else {
            return Ok(Vec::new());
        };
        let mut nearest = Near { node: entry, distance: self.distance_to(entry, &vector) };
        for layer in (1..=self.height(entry)).rev() {
            nearest = self.descend(&vector, nearest, layer);
        }
        let mut visited = Visited::default();
        visited.start(self.len());
        let stopped = std::cell::Cell::new(false);
        let mut asked = 0_u32;
        let mut counts = |node| {
            asked += 1;
            if asked.is_multiple_of(4096) && stop() {
                stopped.set(true);
            }
            !stopped.get() && counts(node)
        };
        let breadth = breadth.max(1);
        let found = self.walk(&vector, &[nearest], 0, breadth, &mut visited, Some(&mut counts));
        if stopped.get() { Err(MlError::Stopped) } else { Ok(found) }
    }

    /// Layers are exponentially rarer the higher they are, by a factor of [`GraphOptions::links`].
    fn layer_of(&self, node: u32) -> usize {
        let unit = 1.0 - f64::from(Random::keyed(&[u64::from(node)]).unit());
        let layer = -unit.ln() / (self.options.links as f64).ln();
        (layer as usize).min(MAX_LAYER)
    }

    /// The highest layer that a node stands on.
    fn height(&self, node: u32) -> usize {
        self.upper.get(&node).map_or(0, Vec::len)
    }

    fn vector(&self, node: u32) -> &[f32] {
        let start = node as usize * self.dim;
        &self.vectors[start..start + self.dim]
    }

    fn distance_to(&self, node: u32, vector: &[f32]) -> f32 {
        self.metric.distance(self.vector(node), vector)
    }

    fn base_stride(&self) -> usize {
        1 + 2 * self.options.links
    }

    fn links(&self, node: u32, layer: usize) -> &[u32] {
        if layer == 0 {
            let start = node as usize * self.base_stride();
            let count = self.base[start] as usize;
            return &self.base[start + 1..start + 1 + count];
        }
        self.upper.get(&node).and_then(|layers| layers.get(layer - 1)).map_or(&[], Vec::as_slice)
    }

    fn set_links(&mut self, node: u32, layer: usize, links: impl ExactSizeIterator<Item = u32>) {
        if layer == 0 {
            let start = node as usize * self.base_stride();
            self.base[start] = links.len() as u32;
            for (place, link) in self.base[start + 1..].iter_mut().zip(links) {
                *place = link;
            }
        } else if let Some(place) =
            self.upper.get_mut(&node).and_then(|layers| layers.get_mut(layer - 1))
        {
            *place = links.collect();
        }
    }

    /// Links a node to a new one; if it has too many links by that, the least useful one goes.
    fn link(&mut self, node: u32, new: u32, distance: f32, layer: usize) {
        let most = if layer == 0 { 2 * self.options.links } else { self.options.links };
        let links = self.links(node, layer);
        if links.len() < most {
            let links: Vec<u32> = links.iter().copied().chain([new]).collect();
            self.set_links(node, layer, links.into_iter());
            return;
        }
        let own = self.vector(node);
        let mut all: Vec<Near> = links
            .iter()
            .map(|&node| Near { node, distance: self.distance_to(node, own) })
            .chain([Near { node: new, distance }])
            .collect();
        all.sort_unstable();
        let kept = self.diverse(&all, most);
        self.set_links(node, layer, kept.iter().map(|near| near.node));
    }

    /// Of nodes, nearest first, those that lead in different directions: a node is chosen if it is nearer to the middle than to
    /// every chosen one (the paper's heuristic). What room is left goes to the nearest others, so that many equal vectors stay connected.
    fn diverse(&self, nodes: &[Near], most: usize) -> Vec<Near> {
        if nodes.len() <= most {
            return nodes.to_vec();
        }
        let mut chosen: Vec<Near> = Vec::with_capacity(most);
        let mut others = Vec::new();
        for near in nodes {
            if chosen.len() == most {
                break;
            }
            let vector = self.vector(near.node);
            let is_diverse =
                chosen.iter().all(|other| self.distance_to(other.node, vector) >= near.distance);
            if is_diverse { chosen.push(*near) } else { others.push(*near) }
        }
        chosen.extend(others.into_iter().take(most - chosen.len()));
        chosen
    }

    /// The nearest node of a layer that links lead to from `nearest`, always to a nearer one.
    fn descend(&self, vector: &[f32], mut nearest: Near, layer: usize) -> Near {
        loop {
            let from = nearest.node;
            for &node in self.links(from, layer) {
                nearest = nearest.min(Near { node, distance: self.distance_to(node, vector) });
            }
            if nearest.node == from {
                return nearest;
            }
        }
    }

    /// The `breadth` nearest nodes of a layer, nearest first, as far as links lead to them: of all nodes those that count, or else those with links.
    fn walk(
        &self,
        vector: &[f32],
        starts: &[Near],
        layer: usize,
        breadth: usize,
        visited: &mut Visited,
        mut counts: Option<&mut dyn FnMut(u32) -> bool>,
    ) -> Vec<Near> {
        let mut open: BinaryHeap<Reverse<Near>> = BinaryHeap::new();
        let mut best: BinaryHeap<Near> = BinaryHeap::new();
        let mut keep = |best: &mut BinaryHeap<Near>, near: Near| {
            let mut push = |near: Near| {
                best.push(near);
                if best.len() > breadth {
                    best.pop();
                }
            };
            let Some(counts) = &mut counts else { return push(near) };
            let equal = self.equal.get(&near.node).into_iter().flatten().copied();
            for node in [near.node].into_iter().chain(equal) {
                if counts(node) {
                    push(Near { node, ..near });
                }
            }
        };
        for start in starts {
            if visited.is_new(start.node) {
                open.push(Reverse(*start));
                keep(&mut best, *start);
            }
        }
        while let Some(Reverse(near)) = open.pop() {
            let is_too_far = |best: &BinaryHeap<Near>, distance: f32| {
                best.len() == breadth && best.peek().is_some_and(|worst| distance > worst.distance)
            };
            if is_too_far(&best, near.distance) {
                break;
            }
            for &node in self.links(near.node, layer) {
                if !visited.is_new(node) {
                    continue;
                }
                let near = Near { node, distance: self.distance_to(node, vector) };
                if !is_too_far(&best, near.distance) {
                    open.push(Reverse(near));
                    keep(&mut best, near);
                }
            }
        }
        best.into_sorted_vec()
    }
}

impl Visited {
    fn start(&mut self, nodes: usize) {
        if self.rounds.len() < nodes {
            self.rounds.resize(nodes + nodes / 2, 0);
        }
        self.round = self.round.wrapping_add(1);
        if self.round == 0 {
            self.rounds.fill(0);
            self.round = 1;
        }
    }

    fn is_new(&mut self, node: u32) -> bool {
        let round = &mut self.rounds[node as usize];
        let is_new = *round != self.round;
        *round = self.round;
        is_new
    }
}

#[cfg(test)]
mod tests;
