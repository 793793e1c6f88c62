//! ThanoSQL's row statements as plans: CONVERT is a projection with `embed`, SEARCH one with `cosine_similarity` (and ORDER
//! BY and LIMIT), PRINT one with the picture's columns, LIST a scan of a view. PREDICT, EVALUATE and FUNCTION have files of their own.
//!
//! A CONVERT that keeps its rows in a table has been run before its surrounding statement is planned; here it is a scan of
//! what it kept (`Scope::kept`). While a statement is only described, it is planned like any other CONVERT.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::Array as _;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::datasource::provider_as_source;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, lit};
use thanosql_protocol::{SqlError, SqlState};
use thanosql_storage::ModelEntry;

use super::scores::score_column;
use super::{Parameters, Scope, plan_body, provenance};
use crate::catalog::table::StoredTable;
use crate::catalog::thanosql::PUBLISHED_MODELS;
use crate::error::{datafusion_error, parse_error};
use crate::functions::{PrintContext, filename_function, print_plan, target_function};
use crate::learning::{self, ModelMetadata};
use crate::sql::{
    self, Body, Convert, ConvertOptions, ImageInput, ImageValue, ListKind, Name, OnError, Options,
    Print, PrintFormat, PrintOptions, RowStatement, Search, SearchForm, SearchInput, SearchOptions,
};

/// Names that a column of images has when nothing else says which it is, best first.
pub const IMAGE_COLUMNS: [&str; 4] = ["image_path", "img_path", "image", "path"];

/// Plans a row statement. `placeholder` is its name in the surrounding statement, if it stands in one.
///
/// # Errors
/// 42704 for a missing model, 42703 for a missing column, 42804 for a column of the wrong type, 55000 for vectors of another
/// model or version, and what its body's plan gives.
pub fn plan(
    state: &SessionState,
    scope: &Scope,
    statement: &RowStatement,
    placeholder: Option<&str>,
) -> Result<LogicalPlan, SqlError> {
    if let Some(table) = scope.kept.get(placeholder.unwrap_or(TOP_LEVEL)) {
        let source = provider_as_source(Arc::new(StoredTable::new(table.clone())));
        return built(
            LogicalPlanBuilder::scan(table.name(), source, None)
                .and_then(LogicalPlanBuilder::build),
        );
    }
    match statement {
        RowStatement::Convert(convert) => plan_convert(state, scope, convert),
        RowStatement::Search(search) => plan_search(state, scope, search),
        RowStatement::Print(print) => plan_print(state, scope, print),
        RowStatement::List(kind) => plan_list(scope, *kind),
        RowStatement::ShowJobs => plan_list(scope, ListKind::Jobs),
        RowStatement::Predict(predict) => super::predict::plan_predict(state, scope, predict),
        RowStatement::Evaluate(evaluate) => super::evaluate::plan_evaluate(state, scope, evaluate),
        RowStatement::Function(function) => super::compute::plan_function(state, scope, function),
    }
}

/// The key in [`Scope::kept`] of a CONVERT that is a statement by itself.
pub const TOP_LEVEL: &str = "";

/// Reads a statement's options with what is known of its parameters.
pub fn options<T>(
    parameters: &Parameters,
    options: &Options,
    read: impl Fn(&Options, sql::Parameters<'_>) -> Result<T, sql::ParseError>,
) -> Result<T, SqlError> {
    let values = parameters.option_values();
    let known = values.as_deref().map_or(sql::Parameters::Unknown, sql::Parameters::Known);
    read(options, known).map_err(parse_error)
}

/// The model of a statement, with its metadata.
///
/// # Errors
/// 42704, with a near name as a hint.
pub fn model(scope: &Scope, name: &Name) -> Result<(ModelEntry, ModelMetadata), SqlError> {
    match scope.snapshot.model(&name.value) {
        Some(entry) => {
            let metadata = ModelMetadata::read(&entry)?;
            Ok((entry, metadata))
        }
        None => {
            let error = SqlError::new(
                SqlState::UNDEFINED_OBJECT,
                format!("model \"{}\" does not exist", name.value),
            )
            .at(name.position);
            let models = scope.snapshot.models();
            Err(match sql::closest(&name.value, models.iter().map(ModelEntry::name)) {
                Some(near) => error.with_hint(format!("Did you mean \"{near}\"?")),
                None => error.with_hint("LIST MODEL shows the models that are here."),
            })
        }
    }
}

fn plan_convert(
    state: &SessionState,
    scope: &Scope,
    convert: &Convert,
) -> Result<LogicalPlan, SqlError> {
    let options = options(&scope.parameters, &convert.options, ConvertOptions::read)?;
    let (entry, metadata) = model(scope, &convert.model)?;
    let input = plan_body(state, scope, &convert.body)?;
    let schema = input.schema().clone();
    let image = image_column(
        &schema,
        options.image_col.as_deref(),
        Some(&metadata.image_col),
        Fallback::None,
        convert.body.position,
    )?;
    let image_expr = column_at(&schema, image);
    let is_path = is_text(schema.field(image).data_type());
    let result = options.result_col.unwrap_or_else(|| metadata.vector_column());

    let mut projection: Vec<Expr> = Vec::new();
    let mut names: HashSet<String> = HashSet::new();
    for index in 0..schema.fields().len() {
        let name = schema.field(index).name();
        if *name != result {
            names.insert(name.clone());
            projection.push(column_at(&schema, index));
        }
    }
    // What the model was trained with is given back for the rows that lack it.
    let path = if is_path { image_expr.clone() } else { lit(ScalarValue::Utf8(None)) };
    if names.insert(metadata.image_col.clone()) {
        projection.push(path.clone().alias(&metadata.image_col));
    }
    if let Some(fname) = &metadata.fname_col
        && names.insert(fname.clone())
    {
        projection.push(filename_function().call(vec![path.clone()]).alias(fname));
    }
    if let Some(target) = &metadata.target
        && names.insert(target.name.clone())
    {
        let rows = scope.learning.training_rows(&entry)?;
        projection.push(target_function(rows).call(vec![path]).alias(&target.name));
    }
    let on_error = match options.on_error {
        OnError::Fail => learning::OnError::Fail,
        OnError::Skip => learning::OnError::Skip,
    };
    let batch_size = options.batch_size.map(|size| size as usize);
    let embed = scope.embed(on_error, batch_size).call(vec![lit(entry.name()), image_expr]);
    // An alias keeps the mark of the model that the vectors carry.
    projection.push(embed.alias(&result));
    let mut builder = LogicalPlanBuilder::from(input).project(projection);
    if options.on_error == OnError::Skip {
        // An image that cannot be read has no vector, and its row is left out.
        builder = builder.and_then(|builder| {
            let vector = named(result);
            builder.filter(vector.is_not_null())
        });
    }
    built(builder.and_then(LogicalPlanBuilder::build))
}

fn plan_search(
    state: &SessionState,
    scope: &Scope,
    search: &Search,
) -> Result<LogicalPlan, SqlError> {
    let best = matches!(search.form, SearchForm::Best);
    let read = if best { SearchOptions::read_best } else { SearchOptions::read_every_row };
    let options = options(&scope.parameters, &search.options, read)?;
    let (entry, metadata) = model(scope, &search.model)?;
    let input = plan_body(state, scope, &search.body)?;
    let schema = input.schema().clone();
    let column = options.emb_col.clone().unwrap_or_else(|| metadata.vector_column());
    let vectors = vector_column(&input, &column, &entry, &metadata, search)?;

    let images: Vec<(String, Expr)> = match &search.form {
        SearchForm::EveryRow(inputs) => {
            let mut images = Vec::new();
            for input in inputs {
                for expr in image_arguments(scope, input)? {
                    images.push((format!("similarity_image{}", images.len() + 1), expr));
                }
            }
            images
        }
        SearchForm::Best => {
            let name = options.result_col.clone().unwrap_or_else(|| "search_result".to_string());
            let image = match options.search_input {
                Some(SearchInput::Path(path)) => lit(path),
                Some(SearchInput::Bytes(bytes)) => lit(ScalarValue::Binary(Some(bytes))),
                // Only described: any image has the same answer's shape.
                None => lit(ScalarValue::Utf8(None)),
            };
            vec![(name, image)]
        }
    };
    let mut projection: Vec<Expr> = Vec::new();
    for index in 0..schema.fields().len() {
        if !images.iter().any(|(name, _)| name == schema.field(index).name()) {
            projection.push(column_at(&schema, index));
        }
    }
    let embed = scope.embed(learning::OnError::Fail, None);
    let cosine_similarity =
        state.scalar_functions().get("cosine_similarity").cloned().ok_or_else(|| {
            crate::error::internal("the function cosine_similarity is not registered")
        })?;
    for (name, image) in &images {
        let query = embed.call(vec![lit(entry.name()), image.clone()]);
        let score = cosine_similarity.call(vec![vectors.clone(), query]);
        projection.push(score_column(score, name));
    }
    let mut builder = LogicalPlanBuilder::from(input).project(projection);
    if let Some(min_score) = options.min_score {
        let mut near = images.iter().map(|(name, _)| named(name).gt_eq(lit(min_score)));
        if let Some(first) = near.next() {
            let any = near.fold(first, Expr::or);
            builder = builder.and_then(|builder| builder.filter(any));
        }
    }
    let top_k = options.top_k.map(|k| usize::try_from(k).unwrap_or(usize::MAX));
    if best || top_k.is_some() {
        // Best first; Sort with a limit keeps only the k best in a heap.
        let order = named(&images[0].0).sort(false, false);
        builder = builder.and_then(|builder| builder.sort_with_limit([order], top_k));
        if let Some(k) = top_k {
            builder = builder.and_then(|builder| builder.limit(0, Some(k)));
        }
    }
    built(builder.and_then(LogicalPlanBuilder::build))
}

/// 42804: a column that is named for its vectors.
pub(super) fn not_a_vector(column: &str) -> SqlError {
    SqlError::new(SqlState::DATATYPE_MISMATCH, format!("column \"{column}\" is not a vector"))
}

/// The column of vectors to search, checked against the model.
fn vector_column(
    input: &LogicalPlan,
    column: &str,
    entry: &ModelEntry,
    metadata: &ModelMetadata,
    search: &Search,
) -> Result<Expr, SqlError> {
    let schema = input.schema();
    let index = find_column(schema, column, search.body.position).map_err(|error| {
        let convert = format!("CONVERT USING {} makes the vectors of this model.", entry.name());
        SqlError { hint: error.hint.or(Some(convert)), ..error }
    })?;
    let field = schema.field(index);
    let DataType::FixedSizeList(_, dimensions) = field.data_type() else {
        return Err(not_a_vector(column).at(search.body.position));
    };
    provenance::check_column(input, index, entry)
        .map_err(|error| SqlError { position: Some(search.model.position), ..error })?;
    if usize::try_from(*dimensions).ok() != Some(metadata.embedding_dim) {
        return Err(SqlError::new(
            SqlState::DATA_EXCEPTION,
            format!(
                "vectors in \"{column}\" have {dimensions} dimensions, those of model \"{}\" have {}",
                entry.name(),
                metadata.embedding_dim
            ),
        )
        .at(search.body.position));
    }
    Ok(column_at(schema, index))
}

/// The images that one input of SEARCH stands for: one, or as many as a parameter's array holds.
fn image_arguments(scope: &Scope, input: &ImageInput) -> Result<Vec<Expr>, SqlError> {
    match &input.value {
        ImageValue::Path(path) => Ok(vec![lit(path.clone())]),
        ImageValue::Parameter(n) => {
            if let Some(ScalarValue::List(list)) = scope.parameters.value(*n) {
                if list.is_null(0) || list.value_length(0) == 0 {
                    return Err(SqlError::new(
                        SqlState::INVALID_PARAMETER_VALUE,
                        format!("parameter ${n} must hold at least one image"),
                    )
                    .at(input.position));
                }
                let elements = list.value(0);
                check_image(*n, elements.data_type(), input.position)?;
                return (0..elements.len())
                    .map(|index| ScalarValue::try_from_array(&elements, index).map(lit))
                    .collect::<Result<_, _>>()
                    .map_err(|error| datafusion_error(error, None));
            }
            let data_type = scope.parameters.data_type(*n).cloned().unwrap_or(DataType::Utf8);
            if let DataType::List(element) = &data_type {
                check_image(*n, element.data_type(), input.position)?;
                // Each of its elements makes a column, so the columns are open until the value is known.
                scope.parameters.leave_open();
                return Ok(vec![lit(ScalarValue::Utf8(None)); scope.parameters.assumed_images()]);
            }
            check_image(*n, &data_type, input.position)?;
            let field: FieldRef = Arc::new(Field::new("", data_type, true));
            Ok(vec![Expr::Placeholder(Placeholder::new_with_field(format!("${n}"), Some(field)))])
        }
    }
}

fn check_image(n: usize, data_type: &DataType, position: usize) -> Result<(), SqlError> {
    if is_text(data_type) || is_binary(data_type) {
        return Ok(());
    }
    Err(SqlError::new(
        SqlState::DATATYPE_MISMATCH,
        format!("parameter ${n} must be a path (text) or an image (bytea), not {data_type}"),
    )
    .at(position))
}

fn plan_print(state: &SessionState, scope: &Scope, print: &Print) -> Result<LogicalPlan, SqlError> {
    let options = options(&scope.parameters, &print.options, PrintOptions::read)?;
    let input = plan_body(state, scope, &print.body)?;
    let schema = input.schema().clone();
    let image = image_column(
        &schema,
        options.image_col.as_deref(),
        None,
        Fallback::FirstText,
        print.body.position,
    )?;
    let format = match options.format {
        PrintFormat::Auto if scope.terminal => crate::functions::PrintFormat::Text,
        PrintFormat::Auto | PrintFormat::Bytes => crate::functions::PrintFormat::Bytes,
        PrintFormat::Text => crate::functions::PrintFormat::Text,
    };
    let context = PrintContext {
        files: scope.files.clone(),
        limits: *scope.learning.limits(),
        format,
        base_dir: options.base_dir,
        cancel: scope.cancel.clone(),
    };
    let column = Column::from(schema.qualified_field(image));
    let mut builder = LogicalPlanBuilder::from(input);
    if let Some(limit) = options.limit {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        builder = builder.limit(0, Some(limit)).map_err(|error| datafusion_error(error, None))?;
    }
    built(builder.build().and_then(|input| print_plan(input, &column, &Arc::new(context))))
}

fn plan_list(scope: &Scope, kind: ListKind) -> Result<LogicalPlan, SqlError> {
    use futures::FutureExt as _;
    let name = match kind {
        ListKind::Models => "models",
        ListKind::Tables => "tables",
        ListKind::Jobs => "jobs",
        ListKind::Datasets => "datasets",
        ListKind::PublishedModels => PUBLISHED_MODELS,
    };
    let table =
        scope.thanosql.table(name).now_or_never().and_then(Result::ok).flatten().ok_or_else(
            || crate::error::internal(format!("the view thanosql.{name} is missing")),
        )?;
    built(
        LogicalPlanBuilder::scan(name, provider_as_source(table), None)
            .and_then(LogicalPlanBuilder::build),
    )
}

/// Where to look for the column of images when neither the statement nor the names tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// It is an error.
    None,
    /// The query's first text column.
    FirstText,
}

/// The index of the column of images: the one that the statement names, or the model's, or one of the usual names.
///
/// # Errors
/// 42703 if there is none, 42804 if it is neither text nor bytea.
pub fn image_column(
    schema: &DFSchema,
    named: Option<&str>,
    of_model: Option<&str>,
    fallback: Fallback,
    position: usize,
) -> Result<usize, SqlError> {
    let index = match named {
        Some(name) => find_column(schema, name, position)?,
        None => {
            let candidates = of_model.into_iter().chain(IMAGE_COLUMNS);
            let by_name =
                candidates.filter_map(|name| schema.index_of_column_by_name(None, name)).next();
            let first_text = || schema.fields().iter().position(|field| is_text(field.data_type()));
            match (by_name, fallback) {
                (Some(index), _) => index,
                (None, Fallback::FirstText) => {
                    first_text().ok_or_else(|| no_image_column(position))?
                }
                (None, Fallback::None) => return Err(no_image_column(position)),
            }
        }
    };
    let data_type = schema.field(index).data_type();
    if is_text(data_type) || is_binary(data_type) {
        Ok(index)
    } else {
        Err(SqlError::new(
            SqlState::DATATYPE_MISMATCH,
            format!(
                "column \"{}\" holds no images: it must be a path (text) or an image (bytea)",
                schema.field(index).name()
            ),
        )
        .at(position))
    }
}

fn no_image_column(position: usize) -> SqlError {
    SqlError::new(SqlState::UNDEFINED_COLUMN, "the query yields no column of images")
        .with_hint(format!(
            "Name it with the option image_col, or call it one of: {}.",
            IMAGE_COLUMNS.join(", ")
        ))
        .at(position)
}

/// The index of a column by name.
///
/// # Errors
/// 42703, with a near name as a hint.
pub fn find_column(schema: &DFSchema, name: &str, position: usize) -> Result<usize, SqlError> {
    schema.index_of_column_by_name(None, name).ok_or_else(|| {
        let error =
            SqlError::new(SqlState::UNDEFINED_COLUMN, format!("column \"{name}\" does not exist"))
                .at(position);
        match sql::closest(name, schema.fields().iter().map(|field| field.name().as_str())) {
            Some(near) => error.with_hint(format!("Did you mean \"{near}\"?")),
            None => error,
        }
    })
}

/// The column of a name.
pub(super) fn named(name: impl Into<String>) -> Expr {
    Expr::Column(Column::from_name(name))
}

/// A schema's column.
pub(super) fn column_at(schema: &DFSchema, index: usize) -> Expr {
    Expr::Column(Column::from(schema.qualified_field(index)))
}

/// Whether a column can hold paths.
pub fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// Whether a column can hold images.
pub fn is_binary(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Binary | DataType::LargeBinary | DataType::BinaryView)
}

/// The query that a row statement works on, if it has one.
pub fn body_of(statement: &RowStatement) -> Option<&Body> {
    match statement {
        RowStatement::Convert(convert) => Some(&convert.body),
        RowStatement::Search(search) => Some(&search.body),
        RowStatement::Print(print) => Some(&print.body),
        RowStatement::Predict(predict) => Some(&predict.body),
        RowStatement::Evaluate(evaluate) => Some(&evaluate.body),
        RowStatement::Function(function) => Some(&function.body),
        RowStatement::List(_) | RowStatement::ShowJobs => None,
    }
}

pub(super) fn built(
    plan: datafusion::common::Result<LogicalPlan>,
) -> Result<LogicalPlan, SqlError> {
    plan.map_err(|error| datafusion_error(error, None))
}
