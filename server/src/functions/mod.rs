//! SQL functions over vectors and images.
//!
//! - [`vector`]: `cosine_similarity`, pgvector's distances, `vector_dims`, `l2_norm`, `to_vector`; [`vector_arithmetic`]: sums,
//!   products and comparisons; [`vector_shape`]: `l2_normalize`, `subvector`: plain functions, the same for everyone:
//!   [`vector_functions`]. [`vector_operators`] plans pgvector's operators as them, [`mod@vector_aggregates`] are `avg` and
//!   `sum`. What all of these share is in `vector_column`.
//! - [`embed`]: `embed(model, image)`, made anew for each statement, because it rests on the statement's snapshot, its
//!   cancel token and what to do with unreadable images: [`embed_function`].
//! - [`mod@print`]: what PRINT IMAGE adds to a query: [`print_function`] and [`print_plan`].
//! - [`predict`]: what PREDICT adds to a query; [`evaluate`]: what EVALUATE looks at in each image, keeps of all of them, and
//!   makes of that; [`nearest`]: the nearest rows of another table, for FUNCTION compute.similarity.
//! - [`postgres`]: PostgreSQL's functions that DataFusion lacks; [`patterns`] has the patterns of `to_char`, [`time_reader`]
//!   reads by them, `whole_division` has `div` and `mod`, [`rows`] is the frame that they are written in: [`postgres_functions`].
//!   [`mod@round`] rounds as PostgreSQL does; `in_front` is for functions in the place of DataFusion's.
//! - [`training_rows`]: what CONVERT fills in from the rows that a model was trained with: [`target_function`],
//!   [`filename_function`].
//!
//! `embed` and the functions of PRINT, PREDICT, EVALUATE and compute.similarity are asynchronous functions. Their calls with literal arguments only (a query image, a
//! bound parameter) are best computed once, before the physical plan is made: [`resolve_constants`] does that; a
//! statement that is only described, prepared or explained leaves it out. Where one is an argument of another, [`separate_nested`] takes them apart.
//!
//! Errors travel as [`SqlError`](thanosql_protocol::SqlError) inside `DataFusionError::External`.

pub mod embed;
pub mod evaluate;
mod in_front;
pub mod nearest;
pub mod nested;
pub(crate) mod parts;
pub mod patterns;
pub mod postgres;
pub mod predict;
pub mod print;
pub mod round;
pub mod rows;
pub mod time_reader;
pub mod training_rows;
pub mod vector;
pub mod vector_aggregates;
pub mod vector_arithmetic;
pub(crate) mod vector_column;
pub mod vector_operators;
pub mod vector_shape;
mod whole_division;

pub use embed::{EmbedContext, embed_function, resolve_constants};
pub use nested::separate_nested;
pub use postgres::postgres_functions;
pub use print::{PrintContext, PrintFormat, print_function, print_plan};
pub use round::round_function;
pub use training_rows::{filename_function, target_function};
pub use vector::vector_functions;
pub use vector_aggregates::vector_aggregates;
pub use vector_operators::VectorOperators;
