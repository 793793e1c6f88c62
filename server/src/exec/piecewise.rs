//! Asynchronous functions a few rows at a time: what EXPLAIN calls `PiecewiseExec`.
//!
//! DataFusion's own operator for such functions (`AsyncFuncExec`, 55.2) gathers 8,192 rows, computes them all, and only then yields the first: of as many
//! photographs the first would be seen minutes after it was embedded, and a LIMIT above a filter would embed thousands for three. [`PiecewiseExec`]
//! stands in its place, for functions that say how many rows they take at once (`ideal_batch_size`):
//!
//! ```text
//!  rows      8 | 16 | 32 | 64 | 128 | 256 | 256 | ...    the first answer comes soon; later pieces fill the device
//!           alone    [ done | computed | decoded ]       the others are under way at once, a few of them, and come out in order
//! ```
//!
//! Each piece is a task of its own, because a client may stop reading between two of them (a cursor, a suspended portal): what has begun then ends all the
//! same, and gives back what others wait for, such as the memory of decoded images.
//!
//! [`InPieces`] also sees to what is above. A filter would gather what comes in pieces into a full batch again, so it hands on what it has. An order that
//! the results take no part in is made before them, as PostgreSQL does with functions that are volatile: `ORDER BY taken DESC LIMIT 5` embeds five
//! photographs, and without a LIMIT the first comes soon. Joins still gather.

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, SchemaRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::runtime::SpawnedTask;
use datafusion::common::tree_node::{Transformed, TreeNode as _, TreeNodeRecursion};
use datafusion::common::{Result, internal_err};
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::async_scalar_function::AsyncFuncExpr;
use datafusion::physical_expr::equivalence::ProjectionMapping;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr};
use datafusion::physical_expr_common::physical_expr::is_volatile;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::async_func::AsyncFuncExec;
use datafusion::physical_plan::execution_plan::{
    CardinalityEffect, ChildrenPropertiesMode, EmissionType,
};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::limit::GlobalLimitExec;
use datafusion::physical_plan::metrics::{
    BaselineMetrics, Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet, RecordOutput as _,
};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties as _, PhysicalExpr,
    PlanProperties, ReplaceChildrenOptions, apply_expression_roots,
};
use futures::{Stream, StreamExt as _};

/// Rows of the first piece: as many as even the largest images go through an encoder at once ([`thanosql_ml::Model::batch`]).
const FIRST_PIECE: usize = 8;

/// Pieces that are under way at once behind the first, which nothing holds up and which may be all that is wanted: one is on the device, one is being decoded,
/// and one may wait for whoever reads.
const PIECES_AHEAD: usize = 3;

/// Puts [`PiecewiseExec`] where all asynchronous functions say how many rows they take at once. To be applied before limits are pushed down.
#[derive(Debug)]
pub struct InPieces;

impl PhysicalOptimizerRule for InPieces {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let most = config.execution.batch_size.get();
        plan.transform_up(|node| {
            if let Some(whole) = node.downcast_ref::<AsyncFuncExec>()
                && let Some(piecewise) = PiecewiseExec::instead_of(whole, most)?
            {
                return Ok(Transformed::yes(Arc::new(piecewise) as Arc<dyn ExecutionPlan>));
            }
            if let Some(sort) = node.downcast_ref::<SortExec>()
                && let Some(sorted) = sorted_before(sort, false)?
            {
                return Ok(Transformed::yes(sorted));
            }
            if let Some(filter) = node.downcast_ref::<FilterExec>()
                && comes_in_pieces(filter.input())
            {
                // Batches of more than half of this size are handed on as they are.
                return Ok(Transformed::yes(Arc::new(filter.with_batch_size(1)?)));
            }
            Ok(Transformed::no(node))
        })
        .map(|plan| plan.data)
    }

    fn name(&self) -> &str {
        "InPieces"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Whether rows arrive here as a [`PiecewiseExec`] below yields them.
fn comes_in_pieces(plan: &Arc<dyn ExecutionPlan>) -> bool {
    match plan.children().as_slice() {
        _ if plan.is::<PiecewiseExec>() => true,
        [input] if plan.pipeline_behavior() == EmissionType::Incremental => comes_in_pieces(input),
        _ => false,
    }
}

/// The same rows in the same order, but sorted before the results are computed; `None` if the order needs the results, or there are none. Images as bytes
/// are never all sorted: the vectors in their place take less memory. So no sort of all rows goes below where there are bytes either (`below_bytes`):
/// DataFusion is not told that an order is kept there, and would take it for one that nobody needs.
fn sorted_before(sort: &SortExec, below_bytes: bool) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let mut keys: Vec<PhysicalSortExpr> = sort.expr().iter().cloned().collect();
    let mut above = Vec::new();
    let mut node = sort.input();
    // How many rows are left is known above filters only.
    let mut limit = None;
    let (piecewise, input) = loop {
        let made_of: Box<dyn Fn(usize) -> Option<Arc<dyn PhysicalExpr>>>;
        if let Some(projection) = node.downcast_ref::<ProjectionExec>() {
            made_of = Box::new(|index| Some(Arc::clone(&projection.expr().get(index)?.expr)));
        } else if let Some(filter) = node.downcast_ref::<FilterExec>()
            && filter.fetch().is_none()
            // Anything else could fail, and must not on a row that the filter leaves out.
            && keys.iter().all(|key| key.expr.is::<Column>())
        {
            limit = sort.fetch();
            let columns = filter.input().schema();
            made_of = Box::new(move |index| {
                let index = match filter.projection() {
                    Some(kept) => *kept.get(index)?,
                    None => index,
                };
                Some(Arc::new(Column::new(columns.field(index).name(), index)))
            });
        } else if let Some(piecewise) = node.downcast_ref::<PiecewiseExec>() {
            let columns = piecewise.input.schema();
            let given = move |index: usize| -> Option<Arc<dyn PhysicalExpr>> {
                let field = columns.fields().get(index)?;
                Some(Arc::new(Column::new(field.name(), index)))
            };
            let Some(below) = through(keys, &given)? else { return Ok(None) };
            keys = below;
            break (piecewise, Arc::clone(&piecewise.input));
        } else {
            return Ok(None);
        }
        let Some(below) = through(keys, &made_of)? else { return Ok(None) };
        keys = below;
        above.push(Arc::clone(node));
        node = node.children()[0];
    };
    let Some(keys) = LexOrdering::new(keys) else { return Ok(None) };
    let fetch = if limit.is_some() { None } else { sort.fetch() };
    let below_bytes = below_bytes || input.schema().fields().iter().any(holds_bytes);
    if below_bytes && fetch.is_none() {
        return Ok(None);
    }
    let sorted = SortExec::new(keys, input)
        .with_fetch(fetch)
        .with_preserve_partitioning(sort.preserve_partitioning());
    let sorted = match sorted_before(&sorted, below_bytes)? {
        Some(sorted) => sorted,
        None => Arc::new(sorted),
    };
    let (calls, schema) = (Arc::clone(&piecewise.calls), piecewise.schema());
    let mut plan: Arc<dyn ExecutionPlan> =
        Arc::new(PiecewiseExec::new(calls, piecewise.rows, schema, sorted)?);
    for node in above.into_iter().rev() {
        let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
        plan = node.replace_children(vec![plan], options)?;
    }
    Ok(Some(match limit {
        Some(limit) => Arc::new(GlobalLimitExec::new(plan, 0, Some(limit))),
        None => plan,
    }))
}

fn holds_bytes(field: &Arc<Field>) -> bool {
    match field.data_type() {
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => true,
        DataType::Struct(fields) => fields.iter().any(holds_bytes),
        _ => false,
    }
}

/// An order over what a plan's columns are made of; `None` if one of them is not known, or would be another when it is computed twice.
fn through(
    keys: Vec<PhysicalSortExpr>,
    made_of: &dyn Fn(usize) -> Option<Arc<dyn PhysicalExpr>>,
) -> Result<Option<Vec<PhysicalSortExpr>>> {
    let mut is_known = true;
    let mut below = Vec::with_capacity(keys.len());
    for key in keys {
        let expr = key.expr.transform_up(|part| {
            let Some(column) = part.downcast_ref::<Column>() else {
                return Ok(Transformed::no(part));
            };
            match made_of(column.index()).filter(|made_of| !is_volatile(made_of)) {
                Some(made_of) => Ok(Transformed::yes(made_of)),
                None => {
                    is_known = false;
                    Ok(Transformed::no(part))
                }
            }
        })?;
        below.push(PhysicalSortExpr { expr: expr.data, options: key.options });
    }
    Ok(is_known.then_some(below))
}

/// Appends the results of asynchronous functions to its input's columns, piece by piece and in the input's order.
#[derive(Clone, Debug)]
pub struct PiecewiseExec {
    calls: Arc<[Arc<AsyncFuncExpr>]>,
    /// Rows of the first piece, and of the largest.
    rows: (usize, usize),
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl PiecewiseExec {
    /// The same in pieces of at most `most` rows; `None` if a function does not say how many rows it takes at once.
    fn instead_of(whole: &AsyncFuncExec, most: usize) -> Result<Option<PiecewiseExec>> {
        let mut calls = Vec::new();
        let mut most = Some(most);
        whole.apply_expressions(&mut |root| {
            let Some(call) = root.downcast_ref::<AsyncFuncExpr>() else {
                return internal_err!("{root} is no asynchronous function");
            };
            let rows = call.ideal_batch_size()?;
            most = most.zip(rows).map(|(most, rows)| most.min(rows).max(1));
            calls.push(Arc::new(call.clone()));
            Ok(TreeNodeRecursion::Continue)
        })?;
        let Some(most) = most else { return Ok(None) };
        let rows = (FIRST_PIECE.min(most), most);
        PiecewiseExec::new(calls.into(), rows, whole.schema(), Arc::clone(whole.input())).map(Some)
    }

    fn new(
        calls: Arc<[Arc<AsyncFuncExpr>]>,
        rows: (usize, usize),
        schema: SchemaRef,
        input: Arc<dyn ExecutionPlan>,
    ) -> Result<PiecewiseExec> {
        // The input's columns keep their places, and with them what is known of their order.
        let columns = input.schema();
        let kept = columns.fields().iter().enumerate().map(|(index, field)| {
            let column = Arc::new(Column::new(field.name(), index)) as Arc<dyn PhysicalExpr>;
            (column, field.name().clone())
        });
        let kept = ProjectionMapping::try_new(kept, &columns)?;
        let properties = PlanProperties::new(
            input.equivalence_properties().project(&kept, schema),
            input.output_partitioning().clone(),
            input.pipeline_behavior(),
            input.boundedness(),
        );
        let metrics = ExecutionPlanMetricsSet::new();
        Ok(PiecewiseExec { calls, rows, input, properties: Arc::new(properties), metrics })
    }
}

impl DisplayAs for PiecewiseExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let calls: Vec<String> =
            self.calls.iter().map(|call| format!("{} as {}", call.func, call.name())).collect();
        let (calls, (first, most)) = (calls.join(", "), self.rows);
        match format {
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                write!(f, "PiecewiseExec: functions=[{calls}], rows_at_once={first}..{most}")
            }
            DisplayFormatType::TreeRender => {
                writeln!(f, "functions={calls}")?;
                writeln!(f, "rows_at_once={first}..{most}")
            }
        }
    }
}

impl ExecutionPlan for PiecewiseExec {
    fn name(&self) -> &str {
        "PiecewiseExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        let roots = self.calls.iter().map(|call| Arc::clone(call) as Arc<dyn PhysicalExpr>);
        apply_expression_roots(roots, f)
    }

    /// What is not said to be kept is not sorted below by DataFusion's rules either: see [`sorted_before`].
    fn maintains_input_order(&self) -> Vec<bool> {
        vec![!self.input.schema().fields().iter().any(holds_bytes)]
    }

    /// Partitions would wait for the same device.
    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let (Some(input), []) = (children.pop(), children.as_slice()) else {
            return internal_err!("PiecewiseExec has one child");
        };
        Ok(Arc::new(match options.children_properties {
            ChildrenPropertiesMode::Keep => PiecewiseExec {
                input,
                metrics: ExecutionPlanMetricsSet::new(),
                ..PiecewiseExec::clone(&self)
            },
            ChildrenPropertiesMode::Recompute => {
                PiecewiseExec::new(Arc::clone(&self.calls), self.rows, self.schema(), input)?
            }
        }))
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
        self.replace_children(children, options)
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, Arc::clone(&context))?;
        let output = BaselineMetrics::new(&self.metrics, partition);
        let pieces = MetricBuilder::new(&self.metrics).counter("pieces", partition);
        let work = Work {
            calls: Arc::clone(&self.calls),
            schema: self.schema(),
            config: Arc::clone(context.session_config().options()),
        };
        let (first, most) = self.rows;
        let begin = move |piece| under_way(work.clone(), piece, pieces.clone());
        let pieces = in_pieces(input, first, most);
        let stream = futures::stream::once(pieces.into_future())
            .flat_map(move |(first, others)| {
                let first = futures::stream::iter(first).then(begin.clone());
                first.chain(others.map(begin.clone()).buffered(PIECES_AHEAD))
            })
            .map(move |piece| piece.record_output(&output));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn supports_limit_pushdown(&self) -> bool {
        true
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::Equal
    }
}

/// What is done to each piece.
#[derive(Clone)]
struct Work {
    calls: Arc<[Arc<AsyncFuncExpr>]>,
    /// The input's columns and the functions'.
    schema: SchemaRef,
    config: Arc<ConfigOptions>,
}

impl Work {
    async fn on(self, piece: RecordBatch) -> Result<RecordBatch> {
        let mut columns = piece.columns().to_vec();
        for call in self.calls.iter() {
            let answer = call.invoke_with_args(&piece, Arc::clone(&self.config)).await?;
            columns.push(answer.to_array(piece.num_rows())?);
        }
        Ok(RecordBatch::try_new(self.schema, columns)?)
    }
}

/// A piece on its way, as a task that is stopped when nobody waits for it any more.
async fn under_way(work: Work, piece: Result<RecordBatch>, pieces: Count) -> Result<RecordBatch> {
    let piece = piece?;
    pieces.add(1);
    let done = SpawnedTask::spawn(work.on(piece)).join_unwind().await;
    done.map_err(|error| DataFusionError::ExecutionJoin(Box::new(error)))?
}

/// The rows of a stream in pieces of `first` rows, of twice as many, and so on up to `most`.
fn in_pieces(
    input: SendableRecordBatchStream,
    first: usize,
    most: usize,
) -> impl Stream<Item = Result<RecordBatch>> + Unpin {
    let cutter =
        Cutter { schema: input.schema(), input: Some(input), waiting: VecDeque::new(), rows: 0 };
    let pieces =
        futures::stream::try_unfold((cutter, first), move |(mut cutter, size)| async move {
            let piece = cutter.next(size).await?;
            Ok(piece.map(|piece| (piece, (cutter, size.saturating_mul(2).min(most)))))
        });
    Box::pin(pieces)
}

/// Rows that arrive in batches of any length and leave in pieces of one that is asked for.
struct Cutter {
    schema: SchemaRef,
    /// Let go of at its end.
    input: Option<SendableRecordBatchStream>,
    waiting: VecDeque<RecordBatch>,
    /// How many rows wait.
    rows: usize,
}

impl Cutter {
    /// The next `size` rows, or those that are left.
    async fn next(&mut self, size: usize) -> Result<Option<RecordBatch>> {
        while self.rows < size
            && let Some(input) = &mut self.input
        {
            match input.next().await.transpose()? {
                Some(batch) => {
                    self.rows += batch.num_rows();
                    self.waiting.push_back(batch);
                }
                None => self.input = None,
            }
        }
        let mut parts = Vec::new();
        let mut wanted = size.min(self.rows);
        self.rows -= wanted;
        while wanted > 0
            && let Some(batch) = self.waiting.pop_front()
        {
            let taken = batch.num_rows().min(wanted);
            wanted -= taken;
            parts.push(batch.slice(0, taken));
            if taken < batch.num_rows() {
                self.waiting.push_front(batch.slice(taken, batch.num_rows() - taken));
            }
        }
        match parts.as_slice() {
            [] => Ok(None),
            [part] => Ok(Some(part.clone())),
            parts => Ok(Some(concat_batches(&self.schema, parts)?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{Hash, Hasher};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use arrow::array::{ArrayRef, AsArray as _, Int64Array};
    use arrow::datatypes::{Int64Type, Schema};
    use async_trait::async_trait;
    use datafusion::catalog::MemTable;
    use datafusion::execution::session_state::SessionState;
    use datafusion::logical_expr::async_udf::{AsyncScalarUDF, AsyncScalarUDFImpl};
    use datafusion::logical_expr::{
        ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
    };
    use datafusion::physical_plan::{collect, displayable, execute_stream};
    use datafusion::prelude::SessionContext;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::exec::planning;
    use crate::functions::separate_nested;

    const ROWS: i64 = 10_000;
    const MOST: usize = 100;

    /// What [`Twice`] does, and has done.
    struct Bench {
        /// Taken by each piece that holds any number but the first ones.
        gate: Semaphore,
        begun: AtomicUsize,
        ended: AtomicUsize,
    }

    impl Bench {
        fn new(open: bool) -> Arc<Bench> {
            let gate = Semaphore::new(if open { Semaphore::MAX_PERMITS } else { 0 });
            Arc::new(Bench { gate, begun: AtomicUsize::new(0), ended: AtomicUsize::new(0) })
        }

        /// Waits until so many rows are done.
        async fn wait_for(&self, rows: usize) {
            while self.ended.load(Ordering::SeqCst) < rows {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }

    /// `twice(n)`; -13 is an error, -1 a panic.
    struct Twice {
        bench: Arc<Bench>,
        most: Option<usize>,
        signature: Signature,
    }

    impl fmt::Debug for Twice {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("twice")
        }
    }

    impl PartialEq for Twice {
        fn eq(&self, other: &Twice) -> bool {
            Arc::ptr_eq(&self.bench, &other.bench)
        }
    }

    impl Eq for Twice {}

    impl Hash for Twice {
        fn hash<H: Hasher>(&self, state: &mut H) {
            Arc::as_ptr(&self.bench).hash(state);
        }
    }

    impl ScalarUDFImpl for Twice {
        fn name(&self) -> &str {
            "twice"
        }

        fn signature(&self) -> &Signature {
            &self.signature
        }

        fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
            Ok(DataType::Int64)
        }

        fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
            panic!("it was called in its other form")
        }
    }

    #[async_trait]
    impl AsyncScalarUDFImpl for Twice {
        fn ideal_batch_size(&self) -> Option<usize> {
            self.most
        }

        async fn invoke_async_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
            let column = args.args[0].to_array(args.number_rows)?;
            let numbers = column.as_primitive::<Int64Type>();
            self.bench.begun.fetch_add(numbers.len(), Ordering::SeqCst);
            if numbers.iter().flatten().any(|n| n >= FIRST_PIECE as i64) {
                let _open = self.bench.gate.acquire().await.unwrap();
                // Later pieces are often done before earlier ones.
                let pause = u64::try_from(numbers.len() % 3).unwrap();
                tokio::time::sleep(Duration::from_millis(3 - pause)).await;
            }
            let twice = numbers.iter().map(|n| match n {
                Some(-13) => Err(DataFusionError::Execution("-13".to_owned())),
                Some(-1) => panic!("-1"),
                n => Ok(n.map(|n| n * 2)),
            });
            let twice: Int64Array = twice.collect::<Result<Vec<_>>>()?.into();
            self.bench.ended.fetch_add(numbers.len(), Ordering::SeqCst);
            Ok(ColumnarValue::Array(Arc::new(twice)))
        }
    }

    /// A state with a table `t` of numbers `n`, which come in batches of odd lengths, every seventh NULL, and with `twice`.
    fn state(bench: &Arc<Bench>, most: Option<usize>) -> SessionState {
        let all: Int64Array = (0..ROWS).map(|n| (n % 7 != 6).then_some(n)).collect();
        with_numbers(bench, most, &all)
    }

    fn with_numbers(bench: &Arc<Bench>, most: Option<usize>, all: &Int64Array) -> SessionState {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
        let (mut batches, mut start) = (Vec::new(), 0);
        for length in [1, 0, 2, 700, 3, 5, 1000].into_iter().cycle() {
            let length = length.min(all.len() - start);
            let part: ArrayRef = Arc::new(all.slice(start, length));
            batches.push(RecordBatch::try_new(schema.clone(), vec![part]).unwrap());
            start += length;
            if start == all.len() {
                break;
            }
        }
        let context = SessionContext::new();
        let table = MemTable::try_new(schema, vec![batches]).unwrap();
        context.register_table("t", Arc::new(table)).unwrap();
        let signature = Signature::any(1, Volatility::Volatile);
        let twice = Twice { bench: Arc::clone(bench), most, signature };
        context.register_udf(AsyncScalarUDF::new(Arc::new(twice)).into_scalar_udf());
        let mut state = context.state();
        // As the scan of a stored table, this one is of one partition.
        state.config_mut().options_mut().execution.target_partitions = 1;
        state
    }

    async fn planned(state: &SessionState, sql: &str) -> Arc<dyn ExecutionPlan> {
        let plan = state.create_logical_plan(sql).await.unwrap();
        let plan = separate_nested(state.optimize(&plan).unwrap()).unwrap();
        planning::physical(state, &plan).await.unwrap()
    }

    async fn stream(state: &SessionState, sql: &str) -> SendableRecordBatchStream {
        execute_stream(planned(state, sql).await, state.task_ctx()).unwrap()
    }

    async fn answer(state: &SessionState, sql: &str) -> RecordBatch {
        let plan = planned(state, sql).await;
        let schema = plan.schema();
        concat_batches(&schema, &collect(plan, state.task_ctx()).await.unwrap()).unwrap()
    }

    async fn in_time<T>(work: impl Future<Output = T>) -> T {
        tokio::time::timeout(Duration::from_secs(60), work).await.expect("it waits for ever")
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_first_rows_do_not_wait_for_the_others() {
        for sql in [
            "SELECT n, twice(n) FROM t",
            "SELECT n + 1, m + 1 FROM (SELECT n, twice(n) AS m FROM t) WHERE m >= 0 OR m IS NULL",
        ] {
            let bench = Bench::new(false);
            let state = state(&bench, Some(MOST));
            let mut stream = stream(&state, sql).await;
            // The gate is closed: these are the only ones that can be done.
            let batch = in_time(stream.next()).await.unwrap().unwrap();
            assert_eq!(batch.num_rows(), FIRST_PIECE, "{sql}");
            assert_eq!(bench.begun.load(Ordering::SeqCst), FIRST_PIECE, "{sql}");
            bench.gate.add_permits(1);
            let mut rows = batch.num_rows();
            while let Some(batch) = in_time(stream.next()).await {
                let batch = batch.unwrap();
                assert!(batch.num_rows() <= MOST, "{sql}: {}", batch.num_rows());
                rows += batch.num_rows();
            }
            assert_eq!(rows, usize::try_from(ROWS).unwrap(), "{sql}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_has_begun_ends_although_nobody_reads_on() {
        let bench = Bench::new(true);
        let state = state(&bench, Some(MOST));
        let mut stream = stream(&state, "SELECT twice(n) FROM t").await;
        for _ in 0..2 {
            in_time(stream.next()).await.unwrap().unwrap();
        }
        // The second piece has been read, and two more have begun with it.
        in_time(bench.wait_for(FIRST_PIECE + 2 * FIRST_PIECE + 4 * FIRST_PIECE + 8 * FIRST_PIECE))
            .await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_not_wanted_any_more_is_stopped() {
        let bench = Bench::new(false);
        let state = state(&bench, Some(MOST));
        let mut stream = stream(&state, "SELECT twice(n) FROM t").await;
        in_time(stream.next()).await.unwrap().unwrap();
        // The others begin once they are asked for, and wait at the gate.
        assert!(tokio::time::timeout(Duration::from_millis(100), stream.next()).await.is_err());
        assert!(bench.begun.load(Ordering::SeqCst) > FIRST_PIECE);
        drop(stream);
        bench.gate.add_permits(1);
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(bench.ended.load(Ordering::SeqCst), FIRST_PIECE);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_limit_computes_little_more_than_it_shows() {
        for (sql, rows, most) in [
            ("SELECT twice(n) FROM t LIMIT 3", 3, 3),
            ("SELECT twice(n) FROM t LIMIT 3 OFFSET 2", 3, 5),
            ("SELECT m FROM (SELECT n, twice(n) AS m FROM t) WHERE m >= 0 LIMIT 3", 3, FIRST_PIECE),
            (
                "SELECT * FROM (SELECT n, twice(n) AS m FROM t) WHERE m % 4 = 0 LIMIT 2",
                2,
                FIRST_PIECE,
            ),
            ("SELECT twice(n) FROM t ORDER BY n DESC LIMIT 5", 5, 5),
            ("SELECT n % 5, twice(n) + n AS m FROM t ORDER BY 1, abs(n) DESC LIMIT 5", 5, 5),
            (
                "SELECT n FROM (SELECT n, twice(n) AS m FROM t) WHERE m > 100 ORDER BY n DESC NULLS LAST LIMIT 3",
                3,
                FIRST_PIECE,
            ),
        ] {
            let bench = Bench::new(true);
            let state = state(&bench, Some(MOST));
            assert_eq!(in_time(answer(&state, sql)).await.num_rows(), rows, "{sql}");
            let begun = bench.begun.load(Ordering::SeqCst);
            assert!(begun <= most, "{sql}: {begun} rows");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn rows_are_those_of_whole_batches_in_their_order() {
        let (whole, pieces) =
            (state(&Bench::new(true), None), state(&Bench::new(true), Some(MOST)));
        let small = state(&Bench::new(true), Some(1));
        for sql in [
            "SELECT n, twice(n), twice(n + 1) + 1 FROM t",
            "SELECT n, m FROM (SELECT n, twice(n) AS m FROM t) WHERE m % 3 = 1 OR n IS NULL",
            "SELECT n FROM t WHERE twice(n) % 5 = 0",
            "SELECT count(*), sum(twice(n)), n % 3 FROM t GROUP BY n % 3 ORDER BY n % 3",
            "SELECT twice(n) FROM t WHERE n < 0",
            "SELECT twice(7)",
            "SELECT twice(n) FROM t ORDER BY n % 10, n DESC LIMIT 50",
            "SELECT n, m FROM (SELECT n, twice(n) AS m FROM t) WHERE m % 3 = 1 ORDER BY n % 10, n LIMIT 50",
            "SELECT n, m FROM (SELECT n, twice(n) AS m FROM t) WHERE m % 3 = 1 ORDER BY n % 10, n OFFSET 20",
            "SELECT n, twice(n) AS m FROM t ORDER BY m DESC LIMIT 20",
            // Bytes above the inner results and none below them.
            "SELECT n, image, m, twice(m) FROM (SELECT n, n::text::bytea AS image, twice(n) AS m FROM t) ORDER BY n DESC",
            "SELECT n, image, m, twice(m) FROM (SELECT n, n::text::bytea AS image, twice(n) AS m FROM t) ORDER BY n DESC LIMIT 20",
            "SELECT n, image, m, o FROM (SELECT n, image, m, twice(m) AS o FROM (SELECT n, n::text::bytea AS image, twice(n) AS m FROM t) WHERE m > 9) WHERE o > 99 ORDER BY n LIMIT 20",
            // The order is of those rows alone that the filter leaves.
            "SELECT n FROM (SELECT n, twice(n) AS m FROM t) WHERE m <> 0 ORDER BY 10 / n, n LIMIT 20",
            "SELECT a.n, a.m FROM (SELECT n, twice(n) AS m FROM t) a JOIN t ON a.m = t.n ORDER BY a.n LIMIT 50",
            "SELECT twice(n) AS m FROM t WHERE n < 9 UNION ALL SELECT twice(n) FROM t WHERE n > 9990 ORDER BY m",
        ] {
            let expected = answer(&whole, sql).await;
            assert_eq!(in_time(answer(&pieces, sql)).await, expected, "{sql}");
            if sql.contains("n < ") || sql.contains("7") {
                assert_eq!(in_time(answer(&small, sql)).await, expected, "{sql}");
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_error_comes_behind_the_rows_before_it_and_a_panic_stays_one() {
        let numbers: Int64Array = (0..100).map(|n| Some(if n == 20 { -13 } else { n })).collect();
        let failing = with_numbers(&Bench::new(true), Some(MOST), &numbers);
        let mut stream = stream(&failing, "SELECT twice(n) FROM t").await;
        assert_eq!(in_time(stream.next()).await.unwrap().unwrap().num_rows(), FIRST_PIECE);
        let error = in_time(stream.next()).await.unwrap().unwrap_err();
        assert!(error.to_string().contains("-13"), "{error}");

        let numbers = Int64Array::from(vec![-1]);
        let panicking = with_numbers(&Bench::new(true), Some(MOST), &numbers);
        let work = async move { answer(&panicking, "SELECT twice(n) FROM t").await };
        assert!(in_time(tokio::spawn(work)).await.unwrap_err().is_panic());
    }

    #[tokio::test]
    async fn plans_say_what_is_done_and_what_order_is_kept() {
        let show =
            |plan: &Arc<dyn ExecutionPlan>| displayable(plan.as_ref()).indent(false).to_string();
        let pieces = state(&Bench::new(true), Some(MOST));
        let plan = planned(&pieces, "SELECT n, twice(n) FROM t").await;
        let line = "PiecewiseExec: functions=[twice(n@0) as __async_fn_0], rows_at_once=8..100";
        assert!(show(&plan).contains(line), "{}", show(&plan));
        collect(Arc::clone(&plan), pieces.task_ctx()).await.unwrap();
        let metrics = plan.children()[0].metrics().unwrap();
        assert_eq!(metrics.output_rows(), usize::try_from(ROWS).ok());
        // 8, 16, 32 and 64 rows, then 98 times 100 and the rest.
        assert_eq!(metrics.sum_by_name("pieces").unwrap().as_usize(), 4 + 98 + 1);

        // An order is made before the results, and once.
        for sql in [
            "SELECT n, twice(n) AS m FROM (SELECT n FROM t ORDER BY n LIMIT 500) ORDER BY n",
            "SELECT twice(n) AS m FROM t ORDER BY n",
            "SELECT twice(twice(n) - n) AS m FROM t ORDER BY n + 1 LIMIT 5",
        ] {
            let plan = show(&planned(&pieces, sql).await);
            let (piecewise, sort) = (plan.rfind("PiecewiseExec"), plan.find("SortExec"));
            assert!(piecewise < sort && plan.matches("SortExec").count() == 1, "{sql}: {plan}");
        }
        for sql in [
            "SELECT twice(n) AS m FROM t ORDER BY m",
            "SELECT random() AS r, twice(n) FROM t ORDER BY r",
            "SELECT image, twice(n) FROM (SELECT n, min(n::text::bytea) AS image FROM t GROUP BY n) ORDER BY n",
        ] {
            let plan = show(&planned(&pieces, sql).await);
            assert!(plan.find("SortExec") < plan.find("PiecewiseExec"), "{sql}: {plan}");
        }

        // A function that does not say how many rows it takes gets whole batches.
        let whole = state(&Bench::new(true), None);
        let plan = show(&planned(&whole, "SELECT twice(n) FROM t").await);
        assert!(plan.contains("AsyncFuncExec"), "{plan}");
    }
}
