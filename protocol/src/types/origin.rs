//! The stored column that a result's column is, as the description of a result tells clients.

use arrow::datatypes::Field;

/// The metadata key of a table's OID and a column's number, with a point between them.
const KEY: &str = "pg_origin";

/// A column of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The table's OID, as in `pg_class`.
    pub table: u32,
    /// The column's number, from 1, as in `pg_attribute`.
    pub column: usize,
}

impl Origin {
    /// The field of a result, with its origin.
    pub fn mark(self, field: Field) -> Field {
        let mut metadata = field.metadata().clone();
        metadata.insert(KEY.to_owned(), format!("{}.{}", self.table, self.column));
        field.with_metadata(metadata)
    }

    /// The origin of a result's field, if it is known.
    pub fn of(field: &Field) -> Option<Origin> {
        let (table, column) = field.metadata().get(KEY)?.split_once('.')?;
        Some(Origin { table: table.parse().ok()?, column: column.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::DataType;

    use super::*;

    #[test]
    fn an_origin_comes_back_and_keeps_what_else_a_field_says() {
        let typed = [("pg_type".to_owned(), "varchar".to_owned())].into();
        let field = Field::new("a", DataType::Utf8, true).with_metadata(typed);
        assert_eq!(Origin::of(&field), None);
        let origin = Origin { table: 16_400, column: 3 };
        let marked = origin.mark(field);
        assert_eq!(Origin::of(&marked), Some(origin));
        assert_eq!(marked.metadata()["pg_type"], "varchar");
    }
}
