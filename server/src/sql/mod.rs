//! The grammar: a script in, typed statements out.
//!
//! A script is cut into tokens once ([`source`]) and split at its semicolons. Each statement is then either
//! ThanoSQL's, read by a parser of our own ([`statement`]), or PostgreSQL's, handed to sqlparser as tokens ([`query`]).
//! ThanoSQL within PostgreSQL and PostgreSQL within ThanoSQL nest as deep as one likes: what stands in parentheses in
//! FROM becomes a placeholder table, what stands after AS becomes a query.
//!
//! ```text
//! SELECT * FROM (SEARCH IMAGE images='a.jpg' USING m AS SELECT * FROM t) WHERE similarity_image1 > 0.5
//!
//! Sql { ast: SELECT * FROM (SELECT * FROM __thanosql_embedded_0) WHERE ...,
//!       embedded: [ __thanosql_embedded_0 = Search { model: m, body: { query: SELECT * FROM t, embedded: [] } } ] }
//! ```
//!
//! Every error says where, in characters of the script, and reads as PostgreSQL's does. No input makes it panic, and
//! the depth of every tree is bounded, so no input exhausts a stack.
//!
//! Left out on purpose: nothing is looked up here. Whether tables, models, columns and files exist is the planner's
//! question; this module knows neither the catalog nor DataFusion.

mod ast;
mod copy;
mod cursor;
mod dialect;
mod error;
mod fragment;
mod option_reader;
pub mod options;
pub mod pieces;
mod query;
mod quote;
mod source;
mod statement;
mod suggest;
#[cfg(test)]
mod tests;

use std::collections::HashSet;

use sqlparser::ast::{DataType, Ident};
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

pub use ast::{
    Algorithm, Body, BuildModel, ComputeFunction, ComputeKind, Convert, Copy, CopyColumns,
    CopyDataFormat, CopyDirection, CopyFile, CopyHeader, CopyTarget, CreateTableUsing,
    DeclareCursor, DropModel, DropVerb, Embedded, Evaluate, ExplainThano, ExportModel, Fetch,
    FetchDirection, FitModel, GetDataset, GetModel, ImageInput, ImageValue, JobId, JobIdValue,
    ListKind, Maintenance, MaintenanceCommand, Name, ObjectName, Parsed, PathArgument, PathValue,
    Predict, Print, RowStatement, Search, SearchForm, SqlStatement, Statement, UploadModel,
};
pub use error::{ErrorKind, ParseError};
pub use fragment::{parse_expression, view_definition};
pub use option_reader::Reader as OptionReader;
pub use options::{
    BuildModelOptions, ColorOption, ConvertOptions, CopyFileOptions, CreateTableUsingOptions,
    EvaluateOptions, ExportModelOptions, GetDatasetOptions, GetModelOptions, GroupbyEmbMeanOptions,
    IfExists, LossOption, OnError, OptionEntry, OptionKind, OptionValue, Options, Parameters,
    PathType, PredictOptions, PrintFormat, PrintOptions, SearchInput, SearchOptions,
    SimilarityOptions, UploadModelOptions,
};
pub use quote::quote_ident;
pub use source::position_of;
pub use suggest::closest;

use source::{Source, Tok};
use statement::StatementParser;

/// Parses a script into its statements; empty ones are left out.
///
/// # Errors
///
/// The first statement that cannot be parsed. None of a script is run if any of it cannot be parsed.
pub fn parse_script(text: &str) -> Result<Vec<Parsed>, ParseError> {
    let source = Source::new(text)?;
    let mut statements = Vec::new();
    let mut start = 0;
    while start < source.tokens.len() {
        let length =
            source.tokens[start..].iter().position(|token| token.token == Token::SemiColon);
        let end = length.map_or(source.tokens.len(), |length| start + length);
        if start < end {
            let statement = StatementParser::new(&source, start, end).statement()?;
            let (first, last) = (&source.tokens[start], &source.tokens[end - 1]);
            statements.push(Parsed {
                statement,
                text: source.text[first.start..last.end].to_owned(),
                offset: first.position - 1,
                parameter_count: highest_parameter(&source, start, end),
                option_parameters: option_parameters(&source, start, end),
                cast_parameters: cast_parameters(&source, start, end),
                script: source.text.clone(),
            });
        }
        start = end + 1;
    }
    Ok(statements)
}

/// Parses one query: SELECT, WITH, VALUES, a table's name, or a ThanoSQL statement that yields rows.
///
/// # Errors
///
/// Anything that is not one query.
pub fn parse_query(text: &str) -> Result<Body, ParseError> {
    let source = Source::new(text)?;
    let end = source
        .tokens
        .iter()
        .position(|token| token.token == Token::SemiColon)
        .unwrap_or(source.tokens.len());
    let body = StatementParser::new(&source, 0, end).body()?;
    match source.tokens[end..].iter().position(|token| token.token != Token::SemiColon) {
        Some(more) => Err(source.near(end + more)),
        None => Ok(body),
    }
}

/// A statement's text with literals where its parameters stand: `literal` gives one for `$n`, and is told whether it stands inside OPTIONS,
/// whose values are written in a form of their own. `None` leaves the parameter as it is.
///
/// For a text to be shown. What runs is never put together from text.
///
/// # Errors
///
/// As [`parse_script`]'s, for a text that is no statement.
pub fn with_literals(
    text: &str,
    literal: impl Fn(usize, bool) -> Option<String>,
) -> Result<String, ParseError> {
    let source = Source::new(text)?;
    let mut written = String::with_capacity(text.len());
    let mut copied = 0;
    for (index, in_options) in tell_options(&source, 0, source.tokens.len()) {
        let token = &source.tokens[index];
        let inserted = token.parameter().and_then(|number| literal(number, in_options));
        if let Some(inserted) = inserted {
            written.push_str(&text[copied..token.start]);
            written.push_str(&inserted);
            copied = token.end;
        }
    }
    written.push_str(&text[copied..]);
    Ok(written)
}

/// An identifier of sqlparser's tree as PostgreSQL folds it: to lower case unless it is quoted.
pub fn fold(identifier: &Ident) -> String {
    match identifier.quote_style {
        Some(_) => identifier.value.clone(),
        None => identifier.value.to_ascii_lowercase(),
    }
}

/// `name = $n` inside OPTIONS. An option of one name has values of one kind, whatever the statement.
///
/// Looked for among the tokens, since OPTIONS stand in row statements at any depth of PostgreSQL's trees.
fn option_parameters(source: &Source, start: usize, end: usize) -> Vec<(usize, OptionKind)> {
    let tokens = &source.tokens;
    let in_options = tell_options(source, start, end).filter(|(_, in_options)| *in_options);
    in_options
        .filter_map(|(index, _)| {
            let n = tokens[index].parameter()?;
            let [.., name, equal] = &tokens[start..index] else { return None };
            let Token::Word(name) = &name.token else { return None };
            let kind = options::kind_of(&name.value.to_lowercase())?;
            (equal.token == Token::Eq).then_some((n, kind))
        })
        .collect()
}

/// Tokens that a type takes at most: `information_schema.x`, `timestamp (6) without time zone [] []`.
const LONGEST_TYPE: usize = 16;

/// `$n::type` and `CAST($n AS type)` where `$n` stands for the first time. As in PostgreSQL, such a cast says what the parameter is.
fn cast_parameters(source: &Source, start: usize, end: usize) -> Vec<(usize, DataType)> {
    let tokens = &source.tokens[start..end];
    let mut seen = HashSet::new();
    let first = tokens.iter().enumerate().filter_map(|(index, token)| {
        let n = token.parameter()?;
        seen.insert(n).then_some((index, n))
    });
    let is_cast = |index: usize| match &tokens[..index] {
        [.., cast, open] => cast.is_keyword("cast") && open.token == Token::LParen,
        _ => false,
    };
    first
        .filter_map(|(index, n)| {
            let next = tokens.get(index + 1)?;
            let casts =
                next.token == Token::DoubleColon || (next.is_keyword("as") && is_cast(index));
            if !casts {
                return None;
            }
            let written = tokens[index + 2..].iter().take(LONGEST_TYPE);
            let written: Vec<Token> = written.map(|token| token.token.clone()).collect();
            let dialect = dialect::Postgres::for_tokens(written.len());
            let data_type = Parser::new(&dialect).with_tokens(written).parse_data_type();
            // What is no type is found out where the statement is parsed.
            Some((n, data_type.ok()?))
        })
        .collect()
}

/// The tokens from one to another, and whether each stands inside OPTIONS.
fn tell_options(source: &Source, start: usize, end: usize) -> impl Iterator<Item = (usize, bool)> {
    let mut options_end = start;
    (start..end).map(move |index| {
        let opened = source.tokens.get(index + 1).and_then(|open| open.partner);
        if let Some(close) = opened.filter(|_| source.tokens[index].is_keyword("options")) {
            options_end = close;
        }
        (index, index < options_end)
    })
}

fn highest_parameter(source: &Source, start: usize, end: usize) -> usize {
    source.tokens[start..end].iter().filter_map(Tok::parameter).max().unwrap_or(0)
}
