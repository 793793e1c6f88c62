//! Joins that stop with their statement.
//!
//! A stream is stopped between its batches, and operators give way to others while they read. A join whose condition rejects nearly everything
//! does neither: it compares millions of pairs before it yields or reads again. But it evaluates its condition for some thousand
//! pairs at a time, so the condition asks whether the statement still runs. And from time to time it lets others have the thread: as many such joins
//! as there are threads would otherwise keep timers and connections waiting, and with them whatever could stop the statement.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::{FieldRef, Schema};
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode as _};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::joins::{
    HashJoinExec, HashJoinExecBuilder, NestedLoopJoinExec, NestedLoopJoinExecBuilder,
};
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio_util::sync::CancellationToken;

use crate::error::{check_stop, through_datafusion};

/// How long conditions are evaluated one after the other before others have their turn.
const BURST: Duration = Duration::from_millis(20);

/// A pause that makes what follows another burst.
const PAUSE: Duration = Duration::from_millis(5);

/// How long others have, so that one of them is awake by then.
const TURN: Duration = Duration::from_millis(1);

/// Lets the conditions of joins end with 57014 as soon as `stop` is cancelled.
pub(super) fn interruptible(
    plan: Arc<dyn ExecutionPlan>,
    stop: &CancellationToken,
) -> Result<Arc<dyn ExecutionPlan>> {
    let watched = |filter: &JoinFilter| {
        let condition = WhileRunning {
            inner: filter.expression().clone(),
            stop: stop.clone(),
            burst: Arc::default(),
        };
        JoinFilter::new(
            Arc::new(condition),
            filter.column_indices().to_vec(),
            filter.schema().clone(),
        )
    };
    plan.transform_up(|node| {
        if let Some(join) = node.downcast_ref::<NestedLoopJoinExec>()
            && let Some(filter) = join.filter()
        {
            let join = NestedLoopJoinExecBuilder::from(join).with_filter(Some(watched(filter)));
            return Ok(Transformed::yes(Arc::new(join.build()?) as Arc<dyn ExecutionPlan>));
        }
        if let Some(join) = node.downcast_ref::<HashJoinExec>()
            && let Some(filter) = join.filter()
        {
            let join = HashJoinExecBuilder::from(join).with_filter(Some(watched(filter)));
            return Ok(Transformed::yes(join.build_exec()?));
        }
        Ok(Transformed::no(node))
    })
    .map(|plan| plan.data)
}

/// A condition that is an error once its statement has been stopped.
#[derive(Debug)]
struct WhileRunning {
    inner: Arc<dyn PhysicalExpr>,
    stop: CancellationToken,
    burst: Arc<Mutex<Option<Burst>>>,
}

/// Evaluations that follow each other without a pause.
#[derive(Clone, Copy, Debug)]
struct Burst {
    began: Instant,
    last: Instant,
}

impl WhileRunning {
    /// Lets others have the thread if it was kept for long.
    fn give_way(&self) {
        let now = Instant::now();
        let mut burst = self.burst.lock().unwrap_or_else(PoisonError::into_inner);
        let began = burst.filter(|burst| now - burst.last < PAUSE).map_or(now, |burst| burst.began);
        let is_long = now - began >= BURST;
        *burst = (!is_long).then_some(Burst { began, last: now });
        drop(burst);
        let on_worker = Handle::try_current()
            .is_ok_and(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread);
        if is_long && on_worker {
            tokio::task::block_in_place(|| std::thread::sleep(TURN));
        }
    }
}

impl PartialEq for WhileRunning {
    fn eq(&self, other: &WhileRunning) -> bool {
        self.inner.eq(&other.inner)
    }
}

impl Eq for WhileRunning {}

impl Hash for WhileRunning {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl fmt::Display for WhileRunning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl PhysicalExpr for WhileRunning {
    fn return_field(&self, schema: &Schema) -> Result<FieldRef> {
        self.inner.return_field(schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        check_stop(&self.stop).map_err(through_datafusion)?;
        self.give_way();
        self.inner.evaluate(batch)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.inner]
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        let inner = children.pop().unwrap_or_else(|| self.inner.clone());
        Ok(Arc::new(WhileRunning { inner, stop: self.stop.clone(), burst: self.burst.clone() }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt_sql(f)
    }
}
