//! Errors: what a session answers a client with ([`SqlError`], under a [`SqlState`]), and what stops the listener
//! itself ([`ProtocolError`]).
//!
//! `SqlError` is plain data, because it ends as fields of an ErrorResponse; it knows nothing about where it came from.
//! The server maps its own errors to it in one place. Only the listener's own failures are a `thiserror` enum.

use std::fmt;
use std::path::PathBuf;

/// A SQLSTATE: five characters from PostgreSQL's appendix A.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SqlState(pub &'static str);

macro_rules! sql_states {
    ($($name:ident = $code:literal, $condition:literal;)*) => {
        impl SqlState {
            $(#[doc = concat!("`", $code, "` ", $condition)] pub const $name: SqlState = SqlState($code);)*

            /// The constant of a five-character code, if this crate names it.
            pub fn from_code(code: &str) -> Option<SqlState> {
                match code {
                    $($code => Some(SqlState::$name),)*
                    _ => None,
                }
            }

            /// PostgreSQL's name of the condition (`undefined_table`), if this crate names it.
            pub fn condition(self) -> Option<&'static str> {
                match self.0 {
                    $($code => Some($condition),)*
                    _ => None,
                }
            }
        }
    };
}

sql_states! {
    SUCCESSFUL_COMPLETION = "00000", "successful_completion";
    WARNING = "01000", "warning";
    NO_DATA = "02000", "no_data";
    CONNECTION_EXCEPTION = "08000", "connection_exception";
    CONNECTION_FAILURE = "08006", "connection_failure";
    PROTOCOL_VIOLATION = "08P01", "protocol_violation";
    FEATURE_NOT_SUPPORTED = "0A000", "feature_not_supported";
    CARDINALITY_VIOLATION = "21000", "cardinality_violation";
    DATA_EXCEPTION = "22000", "data_exception";
    STRING_DATA_RIGHT_TRUNCATION = "22001", "string_data_right_truncation";
    NUMERIC_VALUE_OUT_OF_RANGE = "22003", "numeric_value_out_of_range";
    NULL_VALUE_NOT_ALLOWED = "22004", "null_value_not_allowed";
    INVALID_DATETIME_FORMAT = "22007", "invalid_datetime_format";
    DATETIME_FIELD_OVERFLOW = "22008", "datetime_field_overflow";
    DIVISION_BY_ZERO = "22012", "division_by_zero";
    INVALID_ESCAPE_SEQUENCE = "22025", "invalid_escape_sequence";
    INVALID_REGULAR_EXPRESSION = "2201B", "invalid_regular_expression";
    INVALID_ROW_COUNT_IN_LIMIT = "2201W", "invalid_row_count_in_limit_clause";
    CHARACTER_NOT_IN_REPERTOIRE = "22021", "character_not_in_repertoire";
    INVALID_PARAMETER_VALUE = "22023", "invalid_parameter_value";
    ARRAY_SUBSCRIPT_ERROR = "2202E", "array_subscript_error";
    SEQUENCE_GENERATOR_LIMIT_EXCEEDED = "2200H", "sequence_generator_limit_exceeded";
    INVALID_TEXT_REPRESENTATION = "22P02", "invalid_text_representation";
    INVALID_BINARY_REPRESENTATION = "22P03", "invalid_binary_representation";
    BAD_COPY_FILE_FORMAT = "22P04", "bad_copy_file_format";
    UNTRANSLATABLE_CHARACTER = "22P05", "untranslatable_character";
    INTEGRITY_CONSTRAINT_VIOLATION = "23000", "integrity_constraint_violation";
    NOT_NULL_VIOLATION = "23502", "not_null_violation";
    FOREIGN_KEY_VIOLATION = "23503", "foreign_key_violation";
    UNIQUE_VIOLATION = "23505", "unique_violation";
    CHECK_VIOLATION = "23514", "check_violation";
    INVALID_CURSOR_STATE = "24000", "invalid_cursor_state";
    INVALID_TRANSACTION_STATE = "25000", "invalid_transaction_state";
    ACTIVE_SQL_TRANSACTION = "25001", "active_sql_transaction";
    READ_ONLY_SQL_TRANSACTION = "25006", "read_only_sql_transaction";
    NO_ACTIVE_SQL_TRANSACTION = "25P01", "no_active_sql_transaction";
    IN_FAILED_SQL_TRANSACTION = "25P02", "in_failed_sql_transaction";
    INVALID_SQL_STATEMENT_NAME = "26000", "invalid_sql_statement_name";
    INVALID_AUTHORIZATION_SPECIFICATION = "28000", "invalid_authorization_specification";
    INVALID_PASSWORD = "28P01", "invalid_password";
    DEPENDENT_OBJECTS_STILL_EXIST = "2BP01", "dependent_objects_still_exist";
    INVALID_CURSOR_NAME = "34000", "invalid_cursor_name";
    INVALID_SAVEPOINT_SPECIFICATION = "3B001", "invalid_savepoint_specification";
    INVALID_CATALOG_NAME = "3D000", "invalid_catalog_name";
    INVALID_SCHEMA_NAME = "3F000", "invalid_schema_name";
    SERIALIZATION_FAILURE = "40001", "serialization_failure";
    DEADLOCK_DETECTED = "40P01", "deadlock_detected";
    INSUFFICIENT_PRIVILEGE = "42501", "insufficient_privilege";
    SYNTAX_ERROR = "42601", "syntax_error";
    INVALID_NAME = "42602", "invalid_name";
    NAME_TOO_LONG = "42622", "name_too_long";
    DUPLICATE_COLUMN = "42701", "duplicate_column";
    AMBIGUOUS_COLUMN = "42702", "ambiguous_column";
    UNDEFINED_COLUMN = "42703", "undefined_column";
    UNDEFINED_OBJECT = "42704", "undefined_object";
    DUPLICATE_OBJECT = "42710", "duplicate_object";
    DUPLICATE_ALIAS = "42712", "duplicate_alias";
    GENERATED_ALWAYS = "428C9", "generated_always";
    AMBIGUOUS_FUNCTION = "42725", "ambiguous_function";
    GROUPING_ERROR = "42803", "grouping_error";
    DATATYPE_MISMATCH = "42804", "datatype_mismatch";
    WRONG_OBJECT_TYPE = "42809", "wrong_object_type";
    CANNOT_COERCE = "42846", "cannot_coerce";
    UNDEFINED_FUNCTION = "42883", "undefined_function";
    RESERVED_NAME = "42939", "reserved_name";
    UNDEFINED_TABLE = "42P01", "undefined_table";
    UNDEFINED_PARAMETER = "42P02", "undefined_parameter";
    DUPLICATE_CURSOR = "42P03", "duplicate_cursor";
    DUPLICATE_PREPARED_STATEMENT = "42P05", "duplicate_prepared_statement";
    DUPLICATE_SCHEMA = "42P06", "duplicate_schema";
    DUPLICATE_TABLE = "42P07", "duplicate_table";
    INVALID_COLUMN_REFERENCE = "42P10", "invalid_column_reference";
    INVALID_TABLE_DEFINITION = "42P16", "invalid_table_definition";
    INDETERMINATE_DATATYPE = "42P18", "indeterminate_datatype";
    WITH_CHECK_OPTION_VIOLATION = "44000", "with_check_option_violation";
    INSUFFICIENT_RESOURCES = "53000", "insufficient_resources";
    DISK_FULL = "53100", "disk_full";
    OUT_OF_MEMORY = "53200", "out_of_memory";
    TOO_MANY_CONNECTIONS = "53300", "too_many_connections";
    CONFIGURATION_LIMIT_EXCEEDED = "53400", "configuration_limit_exceeded";
    PROGRAM_LIMIT_EXCEEDED = "54000", "program_limit_exceeded";
    STATEMENT_TOO_COMPLEX = "54001", "statement_too_complex";
    TOO_MANY_COLUMNS = "54011", "too_many_columns";
    OBJECT_NOT_IN_PREREQUISITE_STATE = "55000", "object_not_in_prerequisite_state";
    OBJECT_IN_USE = "55006", "object_in_use";
    CANT_CHANGE_RUNTIME_PARAM = "55P02", "cant_change_runtime_param";
    LOCK_NOT_AVAILABLE = "55P03", "lock_not_available";
    OPERATOR_INTERVENTION = "57000", "operator_intervention";
    QUERY_CANCELED = "57014", "query_canceled";
    ADMIN_SHUTDOWN = "57P01", "admin_shutdown";
    CANNOT_CONNECT_NOW = "57P03", "cannot_connect_now";
    SYSTEM_ERROR = "58000", "system_error";
    IO_ERROR = "58030", "io_error";
    UNDEFINED_FILE = "58P01", "undefined_file";
    DUPLICATE_FILE = "58P02", "duplicate_file";
    INTERNAL_ERROR = "XX000", "internal_error";
    DATA_CORRUPTED = "XX001", "data_corrupted";
    INDEX_CORRUPTED = "XX002", "index_corrupted";
}

impl fmt::Debug for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl fmt::Display for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// How bad an error is: whether the connection lives on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ErrorSeverity {
    /// The statement failed, the connection goes on.
    #[default]
    Error,
    /// The connection is closed after this answer.
    Fatal,
}

impl ErrorSeverity {
    /// The word that PostgreSQL sends.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorSeverity::Error => "ERROR",
            ErrorSeverity::Fatal => "FATAL",
        }
    }
}

/// An error as a client sees it.
///
/// The message is lower case without a full stop; hints are sentences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlError {
    /// The SQLSTATE.
    pub code: SqlState,
    /// What is wrong, with the value.
    pub message: String,
    /// More about it, where that helps.
    pub detail: Option<String>,
    /// What the reader can do.
    pub hint: Option<String>,
    /// Where in the statement's text: 1-based, counted in characters.
    pub position: Option<usize>,
    /// Whether the connection lives on.
    pub severity: ErrorSeverity,
    /// What the error is about, where clients act on it.
    pub subject: Option<Box<ErrorSubject>>,
}

/// The object that an error is about, in fields of its own.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ErrorSubject {
    /// The table's schema.
    pub schema: Option<String>,
    /// The table.
    pub table: Option<String>,
    /// The column.
    pub column: Option<String>,
    /// The constraint.
    pub constraint: Option<String>,
}

impl SqlError {
    /// An error that leaves the connection open.
    pub fn new(code: SqlState, message: impl Into<String>) -> SqlError {
        SqlError {
            code,
            message: message.into(),
            detail: None,
            hint: None,
            position: None,
            severity: ErrorSeverity::Error,
            subject: None,
        }
    }

    /// An error after which the connection is closed.
    pub fn fatal(code: SqlState, message: impl Into<String>) -> SqlError {
        SqlError { severity: ErrorSeverity::Fatal, ..SqlError::new(code, message) }
    }

    /// Adds a detail.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> SqlError {
        self.detail = Some(detail.into());
        self
    }

    /// Adds a hint.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> SqlError {
        self.hint = Some(hint.into());
        self
    }

    /// Says what the error is about.
    #[must_use]
    pub fn about(mut self, subject: ErrorSubject) -> SqlError {
        self.subject = Some(Box::new(subject));
        self
    }

    /// Says where in the statement's text the error is: 1-based, in characters.
    #[must_use]
    pub fn at(mut self, position: usize) -> SqlError {
        self.position = Some(position);
        self
    }
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

impl std::error::Error for SqlError {}

/// What keeps the listener from starting or going on.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    /// The certificate or the key cannot be read.
    #[error("cannot read the TLS file {}", path.display())]
    TlsFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The file holds no certificate (or no key), or it is malformed.
    #[error("no usable {what} in {}", path.display())]
    TlsContent {
        /// `certificate` or `private key`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the parser said, if it said anything.
        reason: Option<String>,
    },
    /// Certificate and key do not belong together, or cannot be used for TLS.
    #[error("certificate and private key cannot be used")]
    Tls(#[source] rustls::Error),
    /// A user's stored verifier is malformed.
    #[error("the SCRAM verifier of user \"{user}\" is malformed")]
    Verifier {
        /// The user's name.
        user: String,
    },
    /// A user's name stands twice in the configuration.
    #[error("user \"{user}\" is configured twice")]
    DuplicateUser {
        /// The user's name.
        user: String,
    },
    /// Clients of this address need a password, but no user is configured: nobody could log in.
    #[error("no users are configured, but clients of {address} need a password")]
    NoUsers {
        /// Where the listener listens.
        address: std::net::SocketAddr,
    },
    /// The listening socket itself is broken.
    #[error("the listening socket failed")]
    Listen(#[source] std::io::Error),
}
