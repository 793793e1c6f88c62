//! Cursors: DECLARE, FETCH, MOVE, CLOSE.
//!
//! A cursor is a query's stream that stays open between statements; FETCH takes rows from it as they are made, so a cursor
//! over any number of rows costs what one batch costs. It reads the snapshot of its DECLARE, which is immutable, so a cursor
//! WITH HOLD simply goes on after the commit. Only SCROLL keeps rows, because it may have to give them again: they count against
//! the memory of queries, and more than that is 53200. A FETCH that fails or is stopped is a cursor's last: what follows would not be
//! the rows after those that the client has seen.
//!
//! Left out: BINARY, and `WHERE CURRENT OF`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use arrow::array::{RecordBatch, UInt64Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::SchemaRef;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use futures::StreamExt as _;
use thanosql_protocol::{Closed, Response, RowStream, RowsTag, SqlError, SqlState};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Control;
use super::query::result_schema;
use crate::catalog::system::CursorDescription;
use crate::error::{arrow_error, datafusion_error};
use crate::plan::{self, Parameters};
use crate::session::ClientSession;
use crate::sql::{DeclareCursor, Fetch, FetchDirection, Parsed};

/// A session's open cursors. Shared with the session's catalog, which shows them.
#[derive(Default)]
pub struct Cursors {
    open: Mutex<BTreeMap<String, Cursor>>,
}

struct Cursor {
    schema: SchemaRef,
    rows: Arc<tokio::sync::Mutex<CursorRows>>,
    description: CursorDescription,
    /// How many savepoints there were at its DECLARE; `None` once the transaction of that is committed.
    depth: Option<usize>,
    /// Stops the query when the cursor is closed.
    _stop: DropGuard,
}

impl Cursors {
    fn open(&self) -> MutexGuard<'_, BTreeMap<String, Cursor>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What pg_cursors shows.
    pub fn list(&self) -> Vec<CursorDescription> {
        self.open().values().map(|cursor| cursor.description.clone()).collect()
    }

    /// The transaction has ended: cursors end with it, unless they are held and it was committed.
    pub fn end_transaction(&self, committed: bool) {
        self.open().retain(|_, cursor| {
            let keeps = cursor.depth.is_none() || (committed && cursor.description.holdable);
            cursor.depth = None;
            keeps
        });
    }

    /// The transaction went back to its savepoint number `depth`: cursors that were declared after it are gone.
    pub fn roll_back_to(&self, depth: usize) {
        self.open().retain(|_, cursor| cursor.depth.is_none_or(|declared| declared < depth));
    }

    /// The savepoints after number `depth` are forgotten; their cursors are the transaction's.
    pub fn release_to(&self, depth: usize) {
        for cursor in self.open().values_mut() {
            cursor.depth = cursor.depth.map(|declared| declared.min(depth));
        }
    }

    /// The columns that FETCH gives.
    ///
    /// # Errors
    /// 34000 for a cursor that does not exist.
    pub fn schema(&self, name: &str) -> Result<SchemaRef, SqlError> {
        self.open().get(name).map(|cursor| cursor.schema.clone()).ok_or_else(|| missing(name))
    }
}

impl ClientSession {
    /// DECLARE.
    pub(crate) async fn declare_cursor(
        &mut self,
        parsed: &Parsed,
        declare: &DeclareCursor,
        parameters: Parameters,
        control: &Control,
    ) -> Result<Response, SqlError> {
        let name = &declare.name.value;
        if declare.binary {
            let error =
                SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, "a binary cursor is not supported");
            return Err(error.with_hint("The extended protocol gives results in binary."));
        }
        if !declare.hold && !self.transaction.in_block() {
            return Err(SqlError::new(
                SqlState::NO_ACTIVE_SQL_TRANSACTION,
                "DECLARE CURSOR can only be used in transaction blocks",
            )
            .with_hint("Use BEGIN first, or declare the cursor WITH HOLD."));
        }
        if self.cursors.open().contains_key(name) {
            return Err(SqlError::new(
                SqlState::DUPLICATE_CURSOR,
                format!("cursor \"{name}\" already exists"),
            )
            .at(declare.name.position));
        }
        // The query goes on after this statement, so it has a token of its own.
        let cancel = CancellationToken::new();
        let stop = cancel.clone().drop_guard();
        let mut scope = self.scope_with(parsed, parameters, cancel)?;
        self.keep_body(&mut scope, &declare.body, control).await?;
        let plan = plan::plan_body(&self.state, &scope, &declare.body)?;
        let schema = result_schema(&plan);
        let stream = control.run(self.start(&scope, plan)).await?;
        let scrollable = declare.scroll == Some(true);
        let kept = scrollable.then(|| Kept {
            batches: Vec::new(),
            rows: 0,
            reserved: MemoryConsumer::new("cursor").register(&self.state.runtime_env().memory_pool),
        });
        let cursor = Cursor {
            schema,
            rows: Arc::new(tokio::sync::Mutex::new(CursorRows {
                stream: Some(stream),
                ahead: None,
                position: 0,
                has_failed: false,
                kept,
            })),
            description: CursorDescription {
                name: name.clone(),
                statement: parsed.text.clone(),
                holdable: declare.hold,
                scrollable,
                created: SystemTime::now(),
            },
            depth: Some(self.savepoint_settings.len()),
            _stop: stop,
        };
        self.cursors.open().insert(name.clone(), cursor);
        Ok(Response::Done { tag: "DECLARE CURSOR".to_string() })
    }

    /// FETCH and MOVE.
    pub(crate) async fn fetch(
        &mut self,
        fetch: &Fetch,
        control: &Control,
    ) -> Result<Response, SqlError> {
        let name = &fetch.cursor.value;
        let (schema, rows) = {
            let open = self.cursors.open();
            let cursor = open.get(name).ok_or_else(|| missing(name).at(fetch.cursor.position))?;
            (cursor.schema.clone(), cursor.rows.clone())
        };
        let mut rows = rows.try_lock_owned().map_err(|_| {
            SqlError::new(
                SqlState::OBJECT_IN_USE,
                format!("cursor \"{name}\" is in use by a portal that is not finished"),
            )
        })?;
        if rows.has_failed {
            return Err(SqlError::new(
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("portal \"{name}\" cannot be run"),
            ));
        }
        if rows.kept.is_some() {
            let wanted = control.run(rows.scroll(fetch.direction)).await;
            let wanted = rows.noted(wanted)?;
            let count: usize = wanted.iter().map(RecordBatch::num_rows).sum();
            if fetch.moves {
                return Ok(Response::Done { tag: format!("MOVE {count}") });
            }
            let tag = RowsTag::Counted("FETCH".to_string());
            return Ok(super::query::rows(schema, wanted, tag));
        }
        let (skip, take) = rows.forward(fetch.direction)?;
        if skip > 0 {
            let skipped = control.run(rows.skip(skip)).await;
            rows.noted(skipped)?;
        }
        if fetch.moves {
            let count = control.run(rows.skip(take)).await;
            let count = rows.noted(count)?;
            return Ok(Response::Done { tag: format!("MOVE {count}") });
        }
        Ok(Response::Rows {
            schema,
            rows: taken(rows, take, control.clone()),
            tag: RowsTag::Counted("FETCH".to_string()),
        })
    }

    /// CLOSE, of one cursor or all.
    pub(crate) fn close_cursor(&mut self, name: Option<&str>) -> Result<Response, SqlError> {
        let Some(name) = name else {
            self.cursors.open().clear();
            self.closed.push(Closed::AllPortals);
            return Ok(Response::Done { tag: "CLOSE CURSOR ALL".to_string() });
        };
        match self.cursors.open().remove(name) {
            Some(_) => Ok(Response::Done { tag: "CLOSE CURSOR".to_string() }),
            None => Err(missing(name)),
        }
    }
}

fn missing(name: &str) -> SqlError {
    SqlError::new(SqlState::INVALID_CURSOR_NAME, format!("cursor \"{name}\" does not exist"))
}

fn forward_only() -> SqlError {
    SqlError::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, "cursor can only scan forward")
        .with_hint("Declare it with SCROLL option to enable backward scan.")
}

/// Where a cursor is in its rows.
struct CursorRows {
    /// Nothing once it has ended.
    stream: Option<SendableRecordBatchStream>,
    /// Rows that the stream gave and that nobody has taken yet.
    ahead: Option<RecordBatch>,
    /// How many rows lie before the cursor, the one that it stands on included; one more than there are behind the last.
    position: u64,
    /// Whether a FETCH has failed.
    has_failed: bool,
    /// The rows so far, of a cursor that may go back.
    kept: Option<Kept>,
}

struct Kept {
    batches: Vec<RecordBatch>,
    rows: u64,
    reserved: MemoryReservation,
}

impl CursorRows {
    /// What a FETCH has come to. One that failed lets go of the rows.
    fn noted<T>(&mut self, outcome: Result<T, SqlError>) -> Result<T, SqlError> {
        if outcome.is_err() {
            self.has_failed = true;
            (self.stream, self.ahead, self.kept) = (None, None, None);
        }
        outcome
    }

    /// The next rows, at most `limit`.
    async fn next(&mut self, limit: u64) -> Result<Option<RecordBatch>, SqlError> {
        while self.ahead.as_ref().is_none_or(|batch| batch.num_rows() == 0) {
            let Some(stream) = self.stream.as_mut() else { return Ok(None) };
            match stream.next().await {
                Some(Ok(batch)) => self.ahead = Some(batch),
                Some(Err(error)) => return Err(datafusion_error(error, None)),
                None => self.stream = None,
            }
        }
        let Some(batch) = self.ahead.take() else { return Ok(None) };
        let count = batch.num_rows().min(usize::try_from(limit).unwrap_or(usize::MAX));
        if count < batch.num_rows() {
            self.ahead = Some(batch.slice(count, batch.num_rows() - count));
        }
        Ok(Some(batch.slice(0, count)))
    }

    /// Passes over rows; answers how many there were.
    async fn skip(&mut self, rows: u64) -> Result<u64, SqlError> {
        let mut passed = 0;
        while passed < rows {
            match self.next(rows - passed).await? {
                Some(batch) => {
                    passed += batch.num_rows() as u64;
                    self.position += batch.num_rows() as u64;
                }
                None => break,
            }
        }
        Ok(passed)
    }

    /// How many rows to pass over and how many to take, of a cursor that cannot go back.
    fn forward(&self, direction: FetchDirection) -> Result<(u64, u64), SqlError> {
        let ahead = |distance: i64| match u64::try_from(distance) {
            // Staying where no row is gives none.
            Ok(0) if self.position == 0 => Ok((0, 0)),
            Ok(0) | Err(_) => Err(forward_only()),
            Ok(distance) => Ok((distance - 1, 1)),
        };
        match direction {
            FetchDirection::ForwardAll => Ok((0, u64::MAX)),
            FetchDirection::BackwardAll => Err(forward_only()),
            FetchDirection::Forward(count) if count > 0 => Ok((0, count.unsigned_abs())),
            FetchDirection::Forward(count) => ahead(count),
            FetchDirection::Relative(distance) => ahead(distance),
            FetchDirection::Absolute(row) => {
                let position = i64::try_from(self.position).unwrap_or(i64::MAX);
                if row < 0 { Err(forward_only()) } else { ahead(row - position) }
            }
        }
    }

    /// Moves a cursor that may go back, and gives the rows that it passes.
    async fn scroll(&mut self, direction: FetchDirection) -> Result<Vec<RecordBatch>, SqlError> {
        let at = i64::try_from(self.position).unwrap_or(i64::MAX);
        let needed = match direction {
            FetchDirection::Forward(count) | FetchDirection::Relative(count) => {
                at.saturating_add(count.max(0))
            }
            FetchDirection::Absolute(row) if row >= 0 => row,
            FetchDirection::Absolute(_) | FetchDirection::ForwardAll => i64::MAX,
            FetchDirection::BackwardAll => at,
        };
        self.keep_until(u64::try_from(needed).unwrap_or(0)).await?;
        let Some(kept) = &self.kept else { return Ok(Vec::new()) };
        let rows = i64::try_from(kept.rows).unwrap_or(i64::MAX);
        // Rows count from 1; before the first is 0, behind the last one more than there are.
        let behind = rows + 1;
        let (first, last, position) = match direction {
            FetchDirection::Forward(count) if count > 0 => {
                let target = at.saturating_add(count).min(behind);
                (at + 1, target.min(rows), target)
            }
            FetchDirection::ForwardAll => (at + 1, rows, behind),
            FetchDirection::Forward(count) if count < 0 => {
                let target = at.saturating_add(count).max(0);
                (at - 1, target.max(1), target)
            }
            FetchDirection::BackwardAll => (at - 1, 1, 0),
            FetchDirection::Forward(distance) | FetchDirection::Relative(distance) => {
                let target = at.saturating_add(distance).clamp(0, behind);
                (target, target, target)
            }
            FetchDirection::Absolute(row) => {
                let target = if row < 0 { behind.saturating_add(row) } else { row };
                let target = target.clamp(0, behind);
                (target, target, target)
            }
        };
        let backward = match direction {
            FetchDirection::Forward(count) => count < 0,
            FetchDirection::BackwardAll => true,
            FetchDirection::ForwardAll
            | FetchDirection::Relative(_)
            | FetchDirection::Absolute(_) => false,
        };
        let wanted: Vec<u64> = if backward {
            (last..=first).rev().filter_map(|row| u64::try_from(row - 1).ok()).collect()
        } else {
            (first.max(1)..=last.min(rows)).filter_map(|row| u64::try_from(row - 1).ok()).collect()
        };
        let batches = kept.take(&wanted)?;
        self.position = u64::try_from(position).unwrap_or(0);
        Ok(batches)
    }

    /// Reads on until so many rows are kept or there are no more.
    async fn keep_until(&mut self, rows: u64) -> Result<(), SqlError> {
        while self.kept.as_ref().is_some_and(|kept| kept.rows < rows) {
            let Some(batch) = self.next(u64::MAX).await? else { break };
            let Some(kept) = &mut self.kept else { break };
            kept.reserved
                .try_grow(bytes_of(&batch)?)
                .map_err(|error| datafusion_error(error, None))?;
            kept.rows += batch.num_rows() as u64;
            kept.batches.push(batch);
        }
        Ok(())
    }
}

/// What a batch takes: its own part of buffers that it shares with others.
fn bytes_of(batch: &RecordBatch) -> Result<usize, SqlError> {
    batch
        .columns()
        .iter()
        .map(|column| column.to_data().get_slice_memory_size())
        .sum::<Result<_, _>>()
        .map_err(arrow_error)
}

impl Kept {
    /// Rows by number, counted from 0.
    fn take(&self, wanted: &[u64]) -> Result<Vec<RecordBatch>, SqlError> {
        let mut taken: Vec<RecordBatch> = Vec::new();
        let mut starts = Vec::with_capacity(self.batches.len());
        let mut start = 0;
        for batch in &self.batches {
            starts.push(start);
            start += batch.num_rows() as u64;
        }
        let mut index = 0;
        while let Some(row) = wanted.get(index) {
            let number = starts.partition_point(|start| start <= row) - 1;
            let batch = &self.batches[number];
            let range = starts[number]..starts[number] + batch.num_rows() as u64;
            let inside: Vec<u64> = wanted[index..]
                .iter()
                .take_while(|row| range.contains(row))
                .map(|row| row - range.start)
                .collect();
            index += inside.len();
            taken.push(take_record_batch(batch, &UInt64Array::from(inside)).map_err(arrow_error)?);
        }
        Ok(taken)
    }
}

/// Rows of a cursor as a client takes them.
fn taken(
    rows: tokio::sync::OwnedMutexGuard<CursorRows>,
    count: u64,
    control: Control,
) -> RowStream {
    let start = Some((rows, count, control));
    Box::pin(futures::stream::unfold(start, |state| async move {
        let (mut rows, left, control) = state?;
        if left == 0 {
            return None;
        }
        let next = control.run(rows.next(left)).await;
        match rows.noted(next) {
            Ok(Some(batch)) => {
                rows.position += batch.num_rows() as u64;
                let left = left - batch.num_rows() as u64;
                Some((Ok(batch), Some((rows, left, control))))
            }
            Ok(None) => {
                rows.position += 1;
                None
            }
            Err(error) => Some((Err(error), None)),
        }
    }))
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryPool};
    use datafusion::physical_plan::stream::RecordBatchStreamAdapter;

    use super::*;

    /// The numbers 1 to `rows`, three a batch.
    fn cursor(rows: i64, memory: Option<usize>) -> CursorRows {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
        let numbers: Vec<i64> = (1..=rows).collect();
        let batches: Vec<_> = numbers
            .chunks(3)
            .map(|chunk| {
                let column = Arc::new(Int64Array::from(chunk.to_vec()));
                Ok(RecordBatch::try_new(schema.clone(), vec![column]).unwrap())
            })
            .collect();
        let stream = RecordBatchStreamAdapter::new(schema, futures::stream::iter(batches));
        CursorRows {
            stream: Some(Box::pin(stream)),
            ahead: None,
            position: 0,
            has_failed: false,
            kept: memory.map(|bytes| {
                let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(bytes));
                Kept {
                    batches: Vec::new(),
                    rows: 0,
                    reserved: MemoryConsumer::new("cursor").register(&pool),
                }
            }),
        }
    }

    fn numbers(batches: &[RecordBatch]) -> Vec<i64> {
        batches
            .iter()
            .flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec())
            .collect()
    }

    #[tokio::test]
    async fn a_scrolling_cursor_goes_everywhere() {
        use FetchDirection::{Absolute, BackwardAll, Forward, ForwardAll, Relative};
        let mut rows = cursor(7, Some(1 << 20));
        // Each line was read off a PostgreSQL 15.
        for (direction, expected) in [
            (Forward(2), vec![1, 2]),
            (Forward(-1), vec![1]),
            (Forward(-1), vec![]),
            (Forward(5), vec![1, 2, 3, 4, 5]),
            (Forward(0), vec![5]),
            (Relative(-2), vec![3]),
            (Absolute(-1), vec![7]),
            (Forward(1), vec![]),
            (Forward(-3), vec![7, 6, 5]),
            (ForwardAll, vec![6, 7]),
            (BackwardAll, vec![7, 6, 5, 4, 3, 2, 1]),
            (Absolute(4), vec![4]),
            (Absolute(0), vec![]),
            (Forward(1), vec![1]),
            (Absolute(9), vec![]),
            (Relative(-1), vec![7]),
            (Absolute(-9), vec![]),
        ] {
            let found = rows.scroll(direction).await.unwrap();
            assert_eq!(numbers(&found), expected, "{direction:?}");
        }
    }

    #[tokio::test]
    async fn a_scrolling_cursor_keeps_no_more_than_its_memory() {
        let mut rows = cursor(1000, Some(256));
        let error = rows.scroll(FetchDirection::ForwardAll).await.unwrap_err();
        assert_eq!(error.code, SqlState::OUT_OF_MEMORY);
    }

    #[tokio::test]
    async fn a_plain_cursor_goes_forward_only() {
        let mut rows = cursor(7, None);
        assert_eq!(rows.forward(FetchDirection::Forward(2)).unwrap(), (0, 2));
        assert_eq!(rows.skip(4).await.unwrap(), 4);
        assert_eq!(rows.forward(FetchDirection::Absolute(6)).unwrap(), (1, 1));
        assert_eq!(rows.forward(FetchDirection::Relative(3)).unwrap(), (2, 1));
        for backward in [
            FetchDirection::Forward(-1),
            FetchDirection::Forward(0),
            FetchDirection::BackwardAll,
            FetchDirection::Absolute(3),
            FetchDirection::Absolute(-1),
        ] {
            let error = rows.forward(backward).unwrap_err();
            assert_eq!(error.code, SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, "{backward:?}");
        }
        let batch = rows.next(2).await.unwrap().unwrap();
        assert_eq!(numbers(&[batch]), [5, 6]);
        assert_eq!(rows.skip(10).await.unwrap(), 1);
        assert!(rows.next(1).await.unwrap().is_none());
    }
}
