//! From options as written to the structs of [`super::options`]: names, types, ranges, and what is said when they are wrong.
//!
//! [`Reader::new`] finds what is wrong with names; each getter finds what is wrong with one value. Every message names the
//! option, and every hint lists the ones that the statement takes.

use super::error::{ErrorKind, ParseError};
use super::options::{
    BUILD_MODEL, BuildModelOptions, CONVERT, COPY_FILE, CREATE_TABLE_USING, ColorOption,
    ConvertOptions, CopyFileOptions, CreateTableUsingOptions, EVALUATE, EXPORT_MODEL,
    EvaluateOptions, ExportModelOptions, GET_DATASET, GET_MODEL, GROUPBY_EMB_MEAN,
    GetDatasetOptions, GetModelOptions, GroupbyEmbMeanOptions, IfExists, LossOption, OnError,
    OptionEntry, OptionKind, OptionSpec, OptionValue, Options, PREDICT, PRINT, Parameters,
    PathType, PredictOptions, PrintFormat, PrintOptions, SEARCH_BEST, SEARCH_EVERY_ROW, SIMILARITY,
    SearchInput, SearchOptions, SimilarityOptions, UPLOAD_MODEL, UploadModelOptions,
};
use super::suggest::closest;

/// Reads the options of one statement.
#[derive(Debug)]
pub struct Reader<'a> {
    specs: &'static [OptionSpec],
    /// The entry of each spec, and its value with parameters put in.
    given: Vec<Option<Given<'a>>>,
}

#[derive(Debug)]
struct Given<'a> {
    entry: &'a OptionEntry,
    /// `None`: a parameter that is not known yet.
    value: Option<&'a OptionValue>,
}

impl<'a> Reader<'a> {
    /// Finds the entry of each option.
    ///
    /// # Errors
    ///
    /// An option that `specs` does not have, that is given twice or that is missing, and a parameter without a value.
    pub fn new(
        options: &'a Options,
        specs: &'static [OptionSpec],
        parameters: Parameters<'a>,
    ) -> Result<Reader<'a>, ParseError> {
        let mut given: Vec<Option<Given<'a>>> = specs.iter().map(|_| None).collect();
        for entry in &options.entries {
            let Some(index) = specs.iter().position(|spec| spec.is_called(&entry.name.value))
            else {
                return Err(unknown(entry, specs));
            };
            if given[index].is_some() {
                return Err(invalid(format!(
                    "option \"{}\" is given more than once",
                    specs[index].name
                ))
                .with_hint(valid_options(specs))
                .at(entry.name.position));
            }
            let value = match (&entry.value, parameters) {
                (OptionValue::Parameter(_), Parameters::Unknown) => None,
                (OptionValue::Parameter(number), Parameters::Known(values)) => {
                    Some(values.get(number - 1).ok_or_else(|| {
                        ParseError::new(
                            ErrorKind::UndefinedParameter,
                            format!("there is no parameter ${number}"),
                        )
                        .at(entry.value_position)
                    })?)
                }
                (value, _) => Some(value),
            };
            given[index] = Some(Given { entry, value });
        }
        for (spec, given) in specs.iter().zip(&given) {
            let is_null = |given: &Given<'_>| matches!(given.value, Some(OptionValue::Null));
            if spec.required && given.as_ref().is_none_or(is_null) {
                return Err(invalid(format!("option \"{}\" is required", spec.name))
                    .with_hint(valid_options(specs))
                    .at(options.position));
            }
        }
        Ok(Reader { specs, given })
    }

    /// Whether an option is given, be it as None.
    pub fn is_given(&self, name: &str) -> bool {
        self.find(name).1.is_some()
    }

    /// A string.
    pub fn text(&self, name: &str) -> Result<Option<String>, ParseError> {
        self.read(name, "a string", |value| value.text().map(str::to_owned))
    }

    /// A boolean.
    pub fn boolean(&self, name: &str) -> Result<Option<bool>, ParseError> {
        self.read(name, "True or False", |value| {
            if let OptionValue::Bool(value) = value {
                return Some(*value);
            }
            match value.text()?.to_ascii_lowercase().as_str() {
                "true" | "on" => Some(true),
                "false" | "off" => Some(false),
                _ => None,
            }
        })
    }

    /// An integer within the bounds of its [`OptionKind`].
    pub fn integer<T: TryFrom<i64>>(&self, name: &str) -> Result<Option<T>, ParseError> {
        let OptionKind::Integer { min, max } = self.find(name).0.kind else {
            unreachable!("{name} is an integer")
        };
        let wanted = match max {
            i64::MAX => format!("an integer of at least {min}"),
            _ => format!("an integer from {min} to {max}"),
        };
        self.read(name, &wanted, |value| {
            let integer: i64 = value.number()?.parse().ok()?;
            if (min..=max).contains(&integer) { T::try_from(integer).ok() } else { None }
        })
    }

    /// A number within the bounds of its [`OptionKind`].
    pub fn number(&self, name: &str) -> Result<Option<f64>, ParseError> {
        let OptionKind::Number { min, above, max } = self.find(name).0.kind else {
            unreachable!("{name} is a number")
        };
        let wanted = match above {
            true => format!("a number above {min} and up to {max}"),
            false => format!("a number from {min} to {max}"),
        };
        self.read(name, &wanted, |value| {
            let number: f64 = value.number()?.parse().ok()?;
            (number >= min && number <= max && !(above && number == min)).then_some(number)
        })
    }

    /// A list of strings.
    pub fn text_list(&self, name: &str) -> Result<Option<Vec<String>>, ParseError> {
        self.read(name, "a list of strings", |value| {
            let values = if let OptionValue::List(values) = value {
                values
            } else {
                std::slice::from_ref(value)
            };
            values.iter().map(|value| value.text().map(str::to_owned)).collect()
        })
    }

    /// One of the words of its [`OptionKind`], in the table's spelling.
    pub fn word(&self, name: &str) -> Result<Option<&'static str>, ParseError> {
        let (spec, given) = self.find(name);
        let OptionKind::Word(words) = spec.kind else {
            unreachable!("{name} is one of some words")
        };
        let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
        let find = |text: &str| words.iter().find(|word| word.eq_ignore_ascii_case(text)).copied();
        self.read(name, &one_of(&quoted), |value| value.text().and_then(find)).map_err(|error| {
            let written = given.as_ref().and_then(|given| given.value).and_then(OptionValue::text);
            match written.and_then(|written| closest(written, words.iter().copied())) {
                Some(word) => error.with_hint(format!("Did you mean '{word}'?")),
                None => error,
            }
        })
    }

    /// A path or an image.
    pub fn image(&self, name: &str) -> Result<Option<SearchInput>, ParseError> {
        self.read(name, "a path or an image", |value| {
            if let OptionValue::Bytes(bytes) = value {
                return Some(SearchInput::Bytes(bytes.clone()));
            }
            value.text().map(|path| SearchInput::Path(path.to_owned()))
        })
    }

    fn find(&self, name: &str) -> (&'static OptionSpec, &Option<Given<'a>>) {
        let index = self.specs.iter().position(|spec| spec.name == name);
        let index = index.expect("an option is read only with a table that has it");
        (&self.specs[index], &self.given[index])
    }

    /// `None` when an option is not given, is None, or is a parameter that is not known yet.
    fn read<T>(
        &self,
        name: &str,
        wanted: &str,
        convert: impl FnOnce(&OptionValue) -> Option<T>,
    ) -> Result<Option<T>, ParseError> {
        let Some(given) = self.find(name).1 else { return Ok(None) };
        let value = match given.value {
            None | Some(OptionValue::Null) => return Ok(None),
            Some(value) => value,
        };
        convert(value).map(Some).ok_or_else(|| {
            invalid(format!(
                "option \"{}\" must be {wanted}, not {}",
                given.entry.name,
                describe(value)
            ))
            .with_hint(valid_options(self.specs))
            .at(given.entry.value_position)
        })
    }

    /// The position of an option's value, for errors of the caller's own.
    fn position(&self, name: &str) -> Option<usize> {
        self.find(name).1.as_ref().map(|given| given.entry.value_position)
    }

    fn on_error(&self) -> Result<OnError, ParseError> {
        Ok(match self.word("on_error")? {
            Some("skip") => OnError::Skip,
            _ => OnError::Fail,
        })
    }

    fn if_exists(&self) -> Result<Option<IfExists>, ParseError> {
        Ok(self.word("if_exists")?.map(|word| match word {
            "replace" => IfExists::Replace,
            "append" => IfExists::Append,
            _ => IfExists::Fail,
        }))
    }
}

impl OptionValue {
    /// The text of a string or a bare word.
    pub fn text(&self) -> Option<&str> {
        if let OptionValue::String(text) | OptionValue::Word(text) = self {
            Some(text)
        } else {
            None
        }
    }

    /// A number as written.
    pub fn number(&self) -> Option<&str> {
        if let OptionValue::Number(number) = self { Some(number) } else { None }
    }
}

impl OptionSpec {
    pub(super) fn is_called(&self, name: &str) -> bool {
        self.name == name || self.aliases.contains(&name)
    }
}

fn invalid(message: String) -> ParseError {
    ParseError::new(ErrorKind::InvalidOption, message)
}

fn unknown(entry: &OptionEntry, specs: &[OptionSpec]) -> ParseError {
    let names =
        specs.iter().flat_map(|spec| std::iter::once(&spec.name).chain(spec.aliases)).copied();
    let valid = valid_options(specs);
    let hint = match closest(&entry.name.value, names) {
        Some(name) => format!("Did you mean \"{name}\"? {valid}"),
        None => valid,
    };
    invalid(format!("unknown option \"{}\"", entry.name)).with_hint(hint).at(entry.name.position)
}

fn valid_options(specs: &[OptionSpec]) -> String {
    let names: Vec<&str> = specs.iter().map(|spec| spec.name).collect();
    match names.as_slice() {
        [name] => format!("The only option is {name}."),
        names => format!("Valid options are {}.", names.join(", ")),
    }
}

fn one_of(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [word] => word.clone(),
        [words @ .., last] => format!("{} or {last}", words.join(", ")),
    }
}

fn describe(value: &OptionValue) -> String {
    match value {
        OptionValue::String(text) | OptionValue::Word(text) => match text.char_indices().nth(60) {
            Some((cut, _)) => format!("'{}...'", &text[..cut]),
            None => format!("'{text}'"),
        },
        OptionValue::Number(number) => number.clone(),
        OptionValue::Bool(true) => "True".to_owned(),
        OptionValue::Bool(false) => "False".to_owned(),
        OptionValue::Null => "None".to_owned(),
        OptionValue::List(_) => "a list".to_owned(),
        OptionValue::Parameter(number) => format!("${number}"),
        OptionValue::Bytes(_) => "bytes".to_owned(),
    }
}

impl BuildModelOptions {
    /// Reads them.
    pub fn read(
        options: &Options,
        parameters: Parameters<'_>,
    ) -> Result<BuildModelOptions, ParseError> {
        let reader = Reader::new(options, BUILD_MODEL, parameters)?;
        Ok(BuildModelOptions {
            image_col: reader.text("image_col")?,
            filename_col: reader.text("filename_col")?,
            target_col: reader.text("target_col")?,
            max_epochs: reader.integer("max_epochs")?,
            batch_size: reader.integer("batch_size")?,
            learning_rate: reader.number("learning_rate")?,
            loss: match reader.word("loss")? {
                Some("dcl") => LossOption::Dcl,
                _ => LossOption::NtXent,
            },
            temperature: reader.number("temperature")?,
            weight_decay: reader.number("weight_decay")?,
            warmup_epochs: reader.number("warmup_epochs")?,
            seed: reader.integer("seed")?,
            encoder: reader.text("encoder")?.filter(|name| !name.eq_ignore_ascii_case("auto")),
            image_size: reader.integer("image_size")?,
            color: reader.word("color")?.map(|word| match word {
                "gray" => ColorOption::Gray,
                _ => ColorOption::Rgb,
            }),
            augmentations: reader.text_list("augmentations")?,
            pretrained: reader.boolean("pretrained")?.unwrap_or(false),
            supervised: reader.boolean("supervised")?.unwrap_or(false),
            on_error: reader.on_error()?,
            overwrite: reader.boolean("overwrite")?.unwrap_or(false),
            device: reader.text("device")?,
            run_async: reader.boolean("async")?.unwrap_or(false),
        })
    }
}

impl ExportModelOptions {
    /// Reads them.
    pub fn read(
        options: &Options,
        parameters: Parameters<'_>,
    ) -> Result<ExportModelOptions, ParseError> {
        let reader = Reader::new(options, EXPORT_MODEL, parameters)?;
        Ok(ExportModelOptions { overwrite: reader.boolean("overwrite")?.unwrap_or(false) })
    }
}

impl UploadModelOptions {
    /// Reads them.
    pub fn read(
        options: &Options,
        parameters: Parameters<'_>,
    ) -> Result<UploadModelOptions, ParseError> {
        let reader = Reader::new(options, UPLOAD_MODEL, parameters)?;
        Ok(UploadModelOptions { overwrite: reader.boolean("overwrite")?.unwrap_or(false) })
    }
}

impl CreateTableUsingOptions {
    /// Reads them.
    pub fn read(
        options: &Options,
        parameters: Parameters<'_>,
    ) -> Result<CreateTableUsingOptions, ParseError> {
        let reader = Reader::new(options, CREATE_TABLE_USING, parameters)?;
        if let Some(kind @ ("audio" | "video")) = reader.word("data_type")? {
            return Err(unsupported_media("embedding", kind, reader.position("data_type")));
        }
        Ok(CreateTableUsingOptions {
            path_type: reader.word("path_type")?.map(|word| match word {
                "file" => PathType::File,
                _ => PathType::Folder,
            }),
            file_type: reader.text_list("file_type")?,
            recursive: reader.boolean("recursive")?.unwrap_or(true),
            batch_size: reader.integer("batch_size")?,
            on_error: reader.on_error()?,
            overwrite: reader.boolean("overwrite")?.unwrap_or(false),
        })
    }
}

impl ConvertOptions {
    /// Reads them.
    pub fn read(
        options: &Options,
        parameters: Parameters<'_>,
    ) -> Result<ConvertOptions, ParseError> {
        let reader = Reader::new(options, CONVERT, parameters)?;
        Ok(ConvertOptions {
            table_name: reader.text("table_name")?,
            if_exists: reader.if_exists()?,
            image_col: reader.text("image_col")?,
            result_col: reader.text("result_col")?,
            batch_size: reader.integer("batch_size")?,
            on_error: reader.on_error()?,
        })
    }
}

impl CopyFileOptions {
    /// Reads them.
    pub fn read(
        options: &Options,
        parameters: Parameters<'_>,
    ) -> Result<CopyFileOptions, ParseError> {
        let reader = Reader::new(options, COPY_FILE, parameters)?;
        Ok(CopyFileOptions { if_exists: reader.if_exists()?.unwrap_or(IfExists::Fail) })
    }
}

impl GetDatasetOptions {
    /// Reads them.
    pub fn read(
        options: &Options,
        parameters: Parameters<'_>,
    ) -> Result<GetDatasetOptions, ParseError> {
        let reader = Reader::new(options, GET_DATASET, parameters)?;
        Ok(GetDatasetOptions { overwrite: reader.boolean("overwrite")?.unwrap_or(false) })
    }
}

impl GetModelOptions {
    /// Reads them.
    pub fn read(
        options: &Options,
        parameters: Parameters<'_>,
    ) -> Result<GetModelOptions, ParseError> {
        let reader = Reader::new(options, GET_MODEL, parameters)?;
        Ok(GetModelOptions {
            model_name: reader.text("model_name")?,
            overwrite: reader.boolean("overwrite")?.unwrap_or(false),
        })
    }
}

impl SearchOptions {
    /// Reads those of `SEARCH IMAGE images=... USING`.
    pub fn read_every_row(
        options: &Options,
        parameters: Parameters<'_>,
    ) -> Result<SearchOptions, ParseError> {
        let reader = Reader::new(options, SEARCH_EVERY_ROW, parameters)?;
        Ok(SearchOptions {
            search_input: None,
            emb_col: reader.text("emb_col")?,
            result_col: None,
            top_k: reader.integer("top_k")?,
            min_score: reader.number("min_score")?,
        })
    }

    /// Reads those of `SEARCH IMAGE USING ... OPTIONS (search_input=...)`.
    pub fn read_best(
        options: &Options,
        parameters: Parameters<'_>,
    ) -> Result<SearchOptions, ParseError> {
        const DEFAULT_TOP_K: u64 = 1000;
        let reader = Reader::new(options, SEARCH_BEST, parameters)?;
        if let Some(kind @ ("text" | "audio" | "video")) = reader.word("search_by")? {
            return Err(unsupported_media("searching by", kind, reader.position("search_by")));
        }
        Ok(SearchOptions {
            search_input: reader.image("search_input")?,
            emb_col: reader.text("emb_col")?,
            result_col: Some(
                reader.text("result_col")?.unwrap_or_else(|| "search_result".to_owned()),
            ),
            top_k: match reader.is_given("top_k") {
                true => reader.integer("top_k")?,
                false => Some(DEFAULT_TOP_K),
            },
            min_score: reader.number("min_score")?,
        })
    }
}

impl PrintOptions {
    /// Reads them.
    pub fn read(options: &Options, parameters: Parameters<'_>) -> Result<PrintOptions, ParseError> {
        const DEFAULT_LIMIT: u64 = 25;
        let reader = Reader::new(options, PRINT, parameters)?;
        Ok(PrintOptions {
            image_col: reader.text("image_col")?,
            limit: match reader.is_given("limit") {
                true => reader.integer("limit")?,
                false => Some(DEFAULT_LIMIT),
            },
            base_dir: reader.text("base_dir")?,
            format: match reader.word("format")? {
                Some("bytes") => PrintFormat::Bytes,
                Some("text") => PrintFormat::Text,
                _ => PrintFormat::Auto,
            },
        })
    }
}

impl PredictOptions {
    /// Reads them.
    pub fn read(
        options: &Options,
        parameters: Parameters<'_>,
    ) -> Result<PredictOptions, ParseError> {
        let reader = Reader::new(options, PREDICT, parameters)?;
        Ok(PredictOptions {
            image_col: reader.text("image_col")?,
            result_col: reader.text("result_col")?.unwrap_or_else(|| "predict_result".to_owned()),
            k: reader.integer("k")?,
        })
    }
}

impl EvaluateOptions {
    /// Reads them.
    pub fn read(
        options: &Options,
        parameters: Parameters<'_>,
    ) -> Result<EvaluateOptions, ParseError> {
        let reader = Reader::new(options, EVALUATE, parameters)?;
        Ok(EvaluateOptions {
            image_col: reader.text("image_col")?,
            target_col: reader.text("target_col")?,
        })
    }
}

impl GroupbyEmbMeanOptions {
    /// Reads them.
    pub fn read(
        options: &Options,
        parameters: Parameters<'_>,
    ) -> Result<GroupbyEmbMeanOptions, ParseError> {
        let reader = Reader::new(options, GROUPBY_EMB_MEAN, parameters)?;
        Ok(GroupbyEmbMeanOptions {
            label_col: reader.text("label_col")?.unwrap_or_default(),
            emb_col: reader.text("emb_col")?,
            result_col: reader.text("result_col")?.unwrap_or_else(|| "emb_mean_result".to_owned()),
        })
    }
}

impl SimilarityOptions {
    /// Reads them.
    pub fn read(
        options: &Options,
        parameters: Parameters<'_>,
    ) -> Result<SimilarityOptions, ParseError> {
        let reader = Reader::new(options, SIMILARITY, parameters)?;
        Ok(SimilarityOptions {
            emb_col: reader.text("emb_col")?,
            src_table: reader.text("src_table")?.unwrap_or_default(),
            src_emb_col: reader.text("src_emb_col")?,
            src_label_col: reader.text("src_label_col")?,
            top_k: reader.integer("top_k")?.unwrap_or(1),
            result_col: reader
                .text("result_col")?
                .unwrap_or_else(|| "similarity_result".to_owned()),
        })
    }
}

fn unsupported_media(what: &str, kind: &str, position: Option<usize>) -> ParseError {
    let mut error =
        ParseError::new(ErrorKind::Unsupported, format!("{what} {kind} is not supported"))
            .with_hint("Images are: use 'image'.");
    error.position = position;
    error
}
