//! Statements as they are kept with a model: with the values of their parameters, so that SHOW CREATE MODEL shows one that runs.

use thanosql_protocol::types::{TextStyle, text_value};

use crate::hexadecimal::hexadecimal;
use crate::plan::Parameters;
use crate::sql::{self, OptionValue, Parsed};

/// Longest value that is written out. Longer ones stay parameters: images, mostly.
const MAX_LITERAL_BYTES: usize = 64 * 1024;

/// A statement's text with its parameters' values in their places.
pub(super) fn statement_text(parsed: &Parsed, parameters: &Parameters) -> String {
    let Some(options) = parameters.option_values().filter(|values| !values.is_empty()) else {
        return parsed.text.clone();
    };
    let literal = |number: usize, in_options: bool| {
        let value = options.get(number.checked_sub(1)?)?;
        let text = if in_options { option(value) } else { expression(value, number, parameters) };
        text.filter(|text| text.len() <= MAX_LITERAL_BYTES)
    };
    // The statement has been parsed before, so it can be cut into tokens again.
    sql::with_literals(&parsed.text, literal).unwrap_or_else(|_| parsed.text.clone())
}

/// A value as OPTIONS takes it.
fn option(value: &OptionValue) -> Option<String> {
    Some(match value {
        OptionValue::String(text) | OptionValue::Word(text) => quoted(text),
        OptionValue::Number(number) => number.clone(),
        OptionValue::Bool(true) => "True".to_owned(),
        OptionValue::Bool(false) => "False".to_owned(),
        OptionValue::Null => "None".to_owned(),
        OptionValue::List(values) => {
            format!("[{}]", values.iter().map(option).collect::<Option<Vec<_>>>()?.join(", "))
        }
        OptionValue::Parameter(_) | OptionValue::Bytes(_) => return None,
    })
}

/// A value as an expression of SQL.
fn expression(value: &OptionValue, number: usize, parameters: &Parameters) -> Option<String> {
    Some(match value {
        OptionValue::Number(text) => match text.starts_with('-') {
            true => format!("({text})"),
            false => text.clone(),
        },
        OptionValue::Bool(value) => value.to_string(),
        OptionValue::Null => "NULL".to_owned(),
        OptionValue::List(values) => {
            let items = values.iter().map(|value| expression(value, 0, parameters));
            format!("ARRAY[{}]", items.collect::<Option<Vec<_>>>()?.join(", "))
        }
        // Dates and their like: as the client would have written them.
        OptionValue::String(text) => quoted(&written(number, parameters).unwrap_or(text.clone())),
        OptionValue::Word(text) => quoted(text),
        OptionValue::Bytes(bytes) => {
            format!("'\\x{}'::bytea", hexadecimal(bytes))
        }
        OptionValue::Parameter(_) => return None,
    })
}

fn written(number: usize, parameters: &Parameters) -> Option<String> {
    let value = parameters.value(number)?.to_array().ok()?;
    let field = arrow::datatypes::Field::new("", value.data_type().clone(), true);
    text_value(value.as_ref(), 0, &field, &TextStyle::default())
}

/// A text as a literal.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, BinaryArray, Date32Array, Int64Array, StringArray};

    use super::*;

    #[test]
    fn values_are_written_where_parameters_stand() {
        let text = "BUILD MODEL m USING SimCLR OPTIONS (image_col=$1, seed=$2) AS SELECT $3 FROM t WHERE a = $1 AND b > $2 AND c < $4";
        let parsed = crate::sql::parse_script(text).unwrap().remove(0);
        let values: [ArrayRef; 4] = [
            Arc::new(StringArray::from(vec!["it's"])),
            Arc::new(Int64Array::from(vec![-7])),
            Arc::new(BinaryArray::from(vec![&b"\x00\xff"[..]])),
            Arc::new(Date32Array::from(vec![20_000])),
        ];
        let parameters = Parameters::bound(&values).unwrap();
        assert_eq!(
            statement_text(&parsed, &parameters),
            "BUILD MODEL m USING SimCLR OPTIONS (image_col='it''s', seed=-7) AS SELECT '\\x00ff'::bytea FROM t WHERE a = 'it''s' AND b > (-7) AND c < '2024-10-04'"
        );
        assert_eq!(statement_text(&parsed, &Parameters::default()), text);
    }
}
