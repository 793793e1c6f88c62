//! The PostgreSQL wire protocol, version 3, for a server that speaks Arrow.
//!
//! ```text
//!  socket -> listener -> tls, login -> connection (simple, extended, COPY) -> dyn Session
//!                              cancel, watch  ^                                   |
//!                    types (Arrow <-> text, binary)  <--- record batches, tags ---+
//! ```
//!
//! A server implements [`Backend`] and [`Session`] and calls [`serve`]. This crate owns connections, TLS, login,
//! cancellation, message framing and the forms of values. It knows nothing of SQL's grammar and never looks into a
//! [`Statement`]. Message layouts and the SCRAM exchange are pgwire's; its server loop is not used, because it collects
//! results, does not read the socket while a statement runs, and takes a message's length field at its word. None of its
//! types appear in this crate's interface.

mod backend;
mod base64;
mod cancel;
mod client;
mod connection;
mod copy;
mod error;
mod frontend;
mod keepalive;
mod listener;
mod login;
mod messages;
mod notice;
mod options;
mod rows;
mod socket;
mod startup;
mod tls;
pub mod types;
mod wire;

pub use backend::{
    Backend, ClientIdentity, Closed, CopySink, Description, Response, RowStream, RowsTag, Session,
    Statement, StatementContext, TransactionStatus,
};
pub use copy::{CopyFormat, CopyOutOptions, ForceQuote};
pub use error::{ErrorSeverity, ErrorSubject, ProtocolError, SqlError, SqlState};
pub use listener::serve;
pub use notice::{Notice, NoticeSender, NoticeSeverity};
pub use options::{ProtocolOptions, Secret, TlsFiles, User};
