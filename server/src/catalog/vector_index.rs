//! Indexes over vectors, `CREATE INDEX ... USING hnsw`: how they are kept and what they serve.
//!
//! An index's definition is in its table's metadata, so it comes, goes and is rolled back with the table; its graph is
//! [`crate::search`]'s, made from the table's rows, and may be missing or old without harm.

use arrow::datatypes::Schema;
use serde::{Deserialize, Serialize};
use thanosql_ml::neighbour_graph::{GraphMetric, GraphOptions};

use crate::functions::vector::Metric;

/// The method of these indexes.
pub const METHOD: &str = "hnsw";

/// Where a table's indexes are in its schema's metadata.
pub(super) const INDEXES: &str = "thanosql.indexes";

/// pgvector's classes of operators for `vector`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OperatorClass {
    /// `<=>`.
    Cosine,
    /// `<->`.
    L2,
    /// `<#>`.
    InnerProduct,
    /// `<+>`.
    L1,
}

/// An index over a column of vectors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VectorIndex {
    /// Its object id.
    pub oid: u32,
    /// Its name.
    pub name: String,
    /// The place of its column in the table.
    pub column: usize,
    /// What near means.
    pub operators: OperatorClass,
    /// Links of a row to others.
    pub m: usize,
    /// Rows kept in view while a row is taken in.
    pub ef_construction: usize,
}

impl OperatorClass {
    /// All of them.
    pub const ALL: [OperatorClass; 4] =
        [OperatorClass::L2, OperatorClass::InnerProduct, OperatorClass::Cosine, OperatorClass::L1];

    /// pgvector's name for it.
    pub fn name(self) -> &'static str {
        match self {
            OperatorClass::Cosine => "vector_cosine_ops",
            OperatorClass::L2 => "vector_l2_ops",
            OperatorClass::InnerProduct => "vector_ip_ops",
            OperatorClass::L1 => "vector_l1_ops",
        }
    }

    /// The graph's word for it.
    pub fn metric(self) -> GraphMetric {
        match self {
            OperatorClass::Cosine => GraphMetric::Cosine,
            OperatorClass::L2 => GraphMetric::L2,
            OperatorClass::InnerProduct => GraphMetric::InnerProduct,
            OperatorClass::L1 => GraphMetric::L1,
        }
    }

    /// Whether ordering by a function, upwards or downwards, puts the nearest first.
    pub fn serves(self, function: Metric, ascending: bool) -> bool {
        let (operators, nearest_first) = match function {
            Metric::CosineDistance => (OperatorClass::Cosine, ascending),
            Metric::CosineSimilarity => (OperatorClass::Cosine, !ascending),
            Metric::L2Distance => (OperatorClass::L2, ascending),
            Metric::NegativeInnerProduct => (OperatorClass::InnerProduct, ascending),
            Metric::InnerProduct => (OperatorClass::InnerProduct, !ascending),
            Metric::L1Distance => (OperatorClass::L1, ascending),
        };
        self == operators && nearest_first
    }
}

impl VectorIndex {
    /// How its graph is built.
    pub fn options(&self) -> GraphOptions {
        GraphOptions { links: self.m, construction_breadth: self.ef_construction }
    }
}

/// The indexes that a schema names.
pub fn vector_indexes(schema: &Schema) -> Vec<VectorIndex> {
    match schema.metadata().get(INDEXES) {
        Some(text) => serde_json::from_str(text).unwrap_or_else(|error| {
            tracing::error!(%error, "the indexes of a table do not parse");
            Vec::new()
        }),
        None => Vec::new(),
    }
}
