//! The ThanoSQL server: PostgreSQL's protocol outside, DataFusion, sled and burn inside.
//!
//! A statement's way: [`sql`] parses it, [`session`] hands it to [`exec`], which has it planned by [`plan`] over the
//! [`catalog`] and runs it; models are trained and used in [`learning`]. [`server`] wires the parts together.

pub mod catalog;
pub mod demo;
pub mod error;
pub mod exec;
pub mod files;
pub mod functions;
mod hexadecimal;
pub mod learning;
pub mod plan;
pub mod search;
pub mod server;
pub mod session;
pub mod sql;
mod storage_errors;
pub mod telemetry;
