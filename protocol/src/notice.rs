//! Notices: messages that go out while a statement runs, without ending it.
//!
//! A [`NoticeSender`] may be cloned into any thread. Sending never blocks: the queue to the client is bounded, and a
//! notice that does not fit (a client that reads too slowly, or has gone) is dropped. Progress of a training is worth
//! less than the training.

use tokio::sync::mpsc;

use crate::error::SqlState;

/// How many notices may wait for a slow client before further ones are dropped.
pub(crate) const NOTICE_QUEUE_LENGTH: usize = 1024;

/// PostgreSQL's severities below ERROR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum NoticeSeverity {
    /// Something that should not be overlooked.
    Warning,
    /// Useful to know.
    #[default]
    Notice,
    /// Asked for by the statement itself; clients show it always.
    Info,
    /// For the administrator.
    Log,
    /// For developers.
    Debug,
}

impl NoticeSeverity {
    /// The word that PostgreSQL sends.
    pub fn as_str(self) -> &'static str {
        match self {
            NoticeSeverity::Warning => "WARNING",
            NoticeSeverity::Notice => "NOTICE",
            NoticeSeverity::Info => "INFO",
            NoticeSeverity::Log => "LOG",
            NoticeSeverity::Debug => "DEBUG",
        }
    }
}

/// One message to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// How much it matters.
    pub severity: NoticeSeverity,
    /// `00000` unless it is a warning with a code of its own.
    pub code: SqlState,
    /// The text.
    pub message: String,
    /// More about it.
    pub detail: Option<String>,
    /// What the reader can do.
    pub hint: Option<String>,
}

impl Notice {
    /// A message of severity NOTICE with code 00000.
    pub fn new(message: impl Into<String>) -> Notice {
        Notice {
            severity: NoticeSeverity::Notice,
            code: SqlState::SUCCESSFUL_COMPLETION,
            message: message.into(),
            detail: None,
            hint: None,
        }
    }

    /// A message of severity WARNING.
    pub fn warning(code: SqlState, message: impl Into<String>) -> Notice {
        Notice { severity: NoticeSeverity::Warning, code, ..Notice::new(message) }
    }

    /// Adds a detail.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Notice {
        self.detail = Some(detail.into());
        self
    }

    /// Adds a hint.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Notice {
        self.hint = Some(hint.into());
        self
    }
}

/// Where a statement sends its notices.
#[derive(Clone, Debug)]
pub struct NoticeSender {
    queue: Option<mpsc::Sender<Notice>>,
}

impl NoticeSender {
    /// A sender and the queue that the connection empties.
    pub(crate) fn channel() -> (NoticeSender, mpsc::Receiver<Notice>) {
        let (sender, receiver) = mpsc::channel(NOTICE_QUEUE_LENGTH);
        (NoticeSender { queue: Some(sender) }, receiver)
    }

    /// A sender that nobody listens to, for internal work and tests.
    pub fn disconnected() -> NoticeSender {
        NoticeSender { queue: None }
    }

    /// Hands the notice to the connection. Never blocks; the notice is dropped when the client has gone or is too slow.
    pub fn send(&self, notice: Notice) {
        if let Some(queue) = &self.queue {
            // Full or closed: see the module's documentation.
            let _ = queue.try_send(notice);
        }
    }
}
