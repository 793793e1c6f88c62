//! A graph and the rows that its nodes are.
//!
//! Rows are known by their row group's rows ([`RowGroup::rows`]) and their offset, which stay the same in every version of the table.
//! All rows of a row group are taken in, deleted ones too, because an older snapshot may still see them. A row without a vector is not
//! there; one whose vector has no place in the graph (zeros, where only directions count) is kept beside it, and every search gets it.

use std::collections::{HashMap, HashSet};

use thanosql_ml::MlError;
use thanosql_ml::neighbour_graph::{Builder, NeighbourGraph};
use thanosql_protocol::SqlError;
use thanosql_storage::{RowGroup, Table};

use crate::catalog::vector_index::VectorIndex;
use crate::error::{cancelled, datafusion_error, storage_error};
use crate::functions::vector_column::Vectors;
use crate::learning::ml_error;

/// Rows taken in between two questions whether to stop.
const ROWS_A_STEP: usize = 64;

const MAGIC: &[u8; 8] = b"TSQLROWS";

/// A graph over the rows of a table.
#[derive(Debug)]
pub struct IndexedRows {
    graph: NeighbourGraph,
    groups: Vec<IndexedGroup>,
    /// For each node the offset of its row.
    offsets: Vec<u32>,
}

/// A row group that was taken in.
#[derive(Clone, Debug, PartialEq)]
struct IndexedGroup {
    rows: u64,
    /// Its first node; the others follow.
    first: u32,
    /// Offsets of the rows that the graph has no place for.
    loose: Vec<u32>,
}

/// Where the nearest rows are.
#[derive(Debug, Default, PartialEq)]
pub struct Candidates {
    /// Rows from the index, by their ids.
    pub rows: Vec<u64>,
    /// Row groups, by their place in the table, that the index does not know.
    pub groups: Vec<usize>,
}

impl IndexedRows {
    /// No rows yet.
    ///
    /// # Errors
    /// [`MlError::InvalidOption`].
    pub fn new(index: &VectorIndex, dim: usize) -> Result<IndexedRows, MlError> {
        let graph = NeighbourGraph::new(index.operators.metric(), dim, index.options())?;
        Ok(IndexedRows { graph, groups: Vec::new(), offsets: Vec::new() })
    }

    /// The length of the vectors.
    pub fn dim(&self) -> usize {
        self.graph.dim()
    }

    /// Bytes of memory, about.
    pub fn memory(&self) -> usize {
        let loose: usize = self.groups.iter().map(|group| 32 + 4 * group.loose.len()).sum();
        self.graph.memory() + 4 * self.offsets.capacity() + loose
    }

    /// Takes in the row groups that are not here yet, but for those that are likely to be merged with others soon.
    ///
    /// # Errors
    /// 57014 once `stop` says so, and the storage's.
    pub fn take_in(
        &mut self,
        table: &Table,
        column: usize,
        stop: &dyn Fn() -> bool,
    ) -> Result<(), SqlError> {
        let known = self.known();
        let mut builder = Builder::default();
        for (place, group) in groups(table) {
            let Some(rows) = to_be_indexed(&group).filter(|rows| !known.contains(rows)) else {
                continue;
            };
            let vectors = table.read_whole_column(place, column).map_err(storage_error)?;
            let vectors = Vectors::of(&vectors).map_err(|error| datafusion_error(error, None))?;
            let first = self.graph.len() as u32;
            let mut loose = Vec::new();
            for row in 0..vectors.len {
                if row.is_multiple_of(ROWS_A_STEP) && stop() {
                    return Err(cancelled());
                }
                let vector = vectors.get(row).map_err(|error| datafusion_error(error, None))?;
                let Some(vector) = vector else { continue };
                match self.graph.insert(vector, &mut builder) {
                    true => self.offsets.push(row as u32),
                    false => loose.push(row as u32),
                }
            }
            self.groups.push(IndexedGroup { rows, first, loose });
        }
        self.graph.shrink();
        self.offsets.shrink_to_fit();
        Ok(())
    }

    /// The rows of a table among which its `k` nearest to a vector are, most likely. `None` if that would be fewer than `k` although the
    /// table has more: then all must be compared.
    ///
    /// # Errors
    /// 57014 once `stop` says so.
    pub fn candidates(
        &self,
        table: &Table,
        vector: &[f32],
        k: usize,
        breadth: usize,
        stop: &dyn Fn() -> bool,
    ) -> Result<Option<Candidates>, SqlError> {
        let mut places: HashMap<u64, usize> = HashMap::new();
        let mut candidates = Candidates::default();
        let mut count = 0;
        let known = self.known();
        for (place, group) in groups(table) {
            match group.rows.filter(|rows| known.contains(rows)) {
                Some(rows) => {
                    places.insert(rows, place);
                }
                None => {
                    candidates.groups.push(place);
                    count += group.live as usize;
                }
            }
        }
        let here: Vec<Option<usize>> =
            self.groups.iter().map(|group| places.get(&group.rows).copied()).collect();
        let row = |node: u32| {
            let group = self.groups.partition_point(|group| group.first <= node) - 1;
            Some((here[group]?, self.offsets[node as usize]))
        };
        let is_live = |(place, offset)| table.is_live(place, offset);
        let id = |(place, offset): (usize, u32)| {
            u64::from(table.group(place).id) << 32 | u64::from(offset)
        };
        let found = self
            .graph
            .nearest(vector, breadth.max(k), |node| row(node).is_some_and(is_live), stop)
            .map_err(ml_error)?;
        candidates.rows.extend(found.into_iter().filter_map(|near| row(near.node)).map(id));
        for (group, place) in self.groups.iter().zip(&here) {
            let Some(place) = *place else { continue };
            let loose = group.loose.iter().map(|offset| (place, *offset));
            candidates.rows.extend(loose.filter(|row| is_live(*row)).map(id));
        }
        count += candidates.rows.len();
        let all = usize::try_from(table.row_count()).unwrap_or(usize::MAX);
        Ok((count >= k.min(all)).then_some(candidates))
    }

    /// How many rows of a table are not here, and are compared one by one.
    pub fn missing(&self, table: &Table) -> usize {
        let known = self.known();
        groups(table)
            .filter(|(_, group)| group.rows.is_none_or(|rows| !known.contains(&rows)))
            .map(|(_, group)| group.live as usize)
            .sum()
    }

    /// Whether a good part of a table's rows is not here, or of the rows here not in the table.
    pub fn is_behind(&self, table: &Table) -> bool {
        let known = self.known();
        let (mut missing, mut present) = (0, 0);
        for (_, group) in groups(table) {
            match group.rows.is_some_and(|rows| known.contains(&rows)) {
                true => present += group.live as usize,
                false if to_be_indexed(&group).is_some() => missing += group.live as usize,
                false => {}
            }
        }
        missing > self.offsets.len() / 16 || self.is_mostly_gone(present)
    }

    /// The same, to take in more; `None` if it is better to start anew because most of its rows are gone.
    pub fn continued(&self, table: &Table) -> Option<IndexedRows> {
        let known = self.known();
        let present: usize = groups(table)
            .filter(|(_, group)| group.rows.is_some_and(|rows| known.contains(&rows)))
            .map(|(_, group)| group.live as usize)
            .sum();
        (!self.is_mostly_gone(present)).then(|| IndexedRows {
            graph: self.graph.clone(),
            groups: self.groups.clone(),
            offsets: self.offsets.clone(),
        })
    }

    fn is_mostly_gone(&self, present: usize) -> bool {
        present < self.offsets.len() / 2
    }

    fn known(&self) -> HashSet<u64> {
        self.groups.iter().map(|group| group.rows).collect()
    }

    /// As bytes, for [`from_bytes`](Self::from_bytes): `TSQLROWS`; how many groups, and for each its rows (u64), its first node, how many rows are loose, and
    /// their offsets; how many nodes, and their offsets; the graph. Numbers are little-endian u32 unless said otherwise.
    pub fn to_bytes(&self) -> Vec<u8> {
        let graph = self.graph.to_bytes();
        let mut bytes = Vec::with_capacity(graph.len() + 4 * self.offsets.len() + 1024);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&(self.groups.len() as u32).to_le_bytes());
        for group in &self.groups {
            bytes.extend_from_slice(&group.rows.to_le_bytes());
            bytes.extend_from_slice(&group.first.to_le_bytes());
            put_all(&mut bytes, &group.loose);
        }
        put_all(&mut bytes, &self.offsets);
        bytes.extend_from_slice(&graph);
        bytes
    }

    /// Reads them back.
    ///
    /// # Errors
    /// [`MlError::InvalidGraph`] for bytes that are none.
    pub fn from_bytes(bytes: &[u8]) -> Result<IndexedRows, MlError> {
        let invalid = |reason: &str| MlError::InvalidGraph { reason: reason.to_owned() };
        let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| invalid("they start otherwise"))?;
        let mut rest = Rest(rest);
        let count = rest.number()?;
        let mut groups = Vec::new();
        for _ in 0..count {
            let rows = u64::from_le_bytes(*rest.take()?);
            groups.push(IndexedGroup { rows, first: rest.number()?, loose: rest.numbers()? });
        }
        let offsets = rest.numbers()?;
        let graph = NeighbourGraph::from_bytes(rest.0)?;
        let starts_at_0 = groups.first().is_none_or(|group| group.first == 0);
        if offsets.len() != graph.len()
            || !starts_at_0
            || !groups.is_sorted_by_key(|group| group.first)
            || (groups.is_empty() && !graph.is_empty())
        {
            return Err(invalid("their rows are not its nodes"));
        }
        Ok(IndexedRows { graph, groups, offsets })
    }
}

fn groups(table: &Table) -> impl Iterator<Item = (usize, RowGroup)> {
    (0..table.groups()).map(|place| (place, table.group(place)))
}

/// The rows of a row group that is worth taking in.
fn to_be_indexed(group: &RowGroup) -> Option<u64> {
    group.rows.filter(|_| group.is_settled)
}

fn put_all(bytes: &mut Vec<u8>, numbers: &[u32]) {
    bytes.extend_from_slice(&(numbers.len() as u32).to_le_bytes());
    numbers.iter().for_each(|number| bytes.extend_from_slice(&number.to_le_bytes()));
}

/// Bytes that have not been read yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take<const N: usize>(&mut self) -> Result<&'a [u8; N], MlError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or_else(too_short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u32, MlError> {
        self.take().map(|bytes| u32::from_le_bytes(*bytes))
    }

    fn numbers(&mut self) -> Result<Vec<u32>, MlError> {
        let bytes = (self.number()? as usize).checked_mul(4).ok_or_else(too_short)?;
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or_else(too_short)?;
        self.0 = rest;
        Ok(taken.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect())
    }
}

fn too_short() -> MlError {
    MlError::InvalidGraph { reason: "they are too short".to_owned() }
}
