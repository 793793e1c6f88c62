//! Whole conversations with the protocol's listener, over real sockets: a driver's, and bytes written by hand. A mock
//! backend (see `mock`) stands in for the database, so that each test chooses what the session does.

#![allow(clippy::unwrap_used)] // tests

mod copying;
mod driver;
mod hostile;
mod interruptions;
mod logins;
mod mock;
mod raw;
mod traces;
mod transcripts;
