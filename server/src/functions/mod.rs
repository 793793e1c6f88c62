//! SQL functions over vectors and images.
//!
//! - [`vector`]: `cosine_similarity`, pgvector's distances, `vector_dims`, `l2_norm`, `to_vector`: plain functions, the same for
//!   everyone: [`vector_functions`].
//! - [`embed`]: `embed(model, image)`, made anew for each statement, because it rests on the statement's snapshot, its
//!   cancel token and what to do with unreadable images: [`embed_function`].
//! - [`mod@print`]: what PRINT IMAGE adds to a query: [`print_function`] and [`print_plan`].
//! - [`postgres`]: PostgreSQL's functions that DataFusion lacks; [`patterns`] has the patterns of `to_char`, [`rows`] the
//!   frame that they are written in: [`postgres_functions`].
//! - [`training_rows`]: what CONVERT fills in from the rows that a model was trained with: [`target_function`],
//!   [`filename_function`].
//!
//! `embed` and PRINT's function are asynchronous functions. Their calls with literal arguments only (a query image, a
//! bound parameter) are best computed once, before the physical plan is made: [`resolve_constants`] does that; a
//! statement that is only described, prepared or explained leaves it out.
//!
//! Errors travel as [`SqlError`](thanosql_protocol::SqlError) inside `DataFusionError::External`.

pub mod embed;
pub mod patterns;
pub mod postgres;
pub mod print;
pub mod rows;
pub mod training_rows;
pub mod vector;

pub use embed::{EmbedContext, embed_function, resolve_constants};
pub use postgres::postgres_functions;
pub use print::{PrintContext, PrintFormat, print_function, print_plan};
pub use training_rows::{filename_function, target_function};
pub use vector::{parse_vector, vector_functions};
