//! Running statements. One file a kind: queries, changes (`dml`), definitions (`ddl`), COPY, models and their tables, settings and
//! the rest of a session.
//!
//! Every statement runs under a [`Control`]: one token that stops it, whoever pulls it (CancelRequest, a vanished client,
//! statement_timeout, shutdown), and the way for its notices.

pub mod alter;
pub mod append;
pub mod checks;
pub mod constraints;
pub mod copy;
pub mod cursors;
pub mod datasets;
pub mod ddl;
pub mod dml;
pub mod exchange;
pub mod explain;
mod given_values;
pub mod indexes;
pub mod ingest;
mod interruptible;
pub mod keep;
pub mod models;
pub mod pgvector;
pub mod piecewise;
mod planning;
pub mod query;
pub mod rowset;
pub mod session;
mod statement_text;
pub mod targets;
pub mod training;
mod truncate;
pub mod upsert;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use thanosql_protocol::{NoticeSender, SqlError, SqlState, StatementContext};
use tokio_util::sync::{CancellationToken, DropGuard};

/// What a running statement is controlled by.
#[derive(Clone)]
pub struct Control {
    /// Pulled when the statement shall stop.
    pub cancel: CancellationToken,
    /// Where its notices go.
    pub notices: NoticeSender,
    timed_out: Arc<AtomicBool>,
    /// Ends the timer when the last part of the statement is gone.
    _timer: Option<Arc<DropGuard>>,
}

impl Control {
    /// The control of a statement that may take as long as `timeout`.
    pub fn new(context: &StatementContext, timeout: Option<Duration>) -> Control {
        let cancel = context.cancel.child_token();
        let timed_out = Arc::new(AtomicBool::new(false));
        let timer = timeout.map(|timeout| {
            let done = CancellationToken::new();
            let (cancel, timed_out, ended) = (cancel.clone(), timed_out.clone(), done.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = ended.cancelled() => {}
                    () = tokio::time::sleep(timeout) => {
                        timed_out.store(true, Ordering::Relaxed);
                        cancel.cancel();
                    }
                }
            });
            Arc::new(done.drop_guard())
        });
        Control { cancel, notices: context.notices.clone(), timed_out, _timer: timer }
    }

    /// What a stopped statement answers.
    pub fn stopped(&self) -> SqlError {
        if self.timed_out.load(Ordering::Relaxed) {
            SqlError::new(SqlState::QUERY_CANCELED, "canceling statement due to statement timeout")
        } else {
            crate::error::cancelled()
        }
    }

    /// What a statement answers for work that failed: 57014 tells why it was stopped, if it was.
    pub fn with_reason(&self, error: SqlError) -> SqlError {
        if error.code == SqlState::QUERY_CANCELED && self.cancel.is_cancelled() {
            self.stopped()
        } else {
            error
        }
    }

    /// Runs something unless the statement is stopped first.
    ///
    /// # Errors
    /// 57014 when it is stopped, else what the work answers.
    pub async fn run<T>(
        &self,
        work: impl Future<Output = Result<T, SqlError>>,
    ) -> Result<T, SqlError> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(self.stopped()),
            outcome = work => outcome,
        }
    }
}
