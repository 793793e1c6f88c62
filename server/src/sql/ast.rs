//! What a script is parsed into: PostgreSQL's statements as sqlparser's tree, ThanoSQL's as structs of our own.
//!
//! A row statement that stands inside a query is taken out of it: the tree holds a table name that no
//! statement can spell by accident, and [`Embedded`] says what stands behind that name. The planner so sees plain SQL
//! over one more kind of table, and joins, filters, CTEs and views need no code of their own.
//!
//! Names are folded as PostgreSQL folds them. Every part knows its position in the script, in characters from 1, as
//! error messages give it. Nothing here is resolved: whether a model or a table exists is the planner's question.

use std::fmt;
use std::sync::Arc;

use sqlparser::ast as pg;

use super::options::{OptionKind, Options};

/// One statement of a script.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// What it says.
    pub statement: Statement,
    /// Its own source text, without the semicolon and the space around it.
    pub text: String,
    /// How many characters of the script stand before [`Parsed::text`].
    pub offset: usize,
    /// The highest `n` of its `$n`; 0 without parameters.
    pub parameter_count: usize,
    /// What those of its `$n` must be that are the value of an option.
    pub option_parameters: Vec<(usize, OptionKind)>,
    /// What those of its `$n` are that are cast where they first stand.
    pub cast_parameters: Vec<(usize, pg::DataType)>,
    /// The whole script: the lines and columns of spans in sqlparser's tree count in it.
    pub script: Arc<str>,
}

/// A statement.
#[derive(Debug, Clone, PartialEq)]
pub enum Statement {
    /// PostgreSQL's SQL, as sqlparser understands it.
    Sql(SqlStatement),
    /// A ThanoSQL statement that yields rows.
    Rows(RowStatement),
    /// `BUILD MODEL`.
    BuildModel(BuildModel),
    /// `FIT MODEL`.
    FitModel(FitModel),
    /// `DELETE MODEL` or `DROP MODEL`.
    DropModel(DropModel),
    /// `EXPORT MODEL`.
    ExportModel(ExportModel),
    /// `UPLOAD MODEL`.
    UploadModel(UploadModel),
    /// `SHOW CREATE MODEL`.
    ShowCreateModel(Name),
    /// `CREATE TABLE name USING model ... FROM 'path'`.
    CreateTableUsing(CreateTableUsing),
    /// ThanoSQL's `COPY name FROM 'path'`.
    CopyFile(CopyFile),
    /// PostgreSQL's `COPY`.
    Copy(Box<Copy>),
    /// `GET THANOSQL DATASET`.
    GetDataset(GetDataset),
    /// `GET THANOSQL MODEL`.
    GetModel(GetModel),
    /// `CANCEL JOB id`.
    CancelJob(JobId),
    /// `WAIT JOB id`.
    WaitJob(JobId),
    /// `EXPLAIN` of a statement that only ThanoSQL has and that yields no rows. (`EXPLAIN SEARCH ...` is [`Statement::Sql`].)
    Explain(ExplainThano),
    /// `DECLARE name CURSOR FOR query`.
    DeclareCursor(DeclareCursor),
    /// `FETCH` and `MOVE`.
    Fetch(Fetch),
    /// `CLOSE name`, or `CLOSE ALL` for `None`.
    CloseCursor(Option<Name>),
    /// `VACUUM`, `ANALYZE` and their like.
    Maintenance(Maintenance),
}

/// PostgreSQL's SQL with the row statements that stand in it.
#[derive(Debug, Clone, PartialEq)]
pub struct SqlStatement {
    /// sqlparser's tree; its spans count in the whole script.
    pub ast: Box<pg::Statement>,
    /// What the placeholders in the tree stand for.
    pub embedded: Vec<Embedded>,
    /// False for `CREATE TABLE ... AS query WITH NO DATA`.
    pub with_data: bool,
}

/// A query with the row statements that stand in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Body {
    /// sqlparser's tree; its spans count in the whole script.
    pub query: Box<pg::Query>,
    /// What the placeholders in the tree stand for.
    pub embedded: Vec<Embedded>,
    /// Where it starts.
    pub position: usize,
}

/// A row statement that stands in a query, under the table name that the query's tree has in its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedded {
    /// The table's name in the tree: lower case, without a schema, unique in the whole outermost statement.
    pub placeholder: String,
    /// What yields its rows.
    pub statement: RowStatement,
    /// Where it starts.
    pub position: usize,
}

/// A ThanoSQL statement that yields rows, alone or in FROM.
#[derive(Debug, Clone, PartialEq)]
pub enum RowStatement {
    /// `CONVERT USING model`.
    Convert(Convert),
    /// `SEARCH IMAGE`, both forms.
    Search(Search),
    /// `PRINT IMAGE`.
    Print(Print),
    /// `PREDICT USING model`.
    Predict(Predict),
    /// `EVALUATE USING model`.
    Evaluate(Evaluate),
    /// `LIST ...`.
    List(ListKind),
    /// `SHOW JOBS`.
    ShowJobs,
    /// `FUNCTION compute.name`.
    Function(ComputeFunction),
}

/// `BUILD MODEL name USING algorithm [OPTIONS (...)] AS query`.
#[derive(Debug, Clone, PartialEq)]
pub struct BuildModel {
    /// The model to be.
    pub name: Name,
    /// How it learns.
    pub algorithm: Algorithm,
    /// Read with [`super::options::BuildModelOptions`].
    pub options: Options,
    /// The training rows.
    pub body: Body,
}

/// `FIT MODEL name USING existing [OPTIONS (...)] AS query`.
#[derive(Debug, Clone, PartialEq)]
pub struct FitModel {
    /// The model to be.
    pub name: Name,
    /// The model from whose weights training goes on.
    pub base: Name,
    /// Read with [`super::options::BuildModelOptions`].
    pub options: Options,
    /// The training rows.
    pub body: Body,
}

/// How a model learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// Contrastive learning of visual representations, arXiv 2002.05709.
    SimClr,
}

impl Algorithm {
    /// Its name as people write it.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::SimClr => "SimCLR",
        }
    }

    /// Its name in the column of a model's vectors: `<model>_<suffix>`.
    pub fn column_suffix(self) -> &'static str {
        match self {
            Algorithm::SimClr => "simclr",
        }
    }
}

/// `DELETE MODEL name` or `DROP MODEL [IF EXISTS] name`.
#[derive(Debug, Clone, PartialEq)]
pub struct DropModel {
    /// The model.
    pub name: Name,
    /// Whether a missing model is only a notice.
    pub if_exists: bool,
    /// Which word was used; the command's tag repeats it.
    pub verb: DropVerb,
}

/// The word that a model was dropped with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropVerb {
    /// `DELETE MODEL`.
    Delete,
    /// `DROP MODEL`.
    Drop,
}

/// `EXPORT MODEL name [OPTIONS (...)] TO 'file'`.
#[derive(Debug, Clone, PartialEq)]
pub struct ExportModel {
    /// The model.
    pub name: Name,
    /// Read with [`super::options::ExportModelOptions`].
    pub options: Options,
    /// The file to write.
    pub path: PathArgument,
}

/// `UPLOAD MODEL name [OPTIONS (...)] FROM 'file'`.
#[derive(Debug, Clone, PartialEq)]
pub struct UploadModel {
    /// The model to be.
    pub name: Name,
    /// Read with [`super::options::UploadModelOptions`].
    pub options: Options,
    /// The file to read.
    pub path: PathArgument,
}

/// `CREATE TABLE name USING model [OPTIONS (...)] FROM 'path'`.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateTableUsing {
    /// The table to be.
    pub table: ObjectName,
    /// Whether a table of that name is only a notice.
    pub if_not_exists: bool,
    /// The model that embeds the files.
    pub model: Name,
    /// Read with [`super::options::CreateTableUsingOptions`].
    pub options: Options,
    /// The folder or file.
    pub path: PathArgument,
}

/// ThanoSQL's `COPY name [OPTIONS (...)] FROM 'path' | '[{...}]'`, which makes the table.
#[derive(Debug, Clone, PartialEq)]
pub struct CopyFile {
    /// The table to be made, replaced or appended to.
    pub table: ObjectName,
    /// Read with [`super::options::CopyFileOptions`].
    pub options: Options,
    /// A file, a folder, or rows as a JSON array (the text then starts with a bracket).
    pub source: PathArgument,
}

/// `GET THANOSQL DATASET name [OPTIONS (...)]`.
#[derive(Debug, Clone, PartialEq)]
pub struct GetDataset {
    /// The dataset.
    pub name: Name,
    /// Read with [`super::options::GetDatasetOptions`].
    pub options: Options,
}

/// `GET THANOSQL MODEL name [OPTIONS (...)]`.
#[derive(Debug, Clone, PartialEq)]
pub struct GetModel {
    /// The model as its publisher calls it.
    pub name: Name,
    /// Read with [`super::options::GetModelOptions`].
    pub options: Options,
}

/// The job of `CANCEL JOB` and `WAIT JOB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobId {
    /// Its number, or the parameter that gives it.
    pub value: JobIdValue,
    /// Where it stands.
    pub position: usize,
}

/// A job's number, or the parameter that gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobIdValue {
    /// The number itself.
    Number(u64),
    /// `$n`.
    Parameter(usize),
}

/// `EXPLAIN` of a statement without rows that only ThanoSQL has.
#[derive(Debug, Clone, PartialEq)]
pub struct ExplainThano {
    /// Whether the statement is to be run: `EXPLAIN ANALYZE`.
    pub analyze: bool,
    /// Whether more than usual is asked for.
    pub verbose: bool,
    /// What is explained.
    pub statement: Box<Statement>,
}

/// `CONVERT USING model [OPTIONS (...)] AS query`.
#[derive(Debug, Clone, PartialEq)]
pub struct Convert {
    /// The model that embeds.
    pub model: Name,
    /// Read with [`super::options::ConvertOptions`].
    pub options: Options,
    /// The rows to embed.
    pub body: Body,
}

/// `SEARCH IMAGE`.
#[derive(Debug, Clone, PartialEq)]
pub struct Search {
    /// Which of the two forms, and the images of the first.
    pub form: SearchForm,
    /// The model whose vectors are searched.
    pub model: Name,
    /// Read with [`super::options::SearchOptions`].
    pub options: Options,
    /// The rows to search.
    pub body: Body,
}

/// The two forms of SEARCH.
#[derive(Debug, Clone, PartialEq)]
pub enum SearchForm {
    /// `SEARCH IMAGE images=... USING`: every row in the query's order, a column `similarity_image<i>` an input.
    EveryRow(Vec<ImageInput>),
    /// `SEARCH IMAGE USING ... OPTIONS (search_input=...)`: the best rows, best first; the image stands in the options.
    Best,
}

/// An image to search for.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageInput {
    /// The image.
    pub value: ImageValue,
    /// Where it stands.
    pub position: usize,
}

/// A path, or a parameter that is a path (text) or an image (bytea).
#[derive(Debug, Clone, PartialEq)]
pub enum ImageValue {
    /// A path on the server.
    Path(String),
    /// `$n`: text, bytea, or an array of either.
    Parameter(usize),
}

/// `PRINT IMAGE [OPTIONS (...)] AS query`.
#[derive(Debug, Clone, PartialEq)]
pub struct Print {
    /// Read with [`super::options::PrintOptions`].
    pub options: Options,
    /// The rows whose images are shown.
    pub body: Body,
}

/// `PREDICT USING model [OPTIONS (...)] AS query`.
#[derive(Debug, Clone, PartialEq)]
pub struct Predict {
    /// The model.
    pub model: Name,
    /// Read with [`super::options::PredictOptions`].
    pub options: Options,
    /// The rows to classify.
    pub body: Body,
}

/// `EVALUATE USING model [OPTIONS (...)] AS query`.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluate {
    /// The model.
    pub model: Name,
    /// Read with [`super::options::EvaluateOptions`].
    pub options: Options,
    /// The rows to measure on.
    pub body: Body,
}

/// What LIST lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListKind {
    /// `LIST MODEL`: the models that are here.
    Models,
    /// `LIST TABLE`.
    Tables,
    /// `LIST JOB`.
    Jobs,
    /// `LIST THANOSQL DATASET`: the datasets that can be fetched.
    Datasets,
    /// `LIST THANOSQL MODEL`: the models that can be fetched.
    PublishedModels,
}

/// `FUNCTION compute.name OPTIONS (...) AS query`.
#[derive(Debug, Clone, PartialEq)]
pub struct ComputeFunction {
    /// Which one.
    pub kind: ComputeKind,
    /// Read with [`super::options::GroupbyEmbMeanOptions`] or [`super::options::SimilarityOptions`].
    pub options: Options,
    /// The rows it works on.
    pub body: Body,
}

/// The functions of `compute`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ComputeKind {
    /// `compute.groupby_emb_mean`: the mean vector of each label.
    GroupbyEmbMean,
    /// `compute.similarity`: the nearest rows of another table.
    Similarity,
}

/// PostgreSQL's COPY.
#[derive(Debug, Clone, PartialEq)]
pub struct Copy {
    /// What is copied, and which way.
    pub direction: CopyDirection,
    /// The other end.
    pub target: CopyTarget,
    /// Where the target stands.
    pub target_position: usize,
    /// The data's format.
    pub format: CopyDataFormat,
    /// Between columns; `None` for the format's own (a tab for text, a comma for csv).
    pub delimiter: Option<char>,
    /// What stands for NULL; `None` for the format's own (`\N` for text, nothing for csv).
    pub null: Option<String>,
    /// What stands for a column's default, when reading.
    pub default: Option<String>,
    /// Whether the first line names the columns.
    pub header: CopyHeader,
    /// The csv quote; `"` unless given.
    pub quote: Option<char>,
    /// The csv escape; the quote unless given.
    pub escape: Option<char>,
    /// Columns to be quoted whatever they hold, when writing csv.
    pub force_quote: CopyColumns,
    /// Columns that are never NULL, when reading csv.
    pub force_not_null: CopyColumns,
    /// Columns whose quoted null string is NULL too, when reading csv.
    pub force_null: CopyColumns,
    /// Rows that are taken, when reading.
    pub filter: Option<Box<pg::Expr>>,
}

/// What COPY copies, and which way.
#[derive(Debug, Clone, PartialEq)]
pub enum CopyDirection {
    /// `COPY table [(columns)] FROM`: no columns means all of them.
    Into {
        /// The table that is filled.
        table: ObjectName,
        /// The columns in the data's order.
        columns: Vec<Name>,
    },
    /// `COPY table [(columns)] TO`: no columns means all of them.
    OutOfTable {
        /// The table that is read.
        table: ObjectName,
        /// The columns in the data's order.
        columns: Vec<Name>,
    },
    /// `COPY (query) TO`. INSERT, UPDATE and DELETE with RETURNING are not taken.
    OutOfQuery(Body),
}

/// The other end of a COPY.
#[derive(Debug, Clone, PartialEq)]
pub enum CopyTarget {
    /// `STDIN` or `STDOUT`: the client.
    Client,
    /// A file on the server.
    File(String),
}

/// A COPY's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyDataFormat {
    /// PostgreSQL's text format.
    Text,
    /// Comma separated values.
    Csv,
    /// PostgreSQL's binary format.
    Binary,
}

/// Whether the first line of a COPY names the columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyHeader {
    /// It holds data.
    No,
    /// It names them; when reading, it is skipped.
    Yes,
    /// When reading, it must name the table's columns.
    Match,
}

/// Columns that an option of COPY names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyColumns {
    /// None.
    None,
    /// `*`.
    All,
    /// These.
    Named(Vec<Name>),
}

/// `DECLARE name [BINARY] [[NO] SCROLL] CURSOR [WITH | WITHOUT HOLD] FOR query`.
#[derive(Debug, Clone, PartialEq)]
pub struct DeclareCursor {
    /// Its name.
    pub name: Name,
    /// Whether its rows are sent in binary.
    pub binary: bool,
    /// Whether it outlives its transaction.
    pub hold: bool,
    /// `SCROLL` or `NO SCROLL`, if said.
    pub scroll: Option<bool>,
    /// Its rows.
    pub body: Body,
}

/// `FETCH direction FROM cursor` or `MOVE direction FROM cursor`.
#[derive(Debug, Clone, PartialEq)]
pub struct Fetch {
    /// The cursor.
    pub cursor: Name,
    /// Which rows.
    pub direction: FetchDirection,
    /// `MOVE`: the rows are passed over, and only counted.
    pub moves: bool,
}

/// Which rows FETCH gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchDirection {
    /// So many rows on; negative ones back. `NEXT` is 1, `PRIOR` is -1.
    Forward(i64),
    /// All rows that are left.
    ForwardAll,
    /// All rows before.
    BackwardAll,
    /// The n-th row from the start, from the end if negative. `FIRST` is 1, `LAST` is -1.
    Absolute(i64),
    /// The n-th row from here.
    Relative(i64),
}

/// A statement that looks after tables and answers with its tag alone.
#[derive(Debug, Clone, PartialEq)]
pub struct Maintenance {
    /// Which one.
    pub command: MaintenanceCommand,
    /// On which tables; none means all.
    pub tables: Vec<ObjectName>,
}

/// The kinds of [`Maintenance`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaintenanceCommand {
    /// `ANALYZE`.
    Analyze,
    /// `CHECKPOINT`.
    Checkpoint,
    /// `CLUSTER`.
    Cluster,
    /// `REINDEX`.
    Reindex,
    /// `VACUUM`.
    Vacuum {
        /// `VACUUM FULL`.
        full: bool,
    },
}

impl MaintenanceCommand {
    /// The command's tag.
    pub fn tag(self) -> &'static str {
        match self {
            MaintenanceCommand::Analyze => "ANALYZE",
            MaintenanceCommand::Checkpoint => "CHECKPOINT",
            MaintenanceCommand::Cluster => "CLUSTER",
            MaintenanceCommand::Reindex => "REINDEX",
            MaintenanceCommand::Vacuum { .. } => "VACUUM",
        }
    }
}

/// A path on the server, or the parameter that gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathArgument {
    /// The path.
    pub value: PathValue,
    /// Where it stands.
    pub position: usize,
}

/// A path on the server, or the parameter that gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathValue {
    /// The path itself.
    Text(String),
    /// `$n`, a text.
    Parameter(usize),
}

/// An identifier, folded to lower case unless it was quoted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// The name.
    pub value: String,
    /// Where it stands.
    pub position: usize,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.value)
    }
}

/// A table's name, with its schema and database if given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectName {
    /// The database.
    pub database: Option<Name>,
    /// The schema.
    pub schema: Option<Name>,
    /// The name.
    pub name: Name,
}

impl ObjectName {
    /// Where it starts.
    pub fn position(&self) -> usize {
        let first = self.database.as_ref().or(self.schema.as_ref());
        first.unwrap_or(&self.name).position
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in self.database.iter().chain(&self.schema) {
            write!(f, "{part}.")?;
        }
        write!(f, "{}", self.name)
    }
}
