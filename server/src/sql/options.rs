//! `OPTIONS (...)`: the values as they were written, and a table of what each statement takes.
//!
//! A statement's options are one `static` table ([`OptionSpec`]) and one struct. The table alone decides names, aliases,
//! types and ranges, so that unknown names, repeats and wrong values are found, and explained, in one place
//! ([`Reader`](super::option_reader::Reader)). The struct holds what was given: `None` means "not said, or said to be None", and whoever runs
//! the statement applies a default that depends on the data or the model; other defaults are applied here.
//!
//! Options are checked when a statement is parsed, and read again with the values of its parameters when it runs.
//! Whether a column, an encoder or a device of some name exists is not known here.

use super::ast::Name;

/// The options of a statement, as written.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Options {
    /// In the order of the text.
    pub entries: Vec<OptionEntry>,
    /// Where the statement's OPTIONS stand, or where they could have stood.
    pub position: usize,
}

/// `name = value`.
#[derive(Debug, Clone, PartialEq)]
pub struct OptionEntry {
    /// The option's name.
    pub name: Name,
    /// Its value.
    pub value: OptionValue,
    /// Where the value starts.
    pub value_position: usize,
}

/// An option's value.
#[derive(Debug, Clone, PartialEq)]
pub enum OptionValue {
    /// A string in single or double quotes.
    String(String),
    /// A number as written, with its sign and without underscores.
    Number(String),
    /// `True` or `False`.
    Bool(bool),
    /// `None` or `NULL`.
    Null,
    /// `[v, ...]`; no lists within.
    List(Vec<OptionValue>),
    /// A bare word, folded to lower case; a string.
    Word(String),
    /// `$n`.
    Parameter(usize),
    /// The value of a `bytea` parameter. Never parsed.
    Bytes(Vec<u8>),
}

/// What a statement's parameters are, when its options are read.
#[derive(Debug, Clone, Copy)]
pub enum Parameters<'a> {
    /// Not known yet: options that are parameters pass as if not given.
    Unknown,
    /// The value of `$1`, `$2` and so on.
    Known(&'a [OptionValue]),
}

/// One option that a statement takes.
#[derive(Debug)]
pub struct OptionSpec {
    /// Its name.
    pub name: &'static str,
    /// Other names for it.
    pub aliases: &'static [&'static str],
    /// What its value must be.
    pub kind: OptionKind,
    /// Whether the statement cannot do without.
    pub required: bool,
}

/// What an option's value must be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum OptionKind {
    /// A string.
    Text,
    /// A boolean; also the strings true, false, on and off.
    Boolean,
    /// An integer within bounds.
    Integer {
        /// The least.
        min: i64,
        /// The greatest.
        max: i64,
    },
    /// A number within bounds.
    Number {
        /// The least.
        min: f64,
        /// Whether `min` itself is out of bounds.
        above: bool,
        /// The greatest.
        max: f64,
    },
    /// A list of strings; a single string is a list of one.
    TextList,
    /// One of these words, in any case.
    Word(&'static [&'static str]),
    /// A path, or an image as a parameter.
    Image,
}

const fn option(name: &'static str, kind: OptionKind) -> OptionSpec {
    OptionSpec { name, aliases: &[], kind, required: false }
}

const fn alias(
    name: &'static str,
    aliases: &'static [&'static str],
    kind: OptionKind,
) -> OptionSpec {
    OptionSpec { name, aliases, kind, required: false }
}

const fn required(name: &'static str, kind: OptionKind) -> OptionSpec {
    OptionSpec { name, aliases: &[], kind, required: true }
}

const fn at_least(min: i64) -> OptionKind {
    OptionKind::Integer { min, max: i64::MAX }
}

const ON_ERROR: OptionKind = OptionKind::Word(&["fail", "skip"]);
const BATCH_SIZE: OptionKind = OptionKind::Integer { min: 1, max: 65_536 };
const SCORE: OptionKind = OptionKind::Number { min: -1.0, above: false, max: 1.0 };

/// BUILD MODEL and FIT MODEL.
pub static BUILD_MODEL: &[OptionSpec] = &[
    option("image_col", OptionKind::Text),
    alias("filename_col", &["fname"], OptionKind::Text),
    alias("target_col", &["target", "label_col"], OptionKind::Text),
    option("max_epochs", OptionKind::Integer { min: 1, max: 100_000 }),
    // Two images at least: with one there is nothing to contrast it with.
    option("batch_size", OptionKind::Integer { min: 2, max: 65_536 }),
    option("learning_rate", OptionKind::Number { min: 0.0, above: true, max: 1_000.0 }),
    option("loss", OptionKind::Word(&["nt_xent", "dcl"])),
    option("temperature", OptionKind::Number { min: 0.0, above: true, max: 100.0 }),
    option("weight_decay", OptionKind::Number { min: 0.0, above: false, max: 100.0 }),
    option("warmup_epochs", OptionKind::Number { min: 0.0, above: false, max: 100_000.0 }),
    option("seed", at_least(0)),
    option("encoder", OptionKind::Text),
    option("image_size", OptionKind::Integer { min: 8, max: 1_024 }),
    option("color", OptionKind::Word(&["gray", "rgb"])),
    option("augmentations", OptionKind::TextList),
    option("pretrained", OptionKind::Boolean),
    option("supervised", OptionKind::Boolean),
    option("on_error", ON_ERROR),
    option("overwrite", OptionKind::Boolean),
    option("device", OptionKind::Text),
    option("async", OptionKind::Boolean),
];

/// EXPORT MODEL.
pub static EXPORT_MODEL: &[OptionSpec] = &[option("overwrite", OptionKind::Boolean)];

/// UPLOAD MODEL.
pub static UPLOAD_MODEL: &[OptionSpec] = &[option("overwrite", OptionKind::Boolean)];

/// CREATE TABLE USING.
pub static CREATE_TABLE_USING: &[OptionSpec] = &[
    option("path_type", OptionKind::Word(&["folder", "file"])),
    option("data_type", OptionKind::Word(&["image", "audio", "video"])),
    option("file_type", OptionKind::TextList),
    option("recursive", OptionKind::Boolean),
    option("batch_size", BATCH_SIZE),
    option("on_error", ON_ERROR),
    option("overwrite", OptionKind::Boolean),
];

/// CONVERT.
pub static CONVERT: &[OptionSpec] = &[
    option("table_name", OptionKind::Text),
    option("if_exists", OptionKind::Word(&["fail", "replace", "append"])),
    option("image_col", OptionKind::Text),
    option("result_col", OptionKind::Text),
    option("batch_size", BATCH_SIZE),
    option("on_error", ON_ERROR),
];

/// ThanoSQL's COPY.
pub static COPY_FILE: &[OptionSpec] =
    &[option("if_exists", OptionKind::Word(&["fail", "replace", "append"]))];

/// GET THANOSQL DATASET.
pub static GET_DATASET: &[OptionSpec] = &[option("overwrite", OptionKind::Boolean)];

/// GET THANOSQL MODEL.
pub static GET_MODEL: &[OptionSpec] =
    &[option("model_name", OptionKind::Text), option("overwrite", OptionKind::Boolean)];

/// SEARCH with `images=`.
pub static SEARCH_EVERY_ROW: &[OptionSpec] = &[
    option("emb_col", OptionKind::Text),
    option("top_k", at_least(1)),
    option("min_score", SCORE),
];

/// SEARCH with `search_input` among its options.
pub static SEARCH_BEST: &[OptionSpec] = &[
    option("search_by", OptionKind::Word(&["image", "text", "audio", "video"])),
    required("search_input", OptionKind::Image),
    option("emb_col", OptionKind::Text),
    option("result_col", OptionKind::Text),
    option("top_k", at_least(1)),
    option("min_score", SCORE),
];

/// PRINT.
pub static PRINT: &[OptionSpec] = &[
    option("image_col", OptionKind::Text),
    option("limit", at_least(0)),
    option("base_dir", OptionKind::Text),
    option("format", OptionKind::Word(&["auto", "bytes", "text"])),
];

/// PREDICT.
pub static PREDICT: &[OptionSpec] = &[
    option("image_col", OptionKind::Text),
    option("result_col", OptionKind::Text),
    option("k", OptionKind::Integer { min: 1, max: 10_000 }),
];

/// EVALUATE.
pub static EVALUATE: &[OptionSpec] = &[
    option("image_col", OptionKind::Text),
    alias("target_col", &["target", "label_col"], OptionKind::Text),
];

/// FUNCTION compute.groupby_emb_mean.
pub static GROUPBY_EMB_MEAN: &[OptionSpec] = &[
    required("label_col", OptionKind::Text),
    option("emb_col", OptionKind::Text),
    option("result_col", OptionKind::Text),
];

/// FUNCTION compute.similarity.
pub static SIMILARITY: &[OptionSpec] = &[
    option("emb_col", OptionKind::Text),
    required("src_table", OptionKind::Text),
    option("src_emb_col", OptionKind::Text),
    option("src_label_col", OptionKind::Text),
    option("top_k", at_least(1)),
    option("result_col", OptionKind::Text),
];

/// The options of every statement.
pub static ALL: &[&[OptionSpec]] = &[
    BUILD_MODEL,
    EXPORT_MODEL,
    UPLOAD_MODEL,
    CREATE_TABLE_USING,
    CONVERT,
    COPY_FILE,
    GET_DATASET,
    GET_MODEL,
    SEARCH_EVERY_ROW,
    SEARCH_BEST,
    PRINT,
    PREDICT,
    EVALUATE,
    GROUPBY_EMB_MEAN,
    SIMILARITY,
];

/// What the values of an option of this name are, in any statement.
pub fn kind_of(name: &str) -> Option<OptionKind> {
    ALL.iter().copied().flatten().find(|spec| spec.is_called(name)).map(|spec| spec.kind)
}

/// What to do with an image that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// End with an error.
    Fail,
    /// Go on without it.
    Skip,
}

/// What to do with a table that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfExists {
    /// End with an error.
    Fail,
    /// Put the new rows in place of the old ones.
    Replace,
    /// Add the new rows.
    Append,
}

/// The colours of a model's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColorOption {
    /// One channel.
    Gray,
    /// Three channels.
    Rgb,
}

/// What a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathType {
    /// A folder of files.
    Folder,
    /// A single file.
    File,
}

/// How PRINT shows an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrintFormat {
    /// As suits the client.
    Auto,
    /// The image itself.
    Bytes,
    /// A drawing in block characters.
    Text,
}

/// What a training minimises.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LossOption {
    /// SimCLR's loss.
    #[default]
    NtXent,
    /// The decoupled contrastive loss.
    Dcl,
}

/// The options of BUILD MODEL and FIT MODEL.
#[derive(Debug, Clone, PartialEq)]
pub struct BuildModelOptions {
    /// The column of paths or images; `None`: found by name.
    pub image_col: Option<String>,
    /// The column of file names; `None`: found by name.
    pub filename_col: Option<String>,
    /// The column of targets; `None`: found by name.
    pub target_col: Option<String>,
    /// Passes over the data; `None`: 5.
    pub max_epochs: Option<u32>,
    /// Images a step; `None`: as the recipe has it.
    pub batch_size: Option<u32>,
    /// `None`: as the recipe has it.
    pub learning_rate: Option<f64>,
    /// What is minimised.
    pub loss: LossOption,
    /// `None`: as the recipe has it.
    pub temperature: Option<f64>,
    /// `None`: as the recipe has it.
    pub weight_decay: Option<f64>,
    /// `None`: as the recipe has it.
    pub warmup_epochs: Option<f64>,
    /// `None`: as the recipe has it.
    pub seed: Option<u64>,
    /// The encoder's name; `None`: chosen by the size of the images.
    pub encoder: Option<String>,
    /// The side of the input in pixels; `None`: from the data.
    pub image_size: Option<u32>,
    /// `None`: from the data.
    pub color: Option<ColorOption>,
    /// Names of augmentations; `None`: by the kind of image.
    pub augmentations: Option<Vec<String>>,
    /// Start from published weights.
    pub pretrained: bool,
    /// Rows with a target also pull together by class.
    pub supervised: bool,
    /// Images that cannot be read.
    pub on_error: OnError,
    /// Replace a model of that name.
    pub overwrite: bool,
    /// `None`: from the configuration.
    pub device: Option<String>,
    /// Answer at once with the job's id.
    pub run_async: bool,
}

/// The options of EXPORT MODEL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportModelOptions {
    /// Replace a file of that name.
    pub overwrite: bool,
}

/// The options of UPLOAD MODEL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadModelOptions {
    /// Replace a model of that name.
    pub overwrite: bool,
}

/// The options of CREATE TABLE USING.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateTableUsingOptions {
    /// `None`: whatever the path turns out to be.
    pub path_type: Option<PathType>,
    /// Endings of file names, with their point; `None`: those of the image formats that can be read.
    pub file_type: Option<Vec<String>>,
    /// Whether folders within are searched.
    pub recursive: bool,
    /// Most images that are decoded and embedded together; `None`: the server's default.
    pub batch_size: Option<u32>,
    /// Images that cannot be read.
    pub on_error: OnError,
    /// Replace a table of that name.
    pub overwrite: bool,
}

/// The options of CONVERT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConvertOptions {
    /// The table that the rows are kept as; `None`: they are not kept.
    pub table_name: Option<String>,
    /// What to do with a table of that name; `None`: replace it only if nothing would be lost.
    pub if_exists: Option<IfExists>,
    /// `None`: the model's, or else found by name.
    pub image_col: Option<String>,
    /// `None`: `<model>_<algorithm>`.
    pub result_col: Option<String>,
    /// Most images that are decoded and embedded together; `None`: the server's default.
    pub batch_size: Option<u32>,
    /// Images that cannot be read.
    pub on_error: OnError,
}

/// The options of ThanoSQL's COPY.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyFileOptions {
    /// What to do with a table of that name.
    pub if_exists: IfExists,
}

/// The options of GET THANOSQL DATASET.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetDatasetOptions {
    /// Replace what is there.
    pub overwrite: bool,
}

/// The options of GET THANOSQL MODEL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetModelOptions {
    /// The model's name here; `None`: its published name.
    pub model_name: Option<String>,
    /// Replace a model of that name.
    pub overwrite: bool,
}

/// The options of SEARCH, both forms.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchOptions {
    /// The image to search for; always there in the second form once its parameter is known, never in the first.
    pub search_input: Option<SearchInput>,
    /// The column of vectors; `None`: the model's own.
    pub emb_col: Option<String>,
    /// The column of scores; `search_result` unless said, `None` in the first form.
    pub result_col: Option<String>,
    /// How many rows at most; `None`: all. 1000 in the second form unless said.
    pub top_k: Option<u64>,
    /// The least score; `None`: any.
    pub min_score: Option<f64>,
}

/// The image of SEARCH's second form.
#[derive(Debug, Clone, PartialEq)]
pub enum SearchInput {
    /// A path on the server.
    Path(String),
    /// The image itself.
    Bytes(Vec<u8>),
}

/// The options of PRINT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrintOptions {
    /// `None`: found by name, or the first text column.
    pub image_col: Option<String>,
    /// How many images at most; `None`: all.
    pub limit: Option<u64>,
    /// Relative paths start here.
    pub base_dir: Option<String>,
    /// How they are shown.
    pub format: PrintFormat,
}

/// The options of PREDICT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PredictOptions {
    /// `None`: the model's, or else found by name.
    pub image_col: Option<String>,
    /// The column of classes.
    pub result_col: String,
    /// How many neighbours vote; `None`: 5.
    pub k: Option<u32>,
}

/// The options of EVALUATE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvaluateOptions {
    /// `None`: the model's, or else found by name.
    pub image_col: Option<String>,
    /// `None`: the model's, or else found by name.
    pub target_col: Option<String>,
}

/// The options of FUNCTION compute.groupby_emb_mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupbyEmbMeanOptions {
    /// The column to group by. Empty only while it is a parameter whose value is not known yet.
    pub label_col: String,
    /// The column of vectors; `None`: the only one.
    pub emb_col: Option<String>,
    /// The column of means.
    pub result_col: String,
}

/// The options of FUNCTION compute.similarity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimilarityOptions {
    /// The column of vectors; `None`: the only one.
    pub emb_col: Option<String>,
    /// The table to compare with. Empty only while it is a parameter whose value is not known yet.
    pub src_table: String,
    /// Its column of vectors; `None`: the only one.
    pub src_emb_col: Option<String>,
    /// Its column of labels; `None`: found by name.
    pub src_label_col: Option<String>,
    /// How many of its rows a row is given.
    pub top_k: u64,
    /// The column of results.
    pub result_col: String,
}
