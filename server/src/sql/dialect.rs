//! PostgreSQL's rules for sqlparser, mended where its own [`PostgreSqlDialect`] goes wrong.
//!
//! Four things differ, and all else is handed on. Operators end before a sign or a comment, as in `a>-1`, which sqlparser
//! reads as an operator `>-`. pgvector's operators bind as PostgreSQL binds all operators of extensions. An argument of a
//! function is not read twice to see whether it has a name, which takes twice as long with each level of nesting. And
//! because other rules do the same where a statement is wrong (`cast(cast(cast(`), the parser has a budget.

use std::any::TypeId;
use std::cell::Cell;

use sqlparser::ast::Expr;
use sqlparser::dialect::{Dialect, PostgreSqlDialect, Precedence};
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Token, TokenWithSpan};

/// The dialect of both the tokenizer and the parser.
#[derive(Debug)]
pub(super) struct Postgres {
    /// How many more expressions the parser may begin.
    budget: Cell<usize>,
}

impl Postgres {
    /// For a script of so many tokens. An expression takes one token at least, and the parser tries most of them less
    /// than four times.
    pub(super) fn for_tokens(count: usize) -> Postgres {
        Postgres { budget: Cell::new(1_000 + 20 * count) }
    }
}

const SQLPARSER: PostgreSqlDialect = PostgreSqlDialect {};

/// Methods that answer as sqlparser's dialect does.
macro_rules! as_sqlparser_has_it {
    ($($method:ident),+ $(,)?) => { $(fn $method(&self) -> bool { SQLPARSER.$method() })+ };
}

impl Dialect for Postgres {
    /// Rules that sqlparser ties to a dialect's type apply too.
    fn dialect(&self) -> TypeId {
        TypeId::of::<PostgreSqlDialect>()
    }

    fn is_custom_operator_part(&self, ch: char) -> bool {
        !matches!(ch, '+' | '-' | '/') && SQLPARSER.is_custom_operator_part(ch)
    }

    /// Reads nothing: it keeps to the budget, and stops the one rule that calls itself without counting its depth.
    fn parse_prefix(&self, parser: &mut Parser<'_>) -> Option<Result<Expr, ParserError>> {
        let interval = Keyword::INTERVAL;
        let is_interval = |token: &TokenWithSpan| matches!(&token.token, Token::Word(word) if word.keyword == interval);
        if parser.peek_keyword(interval) && is_interval(parser.peek_nth_token_ref(1)) {
            return Some(parser.expected("an expression", parser.peek_nth_token(1)));
        }
        let Some(rest) = self.budget.get().checked_sub(1) else {
            return Some(Err(ParserError::RecursionLimitExceeded));
        };
        self.budget.set(rest);
        None
    }

    fn supports_named_fn_args_with_expr_name(&self) -> bool {
        false
    }

    fn get_next_precedence(&self, parser: &Parser<'_>) -> Option<Result<u8, ParserError>> {
        if matches!(parser.peek_token_ref().token, Token::Spaceship | Token::TwoWayArrow) {
            return Some(Ok(SQLPARSER.prec_value(Precedence::PgOther)));
        }
        SQLPARSER.get_next_precedence(parser)
    }

    fn identifier_quote_style(&self, identifier: &str) -> Option<char> {
        SQLPARSER.identifier_quote_style(identifier)
    }

    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        SQLPARSER.is_delimited_identifier_start(ch)
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        SQLPARSER.is_identifier_start(ch)
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        SQLPARSER.is_identifier_part(ch)
    }

    fn is_reserved_for_identifier(&self, keyword: Keyword) -> bool {
        SQLPARSER.is_reserved_for_identifier(keyword)
    }

    fn prec_value(&self, precedence: Precedence) -> u8 {
        SQLPARSER.prec_value(precedence)
    }

    as_sqlparser_has_it!(
        allow_extract_custom,
        allow_extract_single_quotes,
        supports_alter_column_type_using,
        supports_array_typedef_with_brackets,
        supports_bitwise_shift_operators,
        supports_comma_separated_trim,
        supports_comment_on,
        supports_create_index_with_clause,
        supports_create_table_like_parenthesized,
        supports_empty_projections,
        supports_explain_with_utility_options,
        supports_factorial_operator,
        supports_filter_during_aggregation,
        supports_geometric_types,
        supports_group_by_expr,
        supports_insert_table_alias,
        supports_interval_options,
        supports_listen_notify,
        supports_load_extension,
        supports_named_fn_args_with_colon_operator,
        supports_nested_comments,
        supports_notnull_operator,
        supports_numeric_literal_underscores,
        supports_select_wildcard_with_alias,
        supports_set_names,
        supports_string_escape_constant,
        supports_unicode_string_literal,
        supports_xml_expressions,
    );
}
