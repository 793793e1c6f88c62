//! ThanoSQL's own statements: which one begins here, and what follows its verb.
//!
//! A small recursive-descent parser over the tokens of one statement. Queries within ([`Body`]) go to sqlparser by way of
//! [`super::query`]. A word is a keyword only where the grammar expects it, and a statement is ThanoSQL's only if the
//! words after its verb say so as well: PostgreSQL's users may call their tables and columns `model`, `search` or `list`.

use sqlparser::tokenizer::{Token, Word};

use super::ast::{
    Algorithm, Body, BuildModel, ComputeFunction, ComputeKind, Convert, CopyFile, CreateTableUsing,
    DropModel, DropVerb, Evaluate, ExplainThano, ExportModel, FitModel, GetDataset, GetModel,
    ImageInput, ImageValue, JobId, JobIdValue, ListKind, Name, ObjectName, PathArgument, PathValue,
    Predict, Print, RowStatement, Search, SearchForm, Statement, UploadModel,
};
use super::error::{ErrorKind, ParseError};
use super::options::{
    BuildModelOptions, ConvertOptions, CopyFileOptions, CreateTableUsingOptions, EvaluateOptions,
    ExportModelOptions, GetDatasetOptions, GetModelOptions, GroupbyEmbMeanOptions, OptionEntry,
    OptionValue, Options, Parameters, PredictOptions, PrintOptions, SearchOptions,
    SimilarityOptions, UploadModelOptions,
};
use super::quote::is_reserved;
use super::source::{Source, Tok};
use super::suggest::closest;

/// How deeply row statements may stand in row statements.
const MAX_EMBEDDED_DEPTH: usize = 50;

/// Algorithms that ThanoSQL has elsewhere and that are not here.
const OTHER_ALGORITHMS: &[&str] = &[
    "automlclassifier",
    "automlregressor",
    "clip",
    "clipen",
    "clipko",
    "convnext_tiny",
    "convnext_base",
    "docvqa",
    "efficientnetv2s",
    "efficientnetv2m",
    "electraen",
    "electrako",
    "keybert",
    "lda",
    "node2vec",
    "recommendation",
    "sbert",
    "sberten",
    "sbertko",
    "tclip",
    "videosearch",
    "wav2vec2base",
    "wav2vec2large",
    "whisper",
    "xclip",
    "xclipen",
];

const MEDIA: &[&str] = &["audio", "video", "text", "keyword"];

/// Reads one statement from its tokens.
pub(super) struct StatementParser<'a> {
    pub(super) source: &'a Source,
    /// The next token.
    pub(super) at: usize,
    /// Where the part at hand ends: the statement's end, or the parenthesis around the part.
    pub(super) end: usize,
    /// How many placeholders are taken.
    pub(super) placeholders: usize,
    /// What placeholders start with; no name of the statement does.
    pub(super) placeholder_prefix: String,
    /// How many row statements are open.
    pub(super) depth: usize,
    /// The form of the statement at hand, for the hint of a syntax error.
    form: Option<&'static str>,
}

impl<'a> StatementParser<'a> {
    /// A parser for the statement from token `start` up to `end`.
    pub(super) fn new(source: &'a Source, start: usize, end: usize) -> StatementParser<'a> {
        let placeholder_prefix = placeholder_prefix(&source.tokens[start..end]);
        StatementParser {
            source,
            at: start,
            end,
            placeholders: 0,
            placeholder_prefix,
            depth: 0,
            form: None,
        }
    }

    /// A parser for a part of the statement, to look ahead with; what it finds is thrown away.
    pub(super) fn fork(&self, start: usize, end: usize) -> StatementParser<'a> {
        let placeholder_prefix = String::new();
        StatementParser {
            source: self.source,
            at: start,
            end,
            placeholders: 0,
            placeholder_prefix,
            depth: 0,
            form: None,
        }
    }

    /// The whole statement.
    pub(super) fn statement(&mut self) -> Result<Statement, ParseError> {
        if let Some(statement) = self.own_statement()? {
            return Ok(statement);
        }
        if self.starts_row_statement(self.at) || self.starts_with_row_verb() {
            let statement = self.row_statement()?;
            return Ok(Statement::Rows(statement));
        }
        self.sql_statement()
    }

    /// A statement of ours that yields no rows, or one of PostgreSQL's that sqlparser cannot read.
    fn own_statement(&mut self) -> Result<Option<Statement>, ParseError> {
        let Some(verb) = self.peek(0).and_then(Tok::keyword).map(str::to_ascii_lowercase) else {
            return Ok(None);
        };
        let statement = match verb.as_str() {
            "build" => self.build_model()?,
            "fit" => self.fit_model()?,
            "delete" if self.is_keyword(1, "model") => self.drop_model(DropVerb::Delete)?,
            "drop" if self.is_keyword(1, "model") => self.drop_model(DropVerb::Drop)?,
            "export" => self.export_model()?,
            "upload" => self.upload_model()?,
            "show" if self.is_keyword(1, "create") && self.is_keyword(2, "model") => {
                self.show_create_model()?
            }
            "get" => self.get_thanosql()?,
            "cancel" => Statement::CancelJob(self.job("CANCEL JOB id")?),
            "wait" => Statement::WaitJob(self.job("WAIT JOB id")?),
            "create" if self.is_create_table_using() => self.create_table_using()?,
            "copy" => return self.copy().map(Some),
            "explain" => return self.explain(),
            "declare" => self.declare_cursor()?,
            "fetch" | "move" => self.fetch()?,
            "close" => self.close_cursor()?,
            "analyze" | "analyse" | "checkpoint" | "cluster" | "reindex" | "vacuum" => {
                self.maintenance(&verb)?
            }
            _ => return Ok(None),
        };
        self.expect_end()?;
        Ok(Some(statement))
    }

    // Models

    fn build_model(&mut self) -> Result<Statement, ParseError> {
        self.form("BUILD MODEL name USING algorithm [OPTIONS (...)] AS query");
        self.keywords(&["build", "model"])?;
        let name = self.name()?;
        self.keyword("using")?;
        let algorithm = self.algorithm()?;
        let options = self.options()?;
        BuildModelOptions::read(&options, Parameters::Unknown)?;
        let body = self.as_body()?;
        Ok(Statement::BuildModel(BuildModel { name, algorithm, options, body }))
    }

    fn fit_model(&mut self) -> Result<Statement, ParseError> {
        self.form("FIT MODEL new_name USING existing_model [OPTIONS (...)] AS query");
        self.keywords(&["fit", "model"])?;
        let name = self.name()?;
        self.keyword("using")?;
        let base = self.name()?;
        let options = self.options()?;
        BuildModelOptions::read(&options, Parameters::Unknown)?;
        let body = self.as_body()?;
        Ok(Statement::FitModel(FitModel { name, base, options, body }))
    }

    fn algorithm(&mut self) -> Result<Algorithm, ParseError> {
        let name = self.name()?;
        let folded = name.value.to_ascii_lowercase();
        if folded == Algorithm::SimClr.column_suffix() {
            return Ok(Algorithm::SimClr);
        }
        let error = if OTHER_ALGORITHMS.contains(&folded.as_str()) {
            ParseError::new(
                ErrorKind::Unsupported,
                format!("algorithm \"{name}\" is not supported"),
            )
            .with_hint("The algorithm for images is SimCLR.")
        } else {
            let hint = match closest(&folded, ["simclr"]) {
                Some(_) => "Did you mean SimCLR?",
                None => "The algorithm for images is SimCLR.",
            };
            ParseError::new(
                ErrorKind::UndefinedObject,
                format!("algorithm \"{name}\" does not exist"),
            )
            .with_hint(hint)
        };
        Err(error.at(name.position))
    }

    fn drop_model(&mut self, verb: DropVerb) -> Result<Statement, ParseError> {
        self.form(match verb {
            DropVerb::Delete => "DELETE MODEL name",
            DropVerb::Drop => "DROP MODEL [IF EXISTS] name",
        });
        self.at += 2;
        let if_exists = verb == DropVerb::Drop && self.eat_keywords(&["if", "exists"]);
        let name = self.name()?;
        Ok(Statement::DropModel(DropModel { name, if_exists, verb }))
    }

    fn export_model(&mut self) -> Result<Statement, ParseError> {
        self.form("EXPORT MODEL name [OPTIONS (overwrite=...)] TO 'file.safetensors'");
        self.keywords(&["export", "model"])?;
        let name = self.name()?;
        let options = self.options()?;
        ExportModelOptions::read(&options, Parameters::Unknown)?;
        self.keyword("to")?;
        let path = self.path()?;
        Ok(Statement::ExportModel(ExportModel { name, options, path }))
    }

    fn upload_model(&mut self) -> Result<Statement, ParseError> {
        self.form("UPLOAD MODEL name [OPTIONS (overwrite=...)] FROM 'file.safetensors'");
        self.keywords(&["upload", "model"])?;
        let name = self.name()?;
        let options = self.options()?;
        UploadModelOptions::read(&options, Parameters::Unknown)?;
        self.keyword("from")?;
        let path = self.path()?;
        Ok(Statement::UploadModel(UploadModel { name, options, path }))
    }

    fn show_create_model(&mut self) -> Result<Statement, ParseError> {
        self.form("SHOW CREATE MODEL name");
        self.at += 3;
        Ok(Statement::ShowCreateModel(self.name()?))
    }

    // Tables

    /// `CREATE TABLE [IF NOT EXISTS] name USING model`, then OPTIONS or FROM; `USING method AS` is PostgreSQL's.
    fn is_create_table_using(&self) -> bool {
        if !self.is_keyword(1, "table") {
            return false;
        }
        let mut ahead = match self.is_keyword(2, "if")
            && self.is_keyword(3, "not")
            && self.is_keyword(4, "exists")
        {
            true => 5,
            false => 2,
        };
        ahead += 1;
        while self.is_token(ahead, &Token::Period) {
            ahead += 2;
        }
        self.is_keyword(ahead, "using")
            && !self.is_keyword(ahead + 2, "as")
            && !self.is_keyword(ahead + 2, "with")
    }

    fn create_table_using(&mut self) -> Result<Statement, ParseError> {
        self.form("CREATE TABLE name USING model [OPTIONS (...)] FROM 'path'");
        self.keywords(&["create", "table"])?;
        let if_not_exists = self.eat_keywords(&["if", "not", "exists"]);
        let table = self.object_name()?;
        self.keyword("using")?;
        let model = self.name()?;
        let options = self.options()?;
        CreateTableUsingOptions::read(&options, Parameters::Unknown)?;
        self.keyword("from")?;
        let path = self.path()?;
        Ok(Statement::CreateTableUsing(CreateTableUsing {
            table,
            if_not_exists,
            model,
            options,
            path,
        }))
    }

    /// The rest of ThanoSQL's COPY, after the table.
    pub(super) fn copy_file(&mut self, table: ObjectName) -> Result<Statement, ParseError> {
        self.form("COPY name [OPTIONS (if_exists=...)] FROM 'path'");
        let options = self.options()?;
        CopyFileOptions::read(&options, Parameters::Unknown)?;
        self.keyword("from")?;
        let source = self.path()?;
        self.expect_end()?;
        Ok(Statement::CopyFile(CopyFile { table, options, source }))
    }

    fn get_thanosql(&mut self) -> Result<Statement, ParseError> {
        self.form("GET THANOSQL DATASET | MODEL name [OPTIONS (...)]");
        self.keywords(&["get", "thanosql"])?;
        if self.eat_keyword("dataset") {
            let name = self.name()?;
            let options = self.options()?;
            GetDatasetOptions::read(&options, Parameters::Unknown)?;
            return Ok(Statement::GetDataset(GetDataset { name, options }));
        }
        self.keyword("model")?;
        let name = self.name()?;
        let options = self.options()?;
        GetModelOptions::read(&options, Parameters::Unknown)?;
        Ok(Statement::GetModel(GetModel { name, options }))
    }

    // Jobs

    fn job(&mut self, form: &'static str) -> Result<JobId, ParseError> {
        self.form(form);
        self.at += 1;
        self.keyword("job")?;
        let Some(token) = self.peek(0) else { return Err(self.unexpected()) };
        let position = token.position;
        let number = token.number().or(token.string()).and_then(|number| number.parse().ok());
        let value = number.map(JobIdValue::Number).or(token.parameter().map(JobIdValue::Parameter));
        let Some(value) = value else { return Err(self.unexpected()) };
        self.at += 1;
        Ok(JobId { value, position })
    }

    // EXPLAIN

    /// EXPLAIN of a statement without rows that only ThanoSQL has; everything else is left to sqlparser.
    fn explain(&mut self) -> Result<Option<Statement>, ParseError> {
        let start = self.at;
        let (analyze, verbose) = self.explain_options();
        let is_own =
            match self.peek(0).and_then(Tok::keyword).map(str::to_ascii_lowercase).as_deref() {
                Some("build" | "fit" | "upload" | "export" | "get" | "cancel" | "wait") => true,
                Some("delete" | "drop") => self.is_keyword(1, "model"),
                Some("create") => self.is_create_table_using(),
                Some("copy") => true,
                _ => false,
            };
        if !is_own {
            self.at = start;
            return Ok(None);
        }
        let position = self.at;
        match self.own_statement()? {
            Some(statement @ Statement::Copy(_)) => {
                drop(statement);
                Err(self.source.near(position))
            }
            Some(statement) => Ok(Some(Statement::Explain(ExplainThano {
                analyze,
                verbose,
                statement: Box::new(statement),
            }))),
            None => Err(self.source.near(position)),
        }
    }

    /// Passes over `EXPLAIN` and its options.
    pub(super) fn explain_options(&mut self) -> (bool, bool) {
        self.at += 1;
        let (mut analyze, mut verbose) = (false, false);
        if self.is_token(0, &Token::LParen)
            && let Some(close) = self.peek(0).and_then(|open| open.partner)
            && [
                "analyze",
                "verbose",
                "costs",
                "settings",
                "buffers",
                "wal",
                "timing",
                "summary",
                "format",
                "generic_plan",
                "memory",
                "serialize",
            ]
            .iter()
            .any(|option| self.is_keyword(1, option))
        {
            for ahead in 1..close - self.at {
                let is_off = ["false", "off"].iter().any(|off| self.is_keyword(ahead + 1, off))
                    || self.peek(ahead + 1).and_then(Tok::number) == Some("0");
                analyze |= self.is_keyword(ahead, "analyze") && !is_off;
                verbose |= self.is_keyword(ahead, "verbose") && !is_off;
            }
            self.at = close + 1;
            return (analyze, verbose);
        }
        analyze = self.eat_keyword("analyze") || self.eat_keyword("analyse");
        verbose = self.eat_keyword("verbose");
        (analyze, verbose)
    }

    // Statements that yield rows

    /// Whether a row statement starts at a token, told from PostgreSQL's SQL by more than its first word.
    pub(super) fn starts_row_statement(&self, index: usize) -> bool {
        let Some(ahead) = index.checked_sub(self.at) else { return false };
        let is = |offset: usize, keyword: &str| self.is_keyword(ahead + offset, keyword);
        let Some(verb) = self.peek(ahead).and_then(Tok::keyword) else { return false };
        match verb.to_ascii_lowercase().as_str() {
            "convert" | "predict" | "evaluate" => is(1, "using"),
            "search" => is(2, "using") || self.is_token(ahead + 3, &Token::Eq),
            "print" => {
                (is(1, "image") || MEDIA.iter().any(|media| is(1, media)))
                    && (is(2, "options") || is(2, "as"))
            }
            "list" => {
                let what = ["model", "models", "table", "tables", "job", "jobs"]
                    .iter()
                    .any(|what| is(1, what));
                let thanosql = is(1, "thanosql")
                    && ["dataset", "datasets", "model", "models"].iter().any(|what| is(2, what));
                (what && self.closes(ahead + 2)) || (thanosql && self.closes(ahead + 3))
            }
            "show" => is(1, "jobs") && self.closes(ahead + 2),
            "function" => is(1, "compute") && self.is_token(ahead + 2, &Token::Period),
            _ => false,
        }
    }

    /// Whether the statement's first word can only be that of a row statement, however it goes on.
    fn starts_with_row_verb(&self) -> bool {
        ["convert", "predict", "evaluate", "search", "print", "list", "function"]
            .iter()
            .any(|verb| self.is_keyword(0, verb))
    }

    fn closes(&self, ahead: usize) -> bool {
        self.peek(ahead).is_none_or(|token| token.token == Token::RParen)
    }

    /// A row statement from the next token to the end of the part at hand.
    pub(super) fn row_statement(&mut self) -> Result<RowStatement, ParseError> {
        self.depth += 1;
        if self.depth > MAX_EMBEDDED_DEPTH {
            let position = self.source.tokens[self.at].position;
            return Err(ParseError::new(ErrorKind::TooComplex, "statements are nested too deeply")
                .at(position));
        }
        let form = self.form;
        let verb = self.peek(0).and_then(Tok::keyword).unwrap_or_default().to_ascii_lowercase();
        let statement = match verb.as_str() {
            "convert" => self.convert()?,
            "search" => self.search()?,
            "print" => self.print()?,
            "predict" => self.predict()?,
            "evaluate" => self.evaluate()?,
            "list" => RowStatement::List(self.list()?),
            "show" => {
                self.keywords(&["show", "jobs"])?;
                RowStatement::ShowJobs
            }
            "function" => self.function()?,
            _ => return Err(self.unexpected()),
        };
        self.expect_end()?;
        self.form = form;
        self.depth -= 1;
        Ok(statement)
    }

    fn convert(&mut self) -> Result<RowStatement, ParseError> {
        self.form("CONVERT USING model [OPTIONS (...)] AS query");
        self.keywords(&["convert", "using"])?;
        let model = self.name()?;
        let options = self.options()?;
        ConvertOptions::read(&options, Parameters::Unknown)?;
        let body = self.as_body()?;
        Ok(RowStatement::Convert(Convert { model, options, body }))
    }

    fn search(&mut self) -> Result<RowStatement, ParseError> {
        self.form("SEARCH IMAGE [images='path'] USING model [OPTIONS (...)] AS query");
        self.keyword("search")?;
        self.image_keyword("SEARCH")?;
        let form = match self.eat_keyword("using") {
            true => SearchForm::Best,
            false => {
                let inputs = self.search_inputs()?;
                self.keyword("using")?;
                SearchForm::EveryRow(inputs)
            }
        };
        let model = self.name()?;
        let options = self.options()?;
        match form {
            SearchForm::EveryRow(_) => {
                SearchOptions::read_every_row(&options, Parameters::Unknown)?
            }
            SearchForm::Best => SearchOptions::read_best(&options, Parameters::Unknown)?,
        };
        let body = self.as_body()?;
        Ok(RowStatement::Search(Search { form, model, options, body }))
    }

    /// `images='path'`, `images=['p1', 'p2']` or `images=$1`.
    fn search_inputs(&mut self) -> Result<Vec<ImageInput>, ParseError> {
        let name = self.name()?;
        if name.value != "images" {
            if !self.is_token(0, &Token::Eq) {
                self.at -= 1;
                return Err(self.unexpected());
            }
            let hint = match closest(&name.value, ["images"]) {
                Some(_) => "Did you mean \"images\"?",
                None => "SEARCH IMAGE takes images=.",
            };
            let error = ParseError::new(
                ErrorKind::InvalidOption,
                format!("unknown search input \"{name}\""),
            );
            return Err(error.with_hint(hint).at(name.position));
        }
        self.token(&Token::Eq)?;
        if !self.eat_token(&Token::LBracket) {
            return Ok(vec![self.image_input()?]);
        }
        let mut inputs = vec![self.image_input()?];
        while self.eat_token(&Token::Comma) {
            inputs.push(self.image_input()?);
        }
        self.token(&Token::RBracket)?;
        Ok(inputs)
    }

    fn image_input(&mut self) -> Result<ImageInput, ParseError> {
        let path = self.path()?;
        let value = match path.value {
            PathValue::Text(text) => ImageValue::Path(text),
            PathValue::Parameter(number) => ImageValue::Parameter(number),
        };
        Ok(ImageInput { value, position: path.position })
    }

    /// `IMAGE`; other media are known to be meant.
    fn image_keyword(&mut self, verb: &str) -> Result<(), ParseError> {
        if self.eat_keyword("image") {
            return Ok(());
        }
        let Some(media) = MEDIA.iter().find(|media| self.is_keyword(0, media)) else {
            return Err(self.unexpected());
        };
        let message = format!("{verb} {} is not supported", media.to_ascii_uppercase());
        let error = ParseError::new(ErrorKind::Unsupported, message)
            .with_hint(format!("Use {verb} IMAGE."));
        Err(error.at(self.source.tokens[self.at].position))
    }

    fn print(&mut self) -> Result<RowStatement, ParseError> {
        self.form("PRINT IMAGE [OPTIONS (...)] AS query");
        self.keyword("print")?;
        self.image_keyword("PRINT")?;
        let options = self.options()?;
        PrintOptions::read(&options, Parameters::Unknown)?;
        let body = self.as_body()?;
        Ok(RowStatement::Print(Print { options, body }))
    }

    fn predict(&mut self) -> Result<RowStatement, ParseError> {
        self.form("PREDICT USING model [OPTIONS (...)] AS query");
        self.keywords(&["predict", "using"])?;
        let model = self.name()?;
        let options = self.options()?;
        PredictOptions::read(&options, Parameters::Unknown)?;
        let body = self.as_body()?;
        Ok(RowStatement::Predict(Predict { model, options, body }))
    }

    fn evaluate(&mut self) -> Result<RowStatement, ParseError> {
        self.form("EVALUATE USING model [OPTIONS (...)] AS query");
        self.keywords(&["evaluate", "using"])?;
        let model = self.name()?;
        let options = self.options()?;
        EvaluateOptions::read(&options, Parameters::Unknown)?;
        let body = self.as_body()?;
        Ok(RowStatement::Evaluate(Evaluate { model, options, body }))
    }

    fn list(&mut self) -> Result<ListKind, ParseError> {
        self.form("LIST MODEL | TABLE | JOB | THANOSQL DATASET | THANOSQL MODEL");
        self.keyword("list")?;
        if self.eat_keyword("thanosql") {
            if self.eat_keyword("dataset") || self.eat_keyword("datasets") {
                return Ok(ListKind::Datasets);
            }
            if self.eat_keyword("model") || self.eat_keyword("models") {
                return Ok(ListKind::PublishedModels);
            }
            return Err(self.unexpected());
        }
        let kinds = [
            ("model", "models", ListKind::Models),
            ("table", "tables", ListKind::Tables),
            ("job", "jobs", ListKind::Jobs),
        ];
        for (one, many, kind) in kinds {
            if self.eat_keyword(one) || self.eat_keyword(many) {
                return Ok(kind);
            }
        }
        Err(self.unexpected())
    }

    fn function(&mut self) -> Result<RowStatement, ParseError> {
        self.form("FUNCTION compute.name OPTIONS (...) AS query");
        self.keywords(&["function", "compute"])?;
        self.token(&Token::Period)?;
        let name = self.name()?;
        let kind = match name.value.as_str() {
            "groupby_emb_mean" => ComputeKind::GroupbyEmbMean,
            "similarity" => ComputeKind::Similarity,
            other => {
                let hint = match closest(other, ["groupby_emb_mean", "similarity"]) {
                    Some(near) => format!("Did you mean compute.{near}?"),
                    None => "There are compute.groupby_emb_mean and compute.similarity.".to_owned(),
                };
                let message = format!("function compute.{name} does not exist");
                return Err(ParseError::new(ErrorKind::UndefinedFunction, message)
                    .with_hint(hint)
                    .at(name.position));
            }
        };
        let options = self.options()?;
        match kind {
            ComputeKind::GroupbyEmbMean => {
                drop(GroupbyEmbMeanOptions::read(&options, Parameters::Unknown)?)
            }
            ComputeKind::Similarity => {
                drop(SimilarityOptions::read(&options, Parameters::Unknown)?)
            }
        }
        let body = self.as_body()?;
        Ok(RowStatement::Function(ComputeFunction { kind, options, body }))
    }

    // Parts of statements

    /// `AS` and the query to the end of the part at hand.
    fn as_body(&mut self) -> Result<Body, ParseError> {
        self.keyword("as")?;
        let form = self.form.take();
        let body = self.body();
        self.form = form;
        body
    }

    /// `[OPTIONS (name = value, ...)]`
    fn options(&mut self) -> Result<Options, ParseError> {
        let position = self.position();
        let mut entries = Vec::new();
        if !self.eat_keyword("options") {
            return Ok(Options { entries, position });
        }
        self.token(&Token::LParen)?;
        if self.eat_token(&Token::RParen) {
            return Ok(Options { entries, position });
        }
        loop {
            let Some(token) = self.peek(0) else { return Err(self.unexpected()) };
            let name_position = token.position;
            // Any word names an option, reserved or not.
            let Token::Word(word) = &token.token else { return Err(self.unexpected()) };
            let name = Name { value: word.value.to_ascii_lowercase(), position: name_position };
            self.at += 1;
            self.token(&Token::Eq)?;
            let value_position = self.position();
            let value = self.option_value()?;
            entries.push(OptionEntry { name, value, value_position });
            if !self.eat_token(&Token::Comma) {
                break;
            }
        }
        self.token(&Token::RParen)?;
        Ok(Options { entries, position })
    }

    fn option_value(&mut self) -> Result<OptionValue, ParseError> {
        if !self.eat_token(&Token::LBracket) {
            return self.option_scalar();
        }
        let mut values = Vec::new();
        if self.eat_token(&Token::RBracket) {
            return Ok(OptionValue::List(values));
        }
        loop {
            values.push(self.option_scalar()?);
            if !self.eat_token(&Token::Comma) {
                break;
            }
        }
        self.token(&Token::RBracket)?;
        Ok(OptionValue::List(values))
    }

    fn option_scalar(&mut self) -> Result<OptionValue, ParseError> {
        let sign = match (self.is_token(0, &Token::Minus), self.is_token(0, &Token::Plus)) {
            (true, _) => "-",
            (false, true) => "+",
            (false, false) => "",
        };
        if !sign.is_empty() {
            self.at += 1;
        }
        let Some(token) = self.peek(0) else { return Err(self.unexpected()) };
        let value = if let Some(number) = token.number() {
            OptionValue::Number(format!(
                "{}{}",
                sign.trim_start_matches('+'),
                number.replace('_', "")
            ))
        } else if !sign.is_empty() {
            return Err(self.unexpected());
        } else if let Some(word) = token.keyword().map(str::to_ascii_lowercase) {
            match word.as_str() {
                "true" => OptionValue::Bool(true),
                "false" => OptionValue::Bool(false),
                "none" | "null" => OptionValue::Null,
                _ => OptionValue::Word(word),
            }
        } else if let Token::Word(quoted) = &token.token {
            OptionValue::String(quoted.value.clone())
        } else if let Some(text) = token.string() {
            OptionValue::String(text.to_owned())
        } else if let Some(number) = token.parameter() {
            OptionValue::Parameter(number)
        } else {
            return Err(self.unexpected());
        };
        self.at += 1;
        Ok(value)
    }

    /// A path on the server.
    fn path(&mut self) -> Result<PathArgument, ParseError> {
        let Some(token) = self.peek(0) else { return Err(self.unexpected()) };
        let position = token.position;
        let text = token.string().map(|text| PathValue::Text(text.to_owned()));
        let value = text.or(token.parameter().map(PathValue::Parameter));
        let Some(value) = value else { return Err(self.unexpected()) };
        self.at += 1;
        Ok(PathArgument { value, position })
    }

    /// An identifier, folded.
    pub(super) fn name(&mut self) -> Result<Name, ParseError> {
        let Some(Tok { token: Token::Word(word), position, .. }) = self.peek(0) else {
            return Err(self.unexpected());
        };
        let name = match word.quote_style {
            Some(_) => word.value.clone(),
            None => word.value.to_ascii_lowercase(),
        };
        let is_reserved = word.quote_style.is_none() && is_reserved(&name);
        if is_reserved || name.is_empty() {
            return Err(self.unexpected());
        }
        let name = Name { value: name, position: *position };
        self.at += 1;
        Ok(name)
    }

    /// `name`, `schema.name` or `database.schema.name`.
    pub(super) fn object_name(&mut self) -> Result<ObjectName, ParseError> {
        let mut name = ObjectName { database: None, schema: None, name: self.name()? };
        while self.is_token(0, &Token::Period) && name.database.is_none() {
            self.at += 1;
            let next = self.name()?;
            name.database = name.schema.take();
            name.schema = Some(std::mem::replace(&mut name.name, next));
        }
        Ok(name)
    }

    // Tokens

    fn form(&mut self, form: &'static str) {
        self.form = Some(form);
    }

    /// The token so far ahead, within the part at hand.
    pub(super) fn peek(&self, ahead: usize) -> Option<&'a Tok> {
        let index = self.at.checked_add(ahead)?;
        self.source.tokens[..self.end].get(index)
    }

    /// Where the next token stands.
    pub(super) fn position(&self) -> usize {
        match self.source.tokens.get(self.at) {
            Some(token) => token.position,
            None => self.source.text.chars().count() + 1,
        }
    }

    pub(super) fn is_keyword(&self, ahead: usize, keyword: &str) -> bool {
        self.peek(ahead).is_some_and(|token| token.is_keyword(keyword))
    }

    pub(super) fn is_token(&self, ahead: usize, token: &Token) -> bool {
        self.peek(ahead).is_some_and(|next| next.token == *token)
    }

    pub(super) fn eat_keyword(&mut self, keyword: &str) -> bool {
        let found = self.is_keyword(0, keyword);
        self.at += usize::from(found);
        found
    }

    /// All of these in a row, or none.
    pub(super) fn eat_keywords(&mut self, keywords: &[&str]) -> bool {
        let found =
            keywords.iter().enumerate().all(|(ahead, keyword)| self.is_keyword(ahead, keyword));
        if found {
            self.at += keywords.len();
        }
        found
    }

    pub(super) fn eat_token(&mut self, token: &Token) -> bool {
        let found = self.is_token(0, token);
        self.at += usize::from(found);
        found
    }

    pub(super) fn keyword(&mut self, keyword: &str) -> Result<(), ParseError> {
        match self.eat_keyword(keyword) {
            true => Ok(()),
            false => Err(self.unexpected()),
        }
    }

    fn keywords(&mut self, keywords: &[&str]) -> Result<(), ParseError> {
        keywords.iter().try_for_each(|keyword| self.keyword(keyword))
    }

    pub(super) fn token(&mut self, token: &Token) -> Result<(), ParseError> {
        match self.eat_token(token) {
            true => Ok(()),
            false => Err(self.unexpected()),
        }
    }

    pub(super) fn expect_end(&mut self) -> Result<(), ParseError> {
        match self.at < self.end {
            true => Err(self.unexpected()),
            false => Ok(()),
        }
    }

    /// The next token cannot stand here.
    pub(super) fn unexpected(&self) -> ParseError {
        let error = self.source.near(self.at);
        match self.form {
            Some(form) => error.with_hint(format!("The form is: {form}")),
            None => error,
        }
    }
}

/// A start for placeholders that no name of the statement shares.
fn placeholder_prefix(tokens: &[Tok]) -> String {
    const STEM: &str = "thanosql_embedded_";
    let mut underscores = 2;
    for token in tokens {
        if let Token::Word(Word { value, .. }) = &token.token {
            let bare = value.trim_start_matches('_');
            if bare.len() >= STEM.len()
                && bare.is_char_boundary(STEM.len())
                && bare[..STEM.len()].eq_ignore_ascii_case(STEM)
            {
                underscores = underscores.max(value.len() - bare.len() + 1);
            }
        }
    }
    format!("{}{STEM}", "_".repeat(underscores))
}
