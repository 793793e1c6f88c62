//! Operators at the bottom of a plan that read from the store: what all of them have in common.
//!
//! The store blocks, so rows are read on a blocking thread, a few batches ahead of the reader. A reader that is gone ends it.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchReceiverStreamBuilder;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties,
};
use thanosql_protocol::SqlError;
use tokio::sync::mpsc::Sender;

use crate::error::through_datafusion;

/// Batches that may wait for the reader.
const BATCHES_AHEAD: usize = 2;

/// Where rows come from.
pub trait RowSource: fmt::Debug + Send + Sync + 'static {
    /// The operator's name in EXPLAIN.
    const NAME: &'static str;

    /// What EXPLAIN says of it.
    fn describe(&self) -> Vec<(&'static str, String)>;

    /// Reads the rows, of that schema. May block.
    fn read(&self, schema: &SchemaRef, rows: &mut Rows<'_>) -> Result<(), SqlError>;
}

/// Where rows go.
pub struct Rows<'a>(&'a Sender<Result<RecordBatch>>);

impl Rows<'_> {
    /// Hands on a batch; `false` when nobody wants more.
    pub fn send(&mut self, batch: RecordBatch) -> bool {
        self.0.blocking_send(Ok(batch)).is_ok()
    }

    /// Whether nobody wants more.
    pub fn is_unwanted(&self) -> bool {
        self.0.is_closed()
    }
}

/// The operator over a source, of one partition.
#[derive(Debug)]
pub struct LeafExec<S> {
    source: Arc<S>,
    properties: Arc<PlanProperties>,
}

impl<S: RowSource> LeafExec<S> {
    /// Yields what a source reads, of that schema.
    pub fn new(source: S, schema: SchemaRef) -> LeafExec<S> {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        LeafExec { source: Arc::new(source), properties: Arc::new(properties) }
    }
}

impl<S: RowSource> DisplayAs for LeafExec<S> {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let facts: Vec<String> = self
            .source
            .describe()
            .into_iter()
            .map(|(name, value)| if name.is_empty() { value } else { format!("{name}={value}") })
            .collect();
        match format {
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                write!(f, "{}: {}", S::NAME, facts.join(", "))
            }
            DisplayFormatType::TreeRender => write!(f, "{}", facts.join("\n")),
        }
    }
}

impl<S: RowSource> ExecutionPlan for LeafExec<S> {
    fn name(&self) -> &str {
        S::NAME
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if children.is_empty() { Ok(self) } else { internal_err!("a leaf has no children") }
    }

    fn execute(
        &self,
        _partition: usize,
        _context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let schema = self.schema();
        let mut builder = RecordBatchReceiverStreamBuilder::new(schema.clone(), BATCHES_AHEAD);
        let sender = builder.tx();
        let source = self.source.clone();
        builder.spawn_blocking(move || {
            if let Err(error) = source.read(&schema, &mut Rows(&sender)) {
                // A reader that is gone wants no error.
                let _ = sender.blocking_send(Err(through_datafusion(error)));
            }
            Ok(())
        });
        Ok(builder.build())
    }
}
