//! Why a script could not be parsed: the cause, a message in PostgreSQL's manner, and where.
//!
//! The kinds are causes, not codes; [`ErrorKind::sqlstate`] names the code that belongs to each, so that the server's
//! one table of SQLSTATEs can take them over.

/// A script, a statement or an option that cannot be accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ParseError {
    /// The cause.
    pub kind: ErrorKind,
    /// What is wrong, in lower case and without a full stop.
    pub message: String,
    /// What to do about it, in whole sentences.
    pub hint: Option<String>,
    /// Where in the script, in characters from 1.
    pub position: Option<usize>,
}

/// The causes of a [`ParseError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Not the language.
    Syntax,
    /// Known to be meant, and not supported.
    Unsupported,
    /// An option that does not exist, is given twice, or has a value that cannot be.
    InvalidOption,
    /// An algorithm, a function or the like that does not exist.
    UndefinedObject,
    /// A function that does not exist.
    UndefinedFunction,
    /// A `$n` that no value was given for.
    UndefinedParameter,
    /// Nested or chained too deeply.
    TooComplex,
}

impl ErrorKind {
    /// The five characters that clients get.
    pub fn sqlstate(self) -> &'static str {
        match self {
            ErrorKind::Syntax => "42601",
            ErrorKind::Unsupported => "0A000",
            ErrorKind::InvalidOption => "22023",
            ErrorKind::UndefinedObject => "42704",
            ErrorKind::UndefinedFunction => "42883",
            ErrorKind::UndefinedParameter => "42P02",
            ErrorKind::TooComplex => "54001",
        }
    }
}

impl ParseError {
    /// An error without a hint and without a position.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> ParseError {
        ParseError { kind, message: message.into(), hint: None, position: None }
    }

    /// The same error at a position.
    #[must_use]
    pub fn at(mut self, position: usize) -> ParseError {
        self.position = Some(position);
        self
    }

    /// The same error with a hint.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> ParseError {
        self.hint = Some(hint.into());
        self
    }
}
