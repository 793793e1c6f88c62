//! Errors, notices and columns as pgwire's messages.

use arrow::datatypes::Schema;
use pgwire::messages::data::{FieldDescription, RowDescription};
use pgwire::messages::response::{self, ErrorResponse, NoticeResponse, ReadyForQuery};

use crate::backend::TransactionStatus;
use crate::error::SqlError;
use crate::notice::Notice;
use crate::types::{self, Format};

/// An error with its fields: severity (also in the form that is never translated), code, message, detail, hint, position, and what it is about.
pub(crate) fn error_response(error: &SqlError) -> ErrorResponse {
    let severity = error.severity.as_str();
    let mut fields = fields(severity, error.code.0, &error.message, &error.detail, &error.hint);
    if let Some(position) = error.position {
        fields.push((b'P', position.to_string()));
    }
    if let Some(subject) = &error.subject {
        for (code, name) in [
            (b's', &subject.schema),
            (b't', &subject.table),
            (b'c', &subject.column),
            (b'n', &subject.constraint),
        ] {
            fields.extend(name.as_ref().map(|name| (code, without_zeros(name))));
        }
    }
    ErrorResponse::new(fields)
}

pub(crate) fn notice_response(notice: &Notice) -> NoticeResponse {
    NoticeResponse::new(fields(
        notice.severity.as_str(),
        notice.code.0,
        &notice.message,
        &notice.detail,
        &notice.hint,
    ))
}

fn fields(
    severity: &str,
    code: &str,
    message: &str,
    detail: &Option<String>,
    hint: &Option<String>,
) -> Vec<(u8, String)> {
    let mut fields = vec![
        (b'S', severity.to_owned()),
        (b'V', severity.to_owned()),
        (b'C', code.to_owned()),
        (b'M', without_zeros(message)),
    ];
    fields.extend(detail.as_ref().map(|detail| (b'D', without_zeros(detail))));
    fields.extend(hint.as_ref().map(|hint| (b'H', without_zeros(hint))));
    fields
}

/// A zero byte ends a string in the protocol; one within would end the message in the wrong place.
pub(crate) fn without_zeros(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// The columns of a result, in these formats: none (all text), one for all, or one each.
pub(crate) fn row_description(schema: &Schema, formats: &[Format]) -> RowDescription {
    let fields = schema
        .fields()
        .iter()
        .enumerate()
        .map(|(index, field)| {
            let oid = types::type_oid(field);
            let origin = types::Origin::of(field);
            FieldDescription::new(
                without_zeros(field.name()),
                // An OID is unsigned; the message's type is not.
                origin.map_or(0, |origin| origin.table.cast_signed()),
                origin.map_or(0, |origin| i16::try_from(origin.column).unwrap_or(0)),
                oid,
                types::type_length(oid),
                types::type_modifier(field),
                format_of(formats, index).code(),
            )
        })
        .collect();
    RowDescription::new(fields)
}

/// The format of a column: none given means text, one given is for all.
pub(crate) fn format_of(formats: &[Format], index: usize) -> Format {
    match formats {
        [] => Format::Text,
        [all] => *all,
        each => each.get(index).copied().unwrap_or(Format::Text),
    }
}

pub(crate) fn ready_for_query(status: TransactionStatus) -> ReadyForQuery {
    ReadyForQuery::new(match status {
        TransactionStatus::Idle => response::TransactionStatus::Idle,
        TransactionStatus::InTransaction => response::TransactionStatus::Transaction,
        TransactionStatus::Failed => response::TransactionStatus::Error,
    })
}
