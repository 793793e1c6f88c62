//! What a session has changed and not yet committed.
//!
//! A statement outside of BEGIN runs in an implicit transaction that the protocol ends after it (or after the script it
//! stands in). Everything reads one snapshot a transaction. Changes of one table are made by one session at a time: a change
//! first takes the table's lock, and only then the snapshot if the transaction has none yet, so that plain INSERTs of many
//! clients queue up instead of failing; a transaction that read first and lost the race still fails with 40001.
//!
//! A savepoint keeps a copy of the notes on what was changed, not of the rows. Going back to one also ends the failed state
//! of a block; locks that were taken since stay until the block ends.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use thanosql_protocol::{SqlError, SqlState, TransactionStatus};
use thanosql_storage::{Owner, Savepoint, Snapshot, Store, Transaction};
use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;

use crate::catalog::constraints::{OnCommit, on_commit};
use crate::error::{cancelled, storage_error};

/// How long a transaction that holds a table waits for another one before that counts as a deadlock.
const DEADLOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// One lock a table, by name, for changes.
#[derive(Debug, Default)]
pub struct TableLocks {
    tables: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl TableLocks {
    fn of(&self, table: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        // Locks that nobody holds or waits for are dropped now and then, so that the map does not grow for ever.
        if tables.len() > 1024 {
            tables.retain(|_, lock| Arc::strong_count(lock) > 1);
        }
        tables.entry(table.to_string()).or_default().clone()
    }
}

/// Changes and the locks that protect them.
struct Work {
    transaction: Transaction,
    locks: HashMap<String, OwnedMutexGuard<()>>,
    /// Oldest first. A name may come twice; the newest counts.
    savepoints: Vec<(String, Savepoint)>,
}

impl Work {
    fn begin(store: &Store, owner: &Owner) -> Work {
        let transaction = store.begin_as(owner.clone());
        Work { transaction, locks: HashMap::new(), savepoints: Vec::new() }
    }

    fn savepoint(&self, name: &str) -> Result<usize, SqlError> {
        self.savepoints
            .iter()
            .rposition(|(other, _)| other == name)
            .ok_or_else(|| missing_savepoint(name))
    }
}

/// Where a session stands.
enum Block {
    Idle,
    /// Ends with the statement or its script.
    Implicit(Work),
    /// Between BEGIN and COMMIT; nothing until the first statement that reads or writes.
    Explicit(Option<Work>),
    /// An error came between BEGIN and COMMIT. What was changed is kept while there is a savepoint to go back to.
    Failed(Option<Work>),
}

/// A session's transaction. Shared with what a COPY reads into, which outlives the call that started it.
#[derive(Clone)]
pub struct SessionTransaction {
    store: Store,
    owner: Owner,
    locks: Arc<TableLocks>,
    block: Arc<Mutex<Block>>,
    /// Whether the session has made a temporary table to which a commit does something.
    heeds_on_commit: Arc<AtomicBool>,
}

impl SessionTransaction {
    /// A session outside of any transaction.
    pub fn new(store: Store, owner: Owner, locks: Arc<TableLocks>) -> SessionTransaction {
        SessionTransaction {
            store,
            owner,
            locks,
            block: Arc::new(Mutex::new(Block::Idle)),
            heeds_on_commit: Arc::default(),
        }
    }

    /// From now on commits look for temporary tables that say what becomes of them.
    pub fn heed_on_commit(&self) {
        self.heeds_on_commit.store(true, Ordering::Relaxed);
    }

    fn block(&self) -> MutexGuard<'_, Block> {
        self.block.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What ReadyForQuery says.
    pub fn status(&self) -> TransactionStatus {
        match &*self.block() {
            Block::Idle | Block::Implicit(_) => TransactionStatus::Idle,
            Block::Explicit(_) => TransactionStatus::InTransaction,
            Block::Failed(_) => TransactionStatus::Failed,
        }
    }

    /// Whether BEGIN was said.
    pub fn in_block(&self) -> bool {
        matches!(&*self.block(), Block::Explicit(_) | Block::Failed(_))
    }

    /// Whether something was changed that is not committed.
    pub fn has_changes(&self) -> bool {
        match &*self.block() {
            Block::Implicit(work) | Block::Explicit(Some(work)) => work.transaction.is_dirty(),
            Block::Idle | Block::Explicit(None) | Block::Failed(_) => false,
        }
    }

    /// What the next statement reads.
    pub fn snapshot(&self) -> Snapshot {
        let mut block = self.block();
        match &mut *block {
            Block::Idle | Block::Failed(_) => self.store.snapshot_of(self.owner.session),
            Block::Implicit(work) | Block::Explicit(Some(work)) => work.transaction.snapshot(),
            Block::Explicit(none) => {
                none.insert(Work::begin(&self.store, &self.owner)).transaction.snapshot()
            }
        }
    }

    /// What a statement would read now, for a look before it waits for a lock: a block in which nothing was read yet does not settle on it.
    pub fn peek(&self) -> Snapshot {
        match &*self.block() {
            Block::Idle | Block::Failed(_) | Block::Explicit(None) => {
                self.store.snapshot_of(self.owner.session)
            }
            Block::Implicit(work) | Block::Explicit(Some(work)) => work.transaction.snapshot(),
        }
    }

    /// The name under which a temporary table of this session is locked: nobody else's of its name is.
    pub fn temporary_lock(&self, table: &str) -> String {
        format!("temporary {} {table}", self.owner.session.unwrap_or_default())
    }

    /// BEGIN. What a script has changed before it becomes part of the block.
    pub fn begin(&self) {
        let mut block = self.block();
        *block = match std::mem::replace(&mut *block, Block::Idle) {
            Block::Idle => Block::Explicit(None),
            Block::Implicit(work) => Block::Explicit(Some(work)),
            already @ (Block::Explicit(_) | Block::Failed(_)) => already,
        };
    }

    /// COMMIT. `false` if the block had failed and was rolled back.
    ///
    /// # Errors
    /// 40001 for a lost race; the changes are gone then.
    pub fn commit(&self) -> Result<bool, SqlError> {
        let block = std::mem::replace(&mut *self.block(), Block::Idle);
        match block {
            Block::Idle | Block::Explicit(None) => self.keep_sequences().map(|()| true),
            Block::Implicit(work) | Block::Explicit(Some(work)) => {
                // The locks go after the commit is on disk, so that the next writer sees it.
                let Work { mut transaction, locks, savepoints } = work;
                drop(savepoints);
                let outcome = tokio::task::block_in_place(|| {
                    if self.heeds_on_commit.load(Ordering::Relaxed) {
                        empty_temporary(&mut transaction)?;
                    }
                    match transaction.is_dirty() {
                        true => transaction.commit(),
                        false => self.store.flush_sequences(),
                    }
                })
                .map_err(storage_error);
                drop(locks);
                outcome.map(|()| true)
            }
            Block::Failed(_) => Ok(false),
        }
    }

    /// ROLLBACK.
    pub fn rollback(&self) {
        *self.block() = Block::Idle;
    }

    /// Ends what a statement or script has begun implicitly.
    ///
    /// # Errors
    /// 40001 for a lost race.
    pub fn finish(&self, success: bool) -> Result<(), SqlError> {
        let mut block = self.block();
        match &mut *block {
            Block::Idle if success => {
                drop(block);
                return self.keep_sequences();
            }
            Block::Idle | Block::Failed(_) => return Ok(()),
            Block::Explicit(work) => {
                if !success {
                    // Without a savepoint nothing can be saved any more, and the locks go.
                    let kept = work.take().filter(|work| !work.savepoints.is_empty());
                    *block = Block::Failed(kept);
                }
                return Ok(());
            }
            Block::Implicit(_) => {}
        }
        drop(block);
        if success {
            self.commit()?;
        } else {
            self.rollback();
        }
        Ok(())
    }

    /// What `nextval` has given out in statements that changed nothing is not given out again after a crash.
    fn keep_sequences(&self) -> Result<(), SqlError> {
        if !self.store.has_unflushed_sequences() {
            return Ok(());
        }
        tokio::task::block_in_place(|| self.store.flush_sequences()).map_err(storage_error)
    }

    /// SAVEPOINT. Answers how many there are now.
    ///
    /// # Errors
    /// 25P01 outside of a block, 25P02 in a failed one.
    pub fn set_savepoint(&self, name: &str) -> Result<usize, SqlError> {
        match &mut *self.block() {
            Block::Idle | Block::Implicit(_) => Err(outside_of_block("SAVEPOINT")),
            Block::Failed(_) => Err(in_failed_block()),
            Block::Explicit(work) => {
                let work = work.get_or_insert_with(|| Work::begin(&self.store, &self.owner));
                let point = work.transaction.savepoint();
                work.savepoints.push((name.to_string(), point));
                Ok(work.savepoints.len())
            }
        }
    }

    /// RELEASE: forgets a savepoint and those after it. Answers how many are left.
    ///
    /// # Errors
    /// 25P01 outside of a block, 25P02 in a failed one, 3B001 for a name that is not there.
    pub fn release_savepoint(&self, name: &str) -> Result<usize, SqlError> {
        match &mut *self.block() {
            Block::Idle | Block::Implicit(_) => Err(outside_of_block("RELEASE SAVEPOINT")),
            Block::Failed(_) => Err(in_failed_block()),
            Block::Explicit(None) => Err(missing_savepoint(name)),
            Block::Explicit(Some(work)) => {
                let position = work.savepoint(name)?;
                work.savepoints.truncate(position);
                Ok(position)
            }
        }
    }

    /// ROLLBACK TO: undoes everything since a savepoint, which stays. Answers how many there are up to it.
    ///
    /// # Errors
    /// 25P01 outside of a block, 3B001 for a name that is not there.
    pub fn rollback_to_savepoint(&self, name: &str) -> Result<usize, SqlError> {
        let mut block = self.block();
        let work = match &mut *block {
            Block::Idle | Block::Implicit(_) => {
                return Err(outside_of_block("ROLLBACK TO SAVEPOINT"));
            }
            Block::Explicit(work) | Block::Failed(work) => work,
        };
        let Some(known) = work.as_mut() else { return Err(missing_savepoint(name)) };
        let position = known.savepoint(name)?;
        known.savepoints.truncate(position + 1);
        let Work { transaction, savepoints, .. } = known;
        if let Some((_, point)) = savepoints.last() {
            transaction.rollback_to(point);
        }
        let work = work.take();
        *block = Block::Explicit(work);
        Ok(position + 1)
    }

    /// Takes the lock of a table (or of a name to be) and makes sure that there is a transaction to write into.
    ///
    /// # Errors
    /// 57014 if the statement is cancelled meanwhile, 55P03 after lock_timeout, 40P01 when transactions wait for each other, 25P02 in
    /// a failed block.
    pub async fn write(
        &self,
        table: &str,
        lock_timeout: Option<Duration>,
        cancel: &CancellationToken,
    ) -> Result<(), SqlError> {
        let (held, holds_others) = match &*self.block() {
            Block::Idle | Block::Explicit(None) => (false, false),
            Block::Implicit(work) | Block::Explicit(Some(work)) => {
                (work.locks.contains_key(table), !work.locks.is_empty())
            }
            Block::Failed(_) => return Err(in_failed_block()),
        };
        let lock = if held {
            None
        } else {
            Some(self.lock(table, holds_others, lock_timeout, cancel).await?)
        };
        let mut block = self.block();
        let begin = || Work::begin(&self.store, &self.owner);
        let work = match &mut *block {
            Block::Failed(_) => return Err(in_failed_block()),
            Block::Implicit(work) => work,
            Block::Explicit(work) => work.get_or_insert_with(begin),
            idle @ Block::Idle => {
                *idle = Block::Implicit(begin());
                match idle {
                    Block::Implicit(work) => work,
                    Block::Idle | Block::Explicit(_) | Block::Failed(_) => {
                        unreachable!("it was just made implicit")
                    }
                }
            }
        };
        if let Some(lock) = lock {
            work.locks.insert(table.to_string(), lock);
        }
        Ok(())
    }

    async fn lock(
        &self,
        table: &str,
        holds_others: bool,
        lock_timeout: Option<Duration>,
        cancel: &CancellationToken,
    ) -> Result<OwnedMutexGuard<()>, SqlError> {
        let lock = self.locks.of(table);
        let deadlock = if holds_others { Some(DEADLOCK_TIMEOUT) } else { None };
        let limit = match (lock_timeout, deadlock) {
            (Some(lock), Some(deadlock)) => Some(lock.min(deadlock)),
            (limit, None) | (None, limit) => limit,
        };
        let waited = async {
            match limit {
                Some(limit) => tokio::time::timeout(limit, lock.lock_owned()).await.ok(),
                None => Some(lock.lock_owned().await),
            }
        };
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(cancelled()),
            guard = waited => guard.ok_or_else(|| {
                if lock_timeout.is_some_and(|timeout| Some(timeout) == limit) {
                    SqlError::new(SqlState::LOCK_NOT_AVAILABLE, "canceling statement due to lock timeout")
                } else {
                    SqlError::new(SqlState::DEADLOCK_DETECTED, "deadlock detected")
                        .with_detail(format!("the transaction waits for table \"{table}\" and holds others"))
                        .with_hint("Run the transaction again.")
                }
            }),
        }
    }

    /// Changes something. [`SessionTransaction::write`] must have been called before.
    ///
    /// # Errors
    /// What the store answers.
    pub fn change<T>(
        &self,
        change: impl FnOnce(&mut Transaction) -> thanosql_storage::Result<T>,
    ) -> Result<T, SqlError> {
        let mut block = self.block();
        match &mut *block {
            Block::Implicit(work) | Block::Explicit(Some(work)) => {
                tokio::task::block_in_place(|| change(&mut work.transaction)).map_err(storage_error)
            }
            Block::Failed(_) => Err(in_failed_block()),
            // The statement was cancelled and its transaction ended while rows were still on their way.
            Block::Idle | Block::Explicit(None) => Err(cancelled()),
        }
    }
}

/// What ON COMMIT says of the session's temporary tables.
fn empty_temporary(transaction: &mut Transaction) -> thanosql_storage::Result<()> {
    let tables = transaction.snapshot().tables();
    // Temporary tables come first.
    for table in tables.iter().take_while(|table| table.is_temporary()) {
        match on_commit(&table.schema()) {
            OnCommit::PreserveRows => {}
            OnCommit::DeleteRows if table.row_count() == 0 => {}
            OnCommit::DeleteRows => transaction.truncate(table.name())?,
            OnCommit::Drop => transaction.drop_table(table.name())?,
        }
    }
    Ok(())
}

fn outside_of_block(command: &str) -> SqlError {
    SqlError::new(
        SqlState::NO_ACTIVE_SQL_TRANSACTION,
        format!("{command} can only be used in transaction blocks"),
    )
}

fn missing_savepoint(name: &str) -> SqlError {
    SqlError::new(
        SqlState::INVALID_SAVEPOINT_SPECIFICATION,
        format!("savepoint \"{name}\" does not exist"),
    )
}

/// Nothing but the end of the block is accepted after an error in it.
pub fn in_failed_block() -> SqlError {
    SqlError::new(
        SqlState::IN_FAILED_SQL_TRANSACTION,
        "current transaction is aborted, commands ignored until end of transaction block",
    )
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};
    use thanosql_storage::StoreOptions;

    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let options = StoreOptions { sled_cache_bytes: 1 << 20, column_cache_bytes: 1 << 20 };
        let store = Store::open(folder.path(), options).unwrap();
        (folder, store)
    }

    fn create(session: &SessionTransaction, name: &str) {
        let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]));
        session.change(|transaction| transaction.create_table(name, schema)).unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn changes_are_seen_inside_and_only_after_commit_outside() {
        let (_folder, store) = store();
        let locks = Arc::new(TableLocks::default());
        let session = SessionTransaction::new(store.clone(), Owner::default(), locks);
        session.begin();
        session.write("t", None, &CancellationToken::new()).await.unwrap();
        create(&session, "t");
        assert!(session.snapshot().table("t").is_some());
        assert!(store.snapshot().table("t").is_none());
        assert!(session.commit().unwrap());
        assert!(store.snapshot().table("t").is_some());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_error_fails_the_block_until_it_ends() {
        let (_folder, store) = store();
        let session = SessionTransaction::new(store.clone(), Owner::default(), Arc::default());
        session.begin();
        session.write("t", None, &CancellationToken::new()).await.unwrap();
        create(&session, "t");
        session.finish(false).unwrap();
        assert_eq!(session.status(), TransactionStatus::Failed);
        let error = session.write("t", None, &CancellationToken::new()).await.unwrap_err();
        assert_eq!(error.code, SqlState::IN_FAILED_SQL_TRANSACTION);
        assert!(!session.commit().unwrap());
        assert!(store.snapshot().table("t").is_none());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_savepoint_brings_a_failed_block_back() {
        let (_folder, store) = store();
        let session = SessionTransaction::new(store.clone(), Owner::default(), Arc::default());
        let outside = session.set_savepoint("a").unwrap_err();
        assert_eq!(outside.code, SqlState::NO_ACTIVE_SQL_TRANSACTION);
        session.begin();
        session.write("t", None, &CancellationToken::new()).await.unwrap();
        create(&session, "kept");
        session.set_savepoint("a").unwrap();
        create(&session, "lost");
        session.set_savepoint("b").unwrap();
        session.finish(false).unwrap();
        assert_eq!(session.status(), TransactionStatus::Failed);
        assert_eq!(
            session.set_savepoint("c").unwrap_err().code,
            SqlState::IN_FAILED_SQL_TRANSACTION
        );
        assert_eq!(session.rollback_to_savepoint("a").unwrap(), 1);
        assert_eq!(session.status(), TransactionStatus::InTransaction);
        let gone = session.rollback_to_savepoint("b").unwrap_err();
        assert_eq!(gone.code, SqlState::INVALID_SAVEPOINT_SPECIFICATION);
        assert_eq!(session.release_savepoint("a").unwrap(), 0);
        assert!(session.commit().unwrap());
        assert!(store.snapshot().table("kept").is_some());
        assert!(store.snapshot().table("lost").is_none());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_writer_waits_for_the_table_and_can_be_cancelled() {
        let (_folder, store) = store();
        let locks = Arc::new(TableLocks::default());
        let first = SessionTransaction::new(store.clone(), Owner::default(), locks.clone());
        let second = SessionTransaction::new(store.clone(), Owner::default(), locks);
        first.write("t", None, &CancellationToken::new()).await.unwrap();
        let cancel = CancellationToken::new();
        let waiting = second.write("t", None, &cancel);
        cancel.cancel();
        assert_eq!(waiting.await.unwrap_err().code, SqlState::QUERY_CANCELED);
        let timeout = Some(Duration::from_millis(10));
        let error = second.write("t", timeout, &CancellationToken::new()).await.unwrap_err();
        assert_eq!(error.code, SqlState::LOCK_NOT_AVAILABLE);
        first.finish(true).unwrap();
        second.write("t", timeout, &CancellationToken::new()).await.unwrap();
    }
}
