//! A graph as bytes. All numbers are little-endian; u32 unless said otherwise:
//!
//! | bytes | what |
//! | --- | --- |
//! | 8 | `TSQLHNSW` |
//! | 4 each | format version, metric, dimensions, links, construction breadth, nodes, entry node |
//! | 4 × nodes × (1 + 2 links) | links on the lowest layer: how many, and room for all |
//! | 4 | how many nodes stand higher; for each, in the order of their numbers: node, layers, and a layer at a time how many links, and the links |
//! | 4 | how many nodes stand for others; for each, in the order of their numbers: node, how many others, and the others |
//! | 4 × nodes × dimensions | the vectors, f32 |

use std::collections::HashMap;

use super::{GraphMetric, GraphOptions, MAX_LAYER, NeighbourGraph};
use crate::error::MlError;

const MAGIC: &[u8; 8] = b"TSQLHNSW";
const VERSION: u32 = 1;

impl NeighbourGraph {
    /// The graph as bytes, for [`from_bytes`](Self::from_bytes).
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes =
            Vec::with_capacity(64 + 4 * (self.vectors.len() + self.base.len() + self.len() / 4));
        bytes.extend_from_slice(MAGIC);
        let metric = GraphMetric::ALL.iter().position(|metric| *metric == self.metric);
        let mut put = |number: u32| bytes.extend_from_slice(&number.to_le_bytes());
        put(VERSION);
        put(metric.unwrap_or_default() as u32);
        put(self.dim as u32);
        put(self.options.links as u32);
        put(self.options.construction_breadth as u32);
        put(self.len() as u32);
        put(self.entry.unwrap_or_default());
        self.base.iter().for_each(|number| put(*number));
        let mut upper: Vec<_> = self.upper.iter().collect();
        upper.sort_unstable_by_key(|(node, _)| **node);
        put(upper.len() as u32);
        for (node, layers) in upper {
            put(*node);
            put(layers.len() as u32);
            for links in layers {
                put(links.len() as u32);
                links.iter().for_each(|link| put(*link));
            }
        }
        let mut equal: Vec<_> = self.equal.iter().collect();
        equal.sort_unstable_by_key(|(node, _)| **node);
        put(equal.len() as u32);
        for (node, others) in equal {
            put(*node);
            put(others.len() as u32);
            others.iter().for_each(|other| put(*other));
        }
        self.vectors.iter().for_each(|number| put(number.to_bits()));
        bytes
    }

    /// Reads a graph back.
    ///
    /// # Errors
    ///
    /// [`MlError::InvalidGraph`] for bytes that are none: every number is checked before it is used.
    pub fn from_bytes(bytes: &[u8]) -> Result<NeighbourGraph, MlError> {
        let invalid = |reason: &str| MlError::InvalidGraph { reason: reason.to_owned() };
        let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| invalid("they start otherwise"))?;
        let mut numbers = Numbers(rest);
        if numbers.next()? != VERSION {
            return Err(invalid("another version made them"));
        }
        let metric = *GraphMetric::ALL
            .get(numbers.next()? as usize)
            .ok_or_else(|| invalid("the metric is unknown"))?;
        let dim = numbers.next()? as usize;
        let options = GraphOptions {
            links: numbers.next()? as usize,
            construction_breadth: numbers.next()? as usize,
        };
        let mut graph = NeighbourGraph::new(metric, dim, options)
            .map_err(|_| invalid("their options are out of range"))?;
        if dim == 0 {
            return Err(invalid("their vectors have no length"));
        }
        let nodes = numbers.next()?;
        let entry = numbers.next()?;
        let is_node = |node: u32| node < nodes;
        graph.base = numbers.take(nodes as usize, graph.base_stride())?;
        for links in graph.base.chunks_exact(graph.base_stride()) {
            let count = links[0] as usize;
            let links = links[1..].get(..count).ok_or_else(|| invalid("a node has many links"))?;
            if !links.iter().all(|link| is_node(*link)) {
                return Err(invalid("a link leads nowhere"));
            }
        }
        let mut upper = HashMap::new();
        for _ in 0..numbers.next()? {
            let (node, layers) = (numbers.next()?, numbers.next()? as usize);
            if !is_node(node) || layers == 0 || layers > MAX_LAYER {
                return Err(invalid("a node stands too high"));
            }
            let mut links = Vec::with_capacity(layers);
            for _ in 0..layers {
                let count = numbers.next()? as usize;
                links.push(numbers.take(count, 1)?);
            }
            if upper.insert(node, links).is_some() {
                return Err(invalid("a node stands there twice"));
            }
        }
        // A link of a layer leads to a node that stands on it.
        for (layer, link) in upper
            .values()
            .flat_map(|layers: &Vec<Vec<u32>>| layers.iter().enumerate())
            .flat_map(|(layer, links)| links.iter().map(move |link| (layer, link)))
        {
            if upper.get(link).is_none_or(|layers| layers.len() <= layer) {
                return Err(invalid("a link leads too high"));
            }
        }
        let highest = upper.values().map(Vec::len).max().unwrap_or(0);
        if nodes > 0 {
            if !is_node(entry) || upper.get(&entry).map_or(0, Vec::len) != highest {
                return Err(invalid("the entry is not on top"));
            }
            graph.entry = Some(entry);
        }
        graph.upper = upper;
        for _ in 0..numbers.next()? {
            let (node, count) = (numbers.next()?, numbers.next()? as usize);
            let others = numbers.take(count, 1)?;
            if !is_node(node)
                || !others.iter().all(|other| is_node(*other))
                || graph.equal.insert(node, others).is_some()
            {
                return Err(invalid("a node stands for none"));
            }
        }
        let vectors = numbers.take(nodes as usize, dim)?;
        graph.vectors = vectors.into_iter().map(f32::from_bits).collect();
        if !numbers.0.is_empty() || graph.vectors.iter().any(|number| !number.is_finite()) {
            return Err(invalid("they end otherwise"));
        }
        Ok(graph)
    }
}

/// Numbers that have not been read yet.
struct Numbers<'a>(&'a [u8]);

impl Numbers<'_> {
    fn next(&mut self) -> Result<u32, MlError> {
        let (number, rest) = self.0.split_first_chunk().ok_or_else(too_short)?;
        self.0 = rest;
        Ok(u32::from_le_bytes(*number))
    }

    /// `rows` times `columns` of them.
    fn take(&mut self, rows: usize, columns: usize) -> Result<Vec<u32>, MlError> {
        let bytes = rows.checked_mul(columns).and_then(|numbers| numbers.checked_mul(4));
        let (numbers, rest) =
            bytes.and_then(|bytes| self.0.split_at_checked(bytes)).ok_or_else(too_short)?;
        self.0 = rest;
        let (numbers, _) = numbers.as_chunks();
        Ok(numbers.iter().map(|number| u32::from_le_bytes(*number)).collect())
    }
}

fn too_short() -> MlError {
    MlError::InvalidGraph { reason: "they are too short".to_owned() }
}
