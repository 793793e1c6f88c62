//! The client while a session works for it: what the session sends meanwhile, and everything that may interrupt it.
//!
//! A connection's task does two things at once while a statement runs. It waits for the session, and it listens: to
//! notices that have to go out now, to a CancelRequest, to the client closing its side, to the server's shutdown. Any of
//! the last three pulls the statement's token; a session that does not answer soon after is no longer waited for.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cancel::Registration;
use crate::error::{ErrorSeverity, SqlError, SqlState};
use crate::messages::{error_response, notice_response};
use crate::notice::{Notice, NoticeSender};
use crate::socket::SharedStream;
use crate::wire::{Frame, ReadFailure, Wire};

/// How long a session that was told to stop is waited for.
const CANCEL_GRACE: Duration = Duration::from_secs(1);
/// How long a client may take to read the last message.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long rows wait for others to be written with.
const ROWS_WAIT: Duration = Duration::from_millis(5);

/// Why something came to no good end.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The client is told.
    Sql(SqlError),
    /// There is no client any more.
    Gone,
}

impl From<SqlError> for Failure {
    fn from(error: SqlError) -> Failure {
        Failure::Sql(error)
    }
}

impl From<ReadFailure> for Failure {
    fn from(failure: ReadFailure) -> Failure {
        match failure {
            ReadFailure::Gone => Failure::Gone,
            ReadFailure::Malformed(error) => Failure::Sql(error),
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(_: std::io::Error) -> Failure {
        Failure::Gone
    }
}

/// What interrupts a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Interrupt {
    Cancel,
    Shutdown,
    Gone,
}

impl Interrupt {
    fn failure(self) -> Failure {
        match self {
            Interrupt::Cancel => Failure::Sql(canceled()),
            Interrupt::Shutdown => Failure::Sql(shut_down()),
            Interrupt::Gone => Failure::Gone,
        }
    }
}

pub(crate) fn canceled() -> SqlError {
    SqlError::new(SqlState::QUERY_CANCELED, "canceling statement due to user request")
}

fn shut_down() -> SqlError {
    SqlError::fatal(SqlState::ADMIN_SHUTDOWN, "terminating connection due to administrator command")
}

async fn interrupted(
    socket: &SharedStream,
    cancel: &CancellationToken,
    shutdown: &CancellationToken,
) -> Interrupt {
    tokio::select! {
        biased;
        () = shutdown.cancelled() => Interrupt::Shutdown,
        () = cancel.cancelled() => Interrupt::Cancel,
        () = socket.gone() => Interrupt::Gone,
    }
}

/// One client's end of a connection.
pub(crate) struct Client {
    pub(crate) wire: Wire,
    socket: SharedStream,
    registration: Registration,
    shutdown: CancellationToken,
    notices: mpsc::Receiver<Notice>,
    notice_sender: NoticeSender,
}

impl Client {
    pub(crate) fn new(
        wire: Wire,
        registration: Registration,
        shutdown: CancellationToken,
    ) -> Client {
        let (notice_sender, notices) = NoticeSender::channel();
        Client {
            socket: wire.socket().clone(),
            wire,
            registration,
            shutdown,
            notices,
            notice_sender,
        }
    }

    /// Where a statement's notices go.
    pub(crate) fn notice_sender(&self) -> NoticeSender {
        self.notice_sender.clone()
    }

    /// From now on a CancelRequest pulls this token.
    pub(crate) fn start(&self, cancel: &CancellationToken) {
        self.registration.set_running(Some(cancel.clone()));
    }

    /// Nothing runs any more that could be cancelled.
    pub(crate) fn stop(&self) {
        self.registration.set_running(None);
    }

    /// Waits for the session's work, sends its notices meanwhile, and interrupts it when it must stop.
    pub(crate) async fn run<T>(
        &mut self,
        cancel: &CancellationToken,
        work: impl Future<Output = Result<T, SqlError>>,
    ) -> Result<T, Failure> {
        self.run_behind(None, cancel, work).await
    }

    /// The same behind rows that have not been written yet: they are, unless the work ends soon and more can go with them.
    pub(crate) async fn run_behind_rows<T>(
        &mut self,
        cancel: &CancellationToken,
        work: impl Future<Output = Result<T, SqlError>>,
    ) -> Result<T, Failure> {
        self.run_behind(Some(Instant::now() + ROWS_WAIT), cancel, work).await
    }

    async fn run_behind<T>(
        &mut self,
        rows_due: Option<Instant>,
        cancel: &CancellationToken,
        work: impl Future<Output = Result<T, SqlError>>,
    ) -> Result<T, Failure> {
        let mut work = std::pin::pin!(caught(work));
        let mut interrupt = None;
        let mut deadline = Instant::now();
        let mut is_due = false;
        loop {
            tokio::select! {
                biased;
                why = interrupted(&self.socket, cancel, &self.shutdown), if interrupt.is_none() => {
                    cancel.cancel();
                    interrupt = Some(why);
                    deadline = Instant::now() + CANCEL_GRACE;
                }
                result = &mut work => {
                    self.put_notices();
                    return match (result, interrupt) {
                        (_, Some(Interrupt::Gone)) => Err(Failure::Gone),
                        (Err(_), Some(Interrupt::Shutdown)) => Err(Interrupt::Shutdown.failure()),
                        (Err(error), Some(Interrupt::Cancel) | None) => Err(Failure::Sql(error)),
                        (Ok(value), Some(Interrupt::Cancel | Interrupt::Shutdown) | None) => Ok(value),
                    };
                }
                () = tokio::time::sleep_until(deadline), if interrupt.is_some() => {
                    tracing::warn!("a statement does not stop and is no longer waited for");
                    return Err(interrupt.unwrap_or(Interrupt::Cancel).failure());
                }
                result = self.wire.write_some(), if is_due && self.wire.has_output() => {
                    if result.is_err() {
                        cancel.cancel();
                        interrupt = Some(Interrupt::Gone);
                        deadline = Instant::now() + CANCEL_GRACE;
                        is_due = false;
                    }
                }
                // A client that does not read what it is sent gets no more notices until it does.
                Some(notice) = self.notices.recv(), if !self.wire.is_full() => {
                    self.wire.put(&notice_response(&notice));
                    is_due = true;
                }
                () = tokio::time::sleep_until(rows_due.unwrap_or(deadline)),
                    if rows_due.is_some() && !is_due && interrupt.is_none() =>
                {
                    is_due = true;
                }
            }
        }
    }

    /// Waits for work that must not be interrupted, such as a commit.
    pub(crate) async fn complete<T>(
        &mut self,
        work: impl Future<Output = Result<T, SqlError>>,
    ) -> Result<T, SqlError> {
        let result = caught(work).await;
        self.put_notices();
        result
    }

    fn put_notices(&mut self) {
        while let Ok(notice) = self.notices.try_recv() {
            self.wire.put(&notice_response(&notice));
        }
    }

    /// Tells the client of an error, and the log too.
    pub(crate) fn put_error(&mut self, error: &SqlError) {
        tracing::info!(
            sqlstate = error.code.0,
            severity = error.severity.as_str(),
            message = error.message,
            "error"
        );
        self.wire.put(&error_response(error));
    }

    /// Writes everything while a statement runs, which may be interrupted meanwhile.
    pub(crate) async fn flush_rows(&mut self, cancel: &CancellationToken) -> Result<(), Failure> {
        while self.wire.has_output() {
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return Err(Interrupt::Shutdown.failure()),
                () = cancel.cancelled() => return Err(Interrupt::Cancel.failure()),
                result = self.wire.write_some() => result?,
            }
        }
        Ok(())
    }

    /// Writes everything. At shutdown a client that does not read is given up.
    pub(crate) async fn flush(&mut self) -> Result<(), Failure> {
        while self.wire.has_output() {
            tokio::select! {
                result = self.wire.write_some() => result?,
                () = self.shutdown.cancelled() => {
                    return match tokio::time::timeout(FAREWELL, self.wire.flush()).await {
                        Ok(result) => Ok(result?),
                        Err(_) => Err(Failure::Gone),
                    };
                }
            }
        }
        Ok(())
    }

    /// Waits for the client's next message; notices go out meanwhile.
    pub(crate) async fn next_frame(&mut self) -> Result<Frame, Failure> {
        loop {
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return Err(Interrupt::Shutdown.failure()),
                frame = self.wire.read_frame() => return Ok(frame?),
                Some(notice) = self.notices.recv() => {
                    self.wire.put(&notice_response(&notice));
                    self.flush().await?;
                }
            }
        }
    }

    /// Waits for the next message of a statement that reads from the client.
    pub(crate) async fn next_frame_of(
        &mut self,
        cancel: &CancellationToken,
    ) -> Result<Frame, Failure> {
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Interrupt::Cancel.failure()),
            frame = self.next_frame() => frame,
        }
    }

    /// Sends a last message and closes.
    pub(crate) async fn farewell(mut self, error: &SqlError) {
        if error.severity == ErrorSeverity::Fatal {
            self.put_error(error);
        }
        self.wire.farewell().await;
    }
}

impl Wire {
    /// Sends what is waiting, lets the client read it, and closes.
    pub(crate) async fn farewell(mut self) {
        let goodbye = async {
            if self.flush().await.is_ok() {
                self.close().await;
                self.drain().await;
            }
        };
        // A client that neither reads nor closes has had its time.
        let _ = tokio::time::timeout(FAREWELL, goodbye).await;
    }
}

/// Calls into the session without waiting: a panic becomes an error.
pub(crate) fn guarded<T>(work: impl FnOnce() -> Result<T, SqlError>) -> Result<T, SqlError> {
    std::panic::catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|panic| Err(internal_error(panic.as_ref())))
}

/// Awaits the session's work: a panic becomes an error.
pub(crate) async fn caught<T>(
    work: impl Future<Output = Result<T, SqlError>>,
) -> Result<T, SqlError> {
    AssertUnwindSafe(work)
        .catch_unwind()
        .await
        .unwrap_or_else(|panic| Err(internal_error(panic.as_ref())))
}

/// What a client learns of a panic: an id under which the log has the text.
fn internal_error(panic: &(dyn std::any::Any + Send)) -> SqlError {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let id = format!("{:x}-{number:x}", std::process::id());
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no text");
    tracing::error!(id, panic = text, "panic in a session");
    SqlError::new(SqlState::INTERNAL_ERROR, format!("internal error {id}"))
        .with_hint("The server's log has more under this id.")
}
