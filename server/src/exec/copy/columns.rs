//! Texts on their way to columns: what both COPYs do with the values of a line.

use arrow::array::{Array as _, ArrayRef, StringArray, StringBuilder};
use arrow::compute::interleave;
use arrow::datatypes::{DataType, Field};
use thanosql_protocol::SqlError;

use super::text::Cell;
use crate::error::{arrow_error, datafusion_error};
use crate::exec::append::{CHUNK_BYTES, CHUNK_ROWS, Chunk, Places, placed};
use crate::plan::coerce::read_column;

/// The values of lines, until there are enough of them for a chunk.
#[derive(Debug)]
pub(crate) struct Cells {
    columns: Vec<CellColumn>,
    /// The number of each line.
    lines: Vec<u64>,
    bytes: usize,
}

/// The values of one column.
#[derive(Debug, Default)]
struct CellColumn {
    texts: StringBuilder,
    /// The rows that asked for the default.
    defaulted: Vec<usize>,
    rows: usize,
}

/// A value that is none of its column's type.
#[derive(Debug)]
struct BadCell {
    /// Its row.
    row: usize,
    error: Box<SqlError>,
}

impl Cells {
    /// None yet, of so many columns.
    pub(crate) fn new(columns: usize) -> Cells {
        let columns = (0..columns).map(|_| CellColumn::default()).collect();
        Cells { columns, lines: Vec::new(), bytes: 0 }
    }

    /// Takes a line's values, as many as there are columns. `bytes` is what they count as.
    pub(crate) fn push(&mut self, line: u64, cells: &[Cell], bytes: usize) {
        for (column, cell) in self.columns.iter_mut().zip(cells) {
            column.push(cell);
        }
        self.lines.push(line);
        self.bytes += bytes;
    }

    /// Whether there are enough for a chunk.
    pub(crate) fn is_full(&self) -> bool {
        self.lines.len() >= CHUNK_ROWS || self.bytes >= CHUNK_BYTES
    }

    /// The lines so far as a chunk, each column as its `field` says; `defaults` makes so many values for the rows that asked for a column's default. Begins anew.
    ///
    /// # Errors
    /// What reading a value answers; the detail says in which line of `table`'s data.
    pub(crate) fn take<'a>(
        &mut self,
        table: &str,
        field: impl Fn(usize) -> &'a Field,
        defaults: Option<&dyn Fn(usize, usize) -> Result<ArrayRef, SqlError>>,
    ) -> Result<Chunk, SqlError> {
        let places = Places::Lines(std::mem::take(&mut self.lines));
        self.bytes = 0;
        let mut columns = Vec::with_capacity(self.columns.len());
        for (index, column) in self.columns.iter_mut().enumerate() {
            let field = field(index);
            let values = match defaults {
                Some(defaults) => {
                    column.take(field.data_type(), Some(&|count| defaults(index, count)))
                }
                None => column.take(field.data_type(), None),
            };
            columns.push(values.map_err(|bad| {
                placed(*bad.error, table, &places.of(bad.row), Some(field.name()))
            })?);
        }
        Ok(Chunk { columns, places })
    }
}

impl CellColumn {
    fn push(&mut self, cell: &Cell) {
        match cell {
            Cell::Null => self.texts.append_null(),
            Cell::Default => {
                self.texts.append_null();
                self.defaulted.push(self.rows);
            }
            Cell::Text(text) => self.texts.append_value(text),
        }
        self.rows += 1;
    }

    /// The values so far as a column of a type, where `defaults` makes so many values for the rows that asked for the default. Begins anew.
    fn take(
        &mut self,
        data_type: &DataType,
        defaults: Option<&dyn Fn(usize) -> Result<ArrayRef, SqlError>>,
    ) -> Result<ArrayRef, BadCell> {
        let texts = self.texts.finish();
        let defaulted = std::mem::take(&mut self.defaulted);
        let rows = std::mem::take(&mut self.rows);
        let column = read(&texts, data_type)?;
        let Some(defaults) = defaults.filter(|_| !defaulted.is_empty()) else { return Ok(column) };
        let whole = |error| BadCell { row: defaulted[0], error: Box::new(error) };
        let values = defaults(defaulted.len()).map_err(whole)?;
        let mut places: Vec<(usize, usize)> = (0..rows).map(|row| (0, row)).collect();
        for (value, row) in defaulted.iter().enumerate() {
            places[*row] = (1, value);
        }
        interleave(&[column.as_ref(), values.as_ref()], &places)
            .map_err(|error| whole(arrow_error(error)))
    }
}

fn read(texts: &StringArray, data_type: &DataType) -> Result<ArrayRef, BadCell> {
    read_column(texts, data_type).map_err(|error| {
        let first = (0..texts.len())
            .find_map(|row| read_column(&texts.slice(row, 1), data_type).err().map(|e| (row, e)));
        let (row, error) = first.unwrap_or((0, error));
        BadCell { row, error: Box::new(datafusion_error(error, None)) }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::Int64Array;
    use thanosql_protocol::SqlState;

    use super::*;

    fn filled(cells: &[Cell]) -> CellColumn {
        let mut column = CellColumn::default();
        cells.iter().for_each(|cell| column.push(cell));
        column
    }

    #[test]
    fn defaults_stand_where_they_were_asked_for() {
        let mut column = filled(&[Cell::Text("1".into()), Cell::Default, Cell::Null]);
        let defaults = |count: usize| Ok(Arc::new(Int64Array::from(vec![9; count])) as ArrayRef);
        let values = column.take(&DataType::Int64, Some(&defaults)).unwrap();
        let expect = Int64Array::from(vec![Some(1), Some(9), None]);
        assert_eq!(values.as_ref(), &expect as &dyn arrow::array::Array);
        assert_eq!(column.take(&DataType::Int64, None).unwrap().len(), 0);
    }

    #[test]
    fn the_bad_value_is_found() {
        let mut column =
            filled(&[Cell::Text("1".into()), Cell::Text("2".into()), Cell::Text("x".into())]);
        let bad = column.take(&DataType::Int64, None).unwrap_err();
        assert_eq!((bad.row, bad.error.code), (2, SqlState::INVALID_TEXT_REPRESENTATION));
    }
}
