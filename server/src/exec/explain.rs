//! EXPLAIN of ThanoSQL's own statements: what they would do, without doing it.
//!
//! The answer has the columns of EXPLAIN of a query, `plan_type` and `plan`: a row `statement` that says what would be made of what, a row `options` with every
//! option as it would be used, and, where there is a query, its plans. Nothing runs: no row is read, no file opened, no job filed. What cannot be
//! meant (a missing model, options that contradict each other) is refused as the statement would be; that a name is taken is said, and no error.
//!
//! EXPLAIN ANALYZE runs what it explains. Of a query that is what was asked for; of a statement that leaves something behind it is refused.

use arrow::datatypes::SchemaRef;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use thanosql_ml::recipe::{LEARNING_RATE, MAX_BATCH, TEMPERATURE, WEIGHT_DECAY};
use thanosql_protocol::{Response, SqlError, SqlState};

use super::models::{embedding_plan, object_name, path_argument};
use super::query::{text_rows, text_schema};
use super::training::{DEFAULT_EPOCHS, Plan, Training, TrainingColumns};
use super::{Control, rowset};
use crate::error::datafusion_error;
use crate::learning::JobRecord;
use crate::plan::rows::{model, options};
use crate::plan::{self, Scope};
use crate::session::{ClientSession, training};
use crate::sql::{
    ConvertOptions, CreateTableUsing, CreateTableUsingOptions, Embedded, ExplainThano, OnError,
    Parsed, PathType, RowStatement, Statement,
};

/// Said where the statement would be refused because of what is there now.
const TAKEN: &str = "; as it stands it would be refused, the name is taken";

/// The names of the answer's columns.
const COLUMNS: [&str; 2] = ["plan_type", "plan"];

/// The columns of the answer.
pub(crate) fn explain_schema() -> SchemaRef {
    text_schema(COLUMNS)
}

/// Lines of `name = value`.
#[derive(Default)]
struct Lines(Vec<String>);

impl Lines {
    fn add(&mut self, name: &str, value: impl std::fmt::Display) {
        self.0.push(format!("{name} = {value}"));
    }

    /// The value that was given, or where it would come from.
    fn choice<T: std::fmt::Display>(&mut self, name: &str, given: Option<T>, chosen: &str) {
        match given {
            Some(value) => self.add(name, value),
            None => self.add(name, chosen),
        }
    }
}

impl ClientSession {
    /// EXPLAIN of a statement without rows.
    pub(crate) async fn explain(
        &mut self,
        parsed: &Parsed,
        explain: &ExplainThano,
        parameters: plan::Parameters,
        control: &Control,
    ) -> Result<Response, SqlError> {
        let inner = explain.statement.as_ref();
        if explain.analyze {
            return Err(refuse_analyze(verb(inner), "it would do what it explains"));
        }
        let scope = self.scope(parsed, parameters, control)?;
        let mut answer: Vec<(String, String)> = Vec::new();
        let mut plan = None;
        if let Some(training) = training(inner) {
            let (statement, lines, query) = self.explain_training(&scope, &training)?;
            answer.push(("statement".to_owned(), statement));
            answer.push(("options".to_owned(), lines.0.join("\n")));
            plan = Some(query);
        } else if let Statement::CreateTableUsing(create) = inner {
            let (statement, lines, query) = explain_create_table(&scope, create)?;
            answer.push(("statement".to_owned(), statement));
            answer.push(("options".to_owned(), lines.0.join("\n")));
            plan = Some(query);
        } else {
            answer.push(("statement".to_owned(), self.explain_small(&scope, inner)?));
        }
        if let Some(plan) = plan {
            let explained = LogicalPlanBuilder::from(plan)
                .explain(explain.verbose, false)
                .and_then(LogicalPlanBuilder::build)
                .map_err(|error| datafusion_error(error, None))?;
            let stream = control.run(self.start(&scope, explained)).await?;
            for batch in rowset::collect(stream, control).await? {
                let text = |column: usize, row: usize| {
                    arrow::util::display::array_value_to_string(batch.column(column), row)
                        .map_err(crate::error::arrow_error)
                };
                for row in 0..batch.num_rows() {
                    answer.push((text(0, row)?, text(1, row)?));
                }
            }
        }
        let (kinds, texts): (Vec<String>, Vec<String>) = answer.into_iter().unzip();
        let [kind, text] = COLUMNS;
        Ok(text_rows(&[(kind, kinds), (text, texts)], "EXPLAIN"))
    }

    fn explain_training(
        &self,
        scope: &Scope,
        training: &Training<'_>,
    ) -> Result<(String, Lines, LogicalPlan), SqlError> {
        let resolved = Plan::resolve(scope, training)?;
        let query = plan::plan_body(&self.state, scope, training.body)?;
        let base = resolved.base_metadata();
        let columns = TrainingColumns::find(&query, training, &resolved.given, base)?;
        let name = &training.name.value;
        let mut statement = match &resolved.base {
            Some((entry, _)) => format!(
                "FIT MODEL: train \"{name}\" from the weights of \"{}\", version {}",
                entry.name(),
                entry.version()
            ),
            None => format!("BUILD MODEL: train \"{name}\" with SimCLR"),
        };
        match scope.snapshot.model(name) {
            Some(replaced) if resolved.given.overwrite => statement.push_str(&format!(
                "; it takes the place of version {} when it is finished",
                replaced.version()
            )),
            Some(_) => statement.push_str(TAKEN),
            None => {}
        }
        let schema = query.schema();
        let column = |index: usize| schema.field(index).name().clone();
        let (given, train) = (&resolved.given, &resolved.train);
        let mut lines = Lines::default();
        lines.add("image_col", column(columns.image));
        lines.choice("fname", columns.fname.map(column), "the last part of the path");
        lines.choice("target", columns.target.map(column), "none");
        lines.choice("max_epochs", given.max_epochs, &DEFAULT_EPOCHS.to_string());
        let batch = format!("by the number of images, at most {MAX_BATCH}");
        lines.choice("batch_size", train.batch_size, &batch);
        lines.choice("learning_rate", train.learning_rate, &LEARNING_RATE.to_string());
        lines.add("loss", if given.supervised { "supcon" } else { train.loss.name() });
        lines.choice("temperature", train.temperature, &TEMPERATURE.to_string());
        lines.choice("weight_decay", train.weight_decay, &WEIGHT_DECAY.to_string());
        lines.choice("warmup_epochs", train.warmup_epochs, "5 % of all steps");
        lines.add("seed", train.seed);
        match base {
            Some(base) => {
                lines.add("encoder", &base.encoder);
                lines.add("image_size", base.input.size);
                lines.add("color", &base.input.color);
            }
            None => {
                let encoder = match given.pretrained {
                    true => "resnet18".to_owned(),
                    false => train.encoder.to_string(),
                };
                let auto = "auto (compact up to 64 pixels a side, resnet18 above)";
                lines.add("encoder", if encoder == "auto" { auto } else { &encoder });
                lines.choice("image_size", given.image_size, "from the images");
                let color = resolved.color.map(crate::learning::color_name);
                lines.choice(
                    "color",
                    color.or(given.pretrained.then_some("rgb")),
                    "from the images",
                );
            }
        }
        let names = train
            .augmentations
            .as_ref()
            .map(|names| names.iter().map(|name| name.name()).collect::<Vec<_>>().join(", "));
        lines.choice("augmentations", names, "by the kind of image");
        lines.add("pretrained", given.pretrained);
        lines.add("supervised", given.supervised);
        lines.add("on_error", on_error(given.on_error));
        lines.add("overwrite", given.overwrite);
        let device = resolved.device.unwrap_or(self.server.learning.options().device);
        lines.add("device", device);
        lines.add("async", given.run_async);
        Ok((statement, lines, query))
    }

    /// What a statement without a query would do, in a sentence.
    fn explain_small(&self, scope: &Scope, statement: &Statement) -> Result<String, SqlError> {
        if let Statement::DropModel(drop) = statement {
            let name = &drop.name.value;
            let jobs = self.server.learning.jobs();
            let of_model = |job: &&JobRecord| job.model == *name && !job.state.is_finished();
            let trainings = jobs.iter().filter(of_model).count();
            let dropped = match scope.snapshot.model(name) {
                Some(entry) => format!("drop model \"{name}\", version {}", entry.version()),
                None if drop.if_exists || trainings > 0 => format!("no model \"{name}\" to drop"),
                None => {
                    // It is missing, so this says so.
                    model(scope, &drop.name)?;
                    String::new()
                }
            };
            let verb = verb(statement);
            return Ok(format!("{verb}: {dropped}, cancel {trainings} training(s) of it"));
        }
        if let Statement::ExportModel(export) = statement {
            let (entry, _) = model(scope, &export.name)?;
            let path = path_argument(scope, &export.path)?;
            let (name, version) = (entry.name(), entry.version());
            return Ok(format!(
                "EXPORT MODEL: write model \"{name}\", version {version}, to \"{path}\""
            ));
        }
        if let Statement::UploadModel(upload) = statement {
            let path = path_argument(scope, &upload.path)?;
            let name = &upload.name.value;
            return Ok(format!("UPLOAD MODEL: make model \"{name}\" of \"{path}\""));
        }
        Ok(format!("{}: answers without a query", verb(statement)))
    }
}

fn explain_create_table(
    scope: &Scope,
    create: &CreateTableUsing,
) -> Result<(String, Lines, LogicalPlan), SqlError> {
    let given = options(&scope.parameters, &create.options, CreateTableUsingOptions::read)?;
    let name = object_name(&create.table, &scope.snapshot)?;
    let (entry, metadata) = model(scope, &create.model)?;
    let path = path_argument(scope, &create.path)?;
    let exists = super::ddl::relation_exists(scope, &name);
    let mut statement = format!(
        "CREATE TABLE: \"{name}\" with a row for each file of \"{path}\", embedded by \"{}\", version {}",
        entry.name(),
        entry.version()
    );
    if exists && given.overwrite {
        statement.push_str("; it takes the place of the relation of that name");
    } else if exists && create.if_not_exists {
        statement = format!("CREATE TABLE: \"{name}\" is there already, nothing to do");
    } else if exists {
        statement.push_str(TAKEN);
    }
    let mut lines = Lines::default();
    let path_type = given.path_type.map(|kind| match kind {
        PathType::Folder => "folder",
        PathType::File => "file",
    });
    lines.choice("path_type", path_type, "what the path is");
    lines.add("data_type", "image");
    let endings = given.file_type.as_ref().map(|endings| endings.join(", "));
    lines.choice("file_type", endings, &crate::files::IMAGE_EXTENSIONS.join(", "));
    lines.add("recursive", given.recursive);
    let batch = scope.learning.options().embed_batch.to_string();
    lines.choice("batch_size", given.batch_size, &batch);
    lines.add("on_error", on_error(given.on_error));
    lines.add("overwrite", given.overwrite);
    // The folder is not looked into; a plan is the same for any files.
    let query = embedding_plan(scope, &entry, &metadata, Vec::new(), &given)?;
    Ok((statement, lines, query))
}

fn on_error(on_error: OnError) -> &'static str {
    match on_error {
        OnError::Fail => "fail",
        OnError::Skip => "skip",
    }
}

/// A statement by the words that it begins with.
fn verb(statement: &Statement) -> &'static str {
    match statement {
        Statement::BuildModel(_) => "BUILD MODEL",
        Statement::FitModel(_) => "FIT MODEL",
        Statement::DropModel(drop) => match drop.verb {
            crate::sql::DropVerb::Delete => "DELETE MODEL",
            crate::sql::DropVerb::Drop => "DROP MODEL",
        },
        Statement::ExportModel(_) => "EXPORT MODEL",
        Statement::UploadModel(_) => "UPLOAD MODEL",
        Statement::CreateTableUsing(_) => "CREATE TABLE USING",
        Statement::CopyFile(_) | Statement::Copy(_) => "COPY",
        Statement::GetDataset(_) => "GET THANOSQL DATASET",
        Statement::GetModel(_) => "GET THANOSQL MODEL",
        Statement::CancelJob(_) => "CANCEL JOB",
        Statement::WaitJob(_) => "WAIT JOB",
        Statement::Sql(_)
        | Statement::Rows(_)
        | Statement::ShowCreateModel(_)
        | Statement::Explain(_)
        | Statement::DeclareCursor(_)
        | Statement::Fetch(_)
        | Statement::CloseCursor(_)
        | Statement::Maintenance(_) => "this statement",
    }
}

fn refuse_analyze(what: &str, why: &str) -> SqlError {
    SqlError::new(
        SqlState::FEATURE_NOT_SUPPORTED,
        format!("EXPLAIN ANALYZE of {what} is not supported: {why}"),
    )
    .with_hint("EXPLAIN without ANALYZE shows what it would do.")
}

/// Refuses EXPLAIN ANALYZE of a query in which a CONVERT would keep its rows in a table.
///
/// # Errors
/// 0A000 at that CONVERT.
pub(crate) fn refuse_kept(scope: &Scope, embedded: &[Embedded]) -> Result<(), SqlError> {
    for part in embedded {
        if let RowStatement::Convert(convert) = &part.statement {
            let given = options(&scope.parameters, &convert.options, ConvertOptions::read)?;
            if given.table_name.is_some() {
                let why = "it would keep its rows in a table";
                return Err(
                    refuse_analyze("CONVERT with table_name", why).at(convert.options.position)
                );
            }
        }
        if let Some(body) = crate::plan::rows::body_of(&part.statement) {
            refuse_kept(scope, &body.embedded)?;
        }
    }
    Ok(())
}
