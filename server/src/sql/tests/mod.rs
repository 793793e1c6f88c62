//! Tests of the grammar, by what a script says; each file one side of it.
//!
//! Trees are compared as sqlparser prints them: short to read, and the printing is only the tests'.

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

mod errors;
mod forms;
mod nesting;
mod postgres;
mod robustness;

use super::{
    Body, Embedded, ParseError, Parsed, RowStatement, SqlStatement, Statement, parse_script,
};

/// The only statement of a script.
fn one(text: &str) -> Statement {
    let mut statements = parse(text);
    assert_eq!(statements.len(), 1, "{text}");
    statements.remove(0).statement
}

fn parse(text: &str) -> Vec<Parsed> {
    parse_script(text).unwrap_or_else(|error| panic!("{text}\n{error:?}"))
}

fn sql(text: &str) -> SqlStatement {
    match one(text) {
        Statement::Sql(sql) => sql,
        other => panic!("{text}\nis not SQL: {other:?}"),
    }
}

fn rows(text: &str) -> RowStatement {
    match one(text) {
        Statement::Rows(rows) => rows,
        other => panic!("{text}\nyields no rows: {other:?}"),
    }
}

fn error(text: &str) -> ParseError {
    match parse_script(text) {
        Err(error) => error,
        Ok(parsed) => panic!("{text}\nis taken for {parsed:?}"),
    }
}

/// SQL as sqlparser prints it, with `{...}` in place of each placeholder.
fn shape(sql: &SqlStatement) -> String {
    fill(sql.ast.to_string(), &sql.embedded)
}

fn body_shape(body: &Body) -> String {
    fill(body.query.to_string(), &body.embedded)
}

fn fill(mut text: String, embedded: &[Embedded]) -> String {
    for Embedded { placeholder, statement, .. } in embedded {
        assert_eq!(text.matches(placeholder.as_str()).count(), 1, "{placeholder} in {text}");
        text = text.replace(placeholder.as_str(), &format!("{{{}}}", row_shape(statement)));
    }
    text
}

fn row_shape(statement: &RowStatement) -> String {
    match statement {
        RowStatement::Convert(convert) => {
            format!("convert {}: {}", convert.model, body_shape(&convert.body))
        }
        RowStatement::Search(search) => {
            format!("search {}: {}", search.model, body_shape(&search.body))
        }
        RowStatement::Print(print) => format!("print: {}", body_shape(&print.body)),
        RowStatement::Predict(predict) => {
            format!("predict {}: {}", predict.model, body_shape(&predict.body))
        }
        RowStatement::Evaluate(evaluate) => {
            format!("evaluate {}: {}", evaluate.model, body_shape(&evaluate.body))
        }
        RowStatement::List(kind) => format!("list {kind:?}"),
        RowStatement::ShowJobs => "show jobs".to_owned(),
        RowStatement::Function(function) => {
            format!("{:?}: {}", function.kind, body_shape(&function.body))
        }
    }
}
