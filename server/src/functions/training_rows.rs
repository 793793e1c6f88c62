//! What CONVERT fills in for an image from the rows that its model was trained with: the target by the image's path,
//! and the path's last part.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, StringArray, UInt32Array};
use arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use thanosql_protocol::{SqlError, SqlState};

use super::embed::{Image, images_of};
use crate::error::through_datafusion;
use crate::files::file_name;
use crate::learning::TrainingRows;

/// `training_target(image)`: the target that the model was trained with for an image's path, in the target's own type;
/// NULL for an image that it was not trained with, or that is given as bytes.
pub fn target_function(rows: Arc<TrainingRows>) -> ScalarUDF {
    ScalarUDF::new_from_impl(TargetFunction {
        rows,
        signature: Signature::any(1, Volatility::Immutable),
    })
}

/// `training_filename(image)`: the last part of an image's path; NULL for an image given as bytes.
pub fn filename_function() -> ScalarUDF {
    ScalarUDF::new_from_impl(FilenameFunction {
        signature: Signature::any(1, Volatility::Immutable),
    })
}

#[derive(Debug)]
struct TargetFunction {
    rows: Arc<TrainingRows>,
    signature: Signature,
}

impl PartialEq for TargetFunction {
    fn eq(&self, other: &TargetFunction) -> bool {
        Arc::ptr_eq(&self.rows, &other.rows)
    }
}

impl Eq for TargetFunction {}

impl Hash for TargetFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.rows).hash(state);
    }
}

impl ScalarUDFImpl for TargetFunction {
    fn name(&self) -> &str {
        "training_target"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(self.rows.typed_targets().data_type().clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let places: UInt32Array = images(&args)?
            .iter()
            .map(|image| match image {
                Some(Image::Path(path)) => {
                    self.rows.find(path).and_then(|row| u32::try_from(row).ok())
                }
                Some(Image::Bytes(_)) | None => None,
            })
            .collect();
        let targets = arrow::compute::take(self.rows.typed_targets().as_ref(), &places, None)?;
        Ok(ColumnarValue::Array(targets))
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct FilenameFunction {
    signature: Signature,
}

impl ScalarUDFImpl for FilenameFunction {
    fn name(&self) -> &str {
        "training_filename"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let names: StringArray = images(&args)?
            .iter()
            .map(|image| match image {
                Some(Image::Path(path)) => Some(file_name(path)),
                Some(Image::Bytes(_)) | None => None,
            })
            .collect();
        Ok(ColumnarValue::Array(Arc::new(names) as ArrayRef))
    }
}

/// The argument as images, one a row.
fn images(args: &ScalarFunctionArgs) -> Result<Vec<Option<Image>>> {
    let Some(argument) = args.args.first() else {
        return Err(through_datafusion(SqlError::new(
            SqlState::UNDEFINED_FUNCTION,
            "the function takes an image",
        )));
    };
    let array = argument.to_array(args.number_rows)?;
    debug_assert_eq!(array.len(), args.number_rows);
    images_of(&array).map_err(through_datafusion)
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, RecordBatch};
    use arrow::datatypes::Int64Type;
    use datafusion::prelude::SessionContext;

    use super::*;
    use crate::learning::model::KeptRow;

    #[tokio::test]
    async fn targets_and_names_by_path() {
        let kept = [
            KeptRow { path: Some("/d/1.jpg"), filename: None, target: Some("7") },
            KeptRow { path: Some("/d/2.jpg"), filename: None, target: None },
        ];
        let bytes = TrainingRows::to_ipc(&kept).unwrap();
        let rows = Arc::new(TrainingRows::from_ipc(bytes, &DataType::Int64).unwrap());
        let context = SessionContext::new();
        context.register_udf(target_function(rows));
        context.register_udf(filename_function());
        let paths = StringArray::from(vec![
            Some("/d//1.jpg"),
            Some("/d/2.jpg"),
            None,
            Some("/other/숫자.jpg"),
        ]);
        let batch = RecordBatch::try_from_iter([("p", Arc::new(paths) as ArrayRef)]).unwrap();
        context.register_batch("t", batch).unwrap();
        let batches = context
            .sql("SELECT training_target(p), training_filename(p) FROM t")
            .await
            .unwrap()
            .collect()
            .await
            .unwrap();
        let targets: Vec<_> = batches[0].column(0).as_primitive::<Int64Type>().iter().collect();
        assert_eq!(targets, [Some(7), None, None, None]);
        let names: Vec<_> = batches[0].column(1).as_string::<i32>().iter().collect();
        assert_eq!(names, [Some("1.jpg"), Some("2.jpg"), None, Some("숫자.jpg")]);
    }
}
