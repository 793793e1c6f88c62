//! What PRINT IMAGE adds to a query's rows: the image's kind and size, and either its bytes or a drawing of it.
//!
//! One asynchronous function, `print_image(image)`, answers a struct of all four, so that each file is read once;
//! [`print_plan`] takes the struct apart into columns. Files are read on blocking threads, several at a time.
//!
//! The struct is taken apart by a function of our own. DataFusion's `get_field` is moved towards the scan by the optimizer,
//! with what it is applied to: below a LIMIT, so that PRINT of four rows would read the images of all.

use std::hash::{Hash, Hasher};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryBuilder, Int32Builder, StringBuilder, StructArray};
use arrow::datatypes::{DataType, Field, FieldRef, Fields};
use async_trait::async_trait;
use datafusion::common::{Column, Result};
use datafusion::logical_expr::async_udf::{AsyncScalarUDF, AsyncScalarUDFImpl};
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, LogicalPlanBuilder, ReturnFieldArgs, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use futures::{StreamExt, TryStreamExt};
use thanosql_ml::images::{ImageLimits, ImageSource, image_bytes, preview};
use thanosql_protocol::{SqlError, SqlState};
use tokio_util::sync::CancellationToken;

use super::embed::{Image, check_image_type, images_of};
use super::parts::part_of;
use crate::error::through_datafusion;
use crate::files::FileAccess;
use crate::learning::image_error;

/// Most characters of a drawing, across and down. A character shows two pixels, one above the other.
const PREVIEW_COLUMNS: u32 = 32;
const PREVIEW_ROWS: u32 = 16;

/// Images that are read before the first of them is shown; they stand in memory.
const ROWS_AT_ONCE: usize = 64;

/// Files of those that are read at once.
const READS_AT_ONCE: usize = 4;

/// The struct's column before it is taken apart.
const STRUCT_COLUMN: &str = "__thanosql_printed_image";

/// How an image is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PrintFormat {
    /// `image_bytes bytea`: the file as it is.
    Bytes,
    /// `preview text`: a drawing in block characters.
    Text,
}

impl PrintFormat {
    /// The column that holds the image itself.
    pub fn column(self) -> &'static str {
        match self {
            PrintFormat::Bytes => "image_bytes",
            PrintFormat::Text => "preview",
        }
    }

    fn fields(self) -> Fields {
        let shown = match self {
            PrintFormat::Bytes => DataType::Binary,
            PrintFormat::Text => DataType::Utf8,
        };
        Fields::from(vec![
            Field::new("media_type", DataType::Utf8, true),
            Field::new("width", DataType::Int32, true),
            Field::new("height", DataType::Int32, true),
            Field::new(self.column(), shown, true),
        ])
    }
}

/// What PRINT IMAGE rests on in one statement.
#[derive(Debug)]
pub struct PrintContext {
    /// What may be read.
    pub files: FileAccess,
    /// What an image may cost.
    pub limits: ImageLimits,
    /// How images are shown.
    pub format: PrintFormat,
    /// The folder that relative paths are looked for in.
    pub base_dir: Option<String>,
    /// Stops the reading.
    pub cancel: CancellationToken,
}

/// `print_image(image)` for one statement: a struct of `media_type`, `width`, `height` and `image_bytes` or `preview`.
/// Any image that cannot be read is an error; NULL gives NULLs.
pub fn print_function(context: Arc<PrintContext>) -> ScalarUDF {
    AsyncScalarUDF::new(Arc::new(PrintFunction {
        context,
        // Volatile for the reasons that embed is.
        signature: Signature::any(1, Volatility::Volatile),
    }))
    .into_scalar_udf()
}

/// The query's columns and those of its images: what PRINT IMAGE answers.
pub fn print_plan(
    input: LogicalPlan,
    image: &Column,
    context: &Arc<PrintContext>,
) -> Result<LogicalPlan> {
    let columns: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
    let function = print_function(Arc::clone(context));
    let printed = function.call(vec![Expr::Column(image.clone())]).alias(STRUCT_COLUMN);
    let inner = columns.iter().cloned().chain([printed]);
    let shown = context.format.fields();
    let outer = shown.iter().enumerate().map(|(place, field)| {
        part_of(Expr::Column(Column::from_name(STRUCT_COLUMN)), place, field).alias(field.name())
    });
    LogicalPlanBuilder::from(input)
        .project(inner.collect::<Vec<_>>())?
        .project(columns.iter().cloned().chain(outer).collect::<Vec<_>>())?
        .build()
}

#[derive(Debug)]
struct PrintFunction {
    context: Arc<PrintContext>,
    signature: Signature,
}

impl PartialEq for PrintFunction {
    fn eq(&self, other: &PrintFunction) -> bool {
        Arc::ptr_eq(&self.context, &other.context)
    }
}

impl Eq for PrintFunction {}

impl Hash for PrintFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.context).hash(state);
    }
}

impl ScalarUDFImpl for PrintFunction {
    fn name(&self) -> &str {
        "print_image"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Struct(self.context.format.fields()))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        if let Some(image) = args.arg_fields.first() {
            check_image_type(image.data_type()).map_err(through_datafusion)?;
        }
        Ok(Arc::new(Field::new(self.name(), self.return_type(&[])?, true)))
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Err(through_datafusion(SqlError::new(
            SqlState::FEATURE_NOT_SUPPORTED,
            "print_image cannot be called in this place",
        )))
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for PrintFunction {
    fn ideal_batch_size(&self) -> Option<usize> {
        Some(ROWS_AT_ONCE)
    }

    async fn invoke_async_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(argument) = args.args.first() else {
            return Err(through_datafusion(SqlError::new(
                SqlState::UNDEFINED_FUNCTION,
                "function print_image takes an image",
            )));
        };
        let images =
            images_of(&argument.to_array(args.number_rows)?).map_err(through_datafusion)?;
        let context = &self.context;
        let printed: Vec<Option<Printed>> = futures::stream::iter(images)
            .map(|image| {
                let context = Arc::clone(context);
                async move {
                    let Some(image) = image else { return Ok(None) };
                    tokio::task::spawn_blocking(move || context.print(image).map(Some))
                        .await
                        .map_err(crate::error::internal)?
                }
            })
            .buffered(READS_AT_ONCE)
            .try_collect()
            .await
            .map_err(through_datafusion)?;
        struct_array(context.format, &printed).map(ColumnarValue::Array)
    }
}

/// One image, ready to be shown.
struct Printed {
    media_type: &'static str,
    width: u32,
    height: u32,
    shown: Shown,
}

enum Shown {
    Bytes(Vec<u8>),
    Text(String),
}

impl PrintContext {
    /// Blocking.
    fn print(&self, image: Image) -> Result<Printed, SqlError> {
        if self.cancel.is_cancelled() {
            return Err(crate::error::cancelled());
        }
        let (source, shown_path) = match image {
            Image::Bytes(bytes) => (ImageSource::Bytes(bytes), None),
            Image::Path(path) => {
                let path = match &self.base_dir {
                    Some(base) => Path::new(base).join(&path).to_string_lossy().into_owned(),
                    None => path,
                };
                (ImageSource::Path(self.files.resolve(&path)?), Some(path))
            }
        };
        let failed = |error| image_error(&error, shown_path.as_deref());
        match self.format {
            PrintFormat::Bytes => {
                let image = image_bytes(&source, &self.limits).map_err(failed)?;
                Ok(Printed {
                    media_type: image.media_type,
                    width: image.width,
                    height: image.height,
                    shown: Shown::Bytes(image.bytes),
                })
            }
            PrintFormat::Text => {
                let image = preview(&source, &self.limits, PREVIEW_COLUMNS, PREVIEW_ROWS)
                    .map_err(failed)?;
                Ok(Printed {
                    media_type: image.media_type,
                    width: image.width,
                    height: image.height,
                    shown: Shown::Text(image.text),
                })
            }
        }
    }
}

fn struct_array(format: PrintFormat, printed: &[Option<Printed>]) -> Result<ArrayRef> {
    let mut media_types = StringBuilder::new();
    let mut widths = Int32Builder::new();
    let mut heights = Int32Builder::new();
    let mut bytes = BinaryBuilder::new();
    let mut texts = StringBuilder::new();
    let side = |pixels: u32| i32::try_from(pixels).unwrap_or(i32::MAX);
    for image in printed {
        media_types.append_option(image.as_ref().map(|image| image.media_type));
        widths.append_option(image.as_ref().map(|image| side(image.width)));
        heights.append_option(image.as_ref().map(|image| side(image.height)));
        match image.as_ref().map(|image| &image.shown) {
            Some(Shown::Bytes(content)) => {
                bytes.append_value(content);
                texts.append_null();
            }
            Some(Shown::Text(drawing)) => {
                bytes.append_null();
                texts.append_value(drawing);
            }
            None => {
                bytes.append_null();
                texts.append_null();
            }
        }
    }
    let shown: ArrayRef = match format {
        PrintFormat::Bytes => Arc::new(bytes.finish()),
        PrintFormat::Text => Arc::new(texts.finish()),
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(media_types.finish()),
        Arc::new(widths.finish()),
        Arc::new(heights.finish()),
        shown,
    ];
    Ok(Arc::new(StructArray::try_new(format.fields(), columns, None)?))
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int32Array, RecordBatch, StringArray};
    use arrow::datatypes::Int32Type;
    use datafusion::prelude::SessionContext;

    use super::*;

    /// A 2 x 1 PGM: one dark and one light pixel.
    const PGM: &[u8] = b"P5\n2 1\n255\n\x00\xff";

    async fn print(format: PrintFormat, paths: Vec<Option<&str>>) -> Result<RecordBatch, SqlError> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("숫자.pgm"), PGM).unwrap();
        std::fs::write(folder.path().join("text.jpg"), "no image").unwrap();
        let context = Arc::new(PrintContext {
            files: FileAccess::new(&[folder.path().to_owned()]).unwrap(),
            limits: ImageLimits::default(),
            format,
            base_dir: Some(folder.path().to_str().unwrap().to_owned()),
            cancel: CancellationToken::new(),
        });
        let session = SessionContext::new();
        let rows = paths.len();
        let batch =
            RecordBatch::try_from_iter([("image", Arc::new(StringArray::from(paths)) as ArrayRef)])
                .unwrap();
        session.register_batch("t", batch).unwrap();
        let run = async {
            let input = session.table("t").await?.into_unoptimized_plan();
            let image = input.schema().columns()[0].clone();
            let plan = print_plan(input, &image, &context)?;
            session.execute_logical_plan(plan).await?.collect().await
        };
        let batches = run.await.map_err(|error| crate::error::datafusion_error(error, None))?;
        let batch = arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap();
        assert_eq!(batch.num_rows(), rows);
        Ok(batch)
    }

    #[tokio::test]
    async fn bytes_are_the_file_itself_and_null_stays_null() {
        let batch = print(PrintFormat::Bytes, vec![Some("숫자.pgm"), None]).await.unwrap();
        let names: Vec<_> =
            batch.schema().fields().iter().map(|field| field.name().clone()).collect();
        assert_eq!(names, ["image", "media_type", "width", "height", "image_bytes"]);
        assert_eq!(batch.column(1).as_string::<i32>().value(0), "image/x-portable-anymap");
        assert_eq!(batch.column(2).as_primitive::<Int32Type>().value(0), 2);
        assert_eq!(batch.column(3).as_primitive::<Int32Type>().value(0), 1);
        assert_eq!(batch.column(4).as_binary::<i32>().value(0), PGM);
        for column in 1..5 {
            assert!(batch.column(column).is_null(1), "column {column}");
        }
    }

    #[tokio::test]
    async fn only_the_images_of_the_rows_that_are_left_are_read() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("b.pgm"), PGM).unwrap();
        let context = Arc::new(PrintContext {
            files: FileAccess::new(&[folder.path().to_owned()]).unwrap(),
            limits: ImageLimits::default(),
            format: PrintFormat::Text,
            base_dir: None,
            cancel: CancellationToken::new(),
        });
        let session = SessionContext::new();
        let paths = StringArray::from(vec!["missing.pgm", "b.pgm", "a.pgm"]);
        let scores = Int32Array::from(vec![2, 3, 1]);
        let batch = RecordBatch::try_from_iter([
            ("image", Arc::new(paths) as ArrayRef),
            ("score", Arc::new(scores) as ArrayRef),
        ])
        .unwrap();
        session.register_batch("t", batch).unwrap();
        let input =
            session.sql("SELECT image, score FROM t ORDER BY score DESC LIMIT 1").await.unwrap();
        let input = input.into_unoptimized_plan();
        let image = input.schema().columns()[0].clone();
        let plan = print_plan(input, &image, &context).unwrap();
        let batches = session.execute_logical_plan(plan).await.unwrap().collect().await.unwrap();
        assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 1);
    }

    #[tokio::test]
    async fn text_is_a_drawing() {
        let batch = print(PrintFormat::Text, vec![Some("숫자.pgm")]).await.unwrap();
        assert_eq!(batch.schema().field(4).name(), "preview");
        assert!(!batch.column(4).as_string::<i32>().value(0).is_empty());
    }

    #[tokio::test]
    async fn what_is_no_image_is_an_error() {
        for (path, code) in [
            ("text.jpg", SqlState::INVALID_BINARY_REPRESENTATION),
            ("missing.jpg", SqlState::UNDEFINED_FILE),
            ("/etc/passwd", SqlState::INSUFFICIENT_PRIVILEGE),
        ] {
            let error = print(PrintFormat::Text, vec![Some(path)]).await.unwrap_err();
            assert_eq!(error.code, code, "{path}: {error}");
        }
    }
}
