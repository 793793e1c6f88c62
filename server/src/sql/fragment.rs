//! Pieces of SQL that are kept as text: a column's default, and the query of a view.

use sqlparser::ast::Expr;

use super::error::ParseError;
use super::source::{Source, Tok};
use super::statement::StatementParser;

/// Parses an expression that a catalog keeps.
///
/// # Errors
/// Anything that is not one expression.
pub fn parse_expression(text: &str) -> Result<Expr, ParseError> {
    let source = Source::new(text)?;
    StatementParser::new(&source, 0, source.tokens.len()).expression().map(|expression| *expression)
}

/// The text of the query in `CREATE VIEW name AS query`.
pub fn view_definition(statement: &str) -> Option<&str> {
    let source = Source::new(statement).ok()?;
    let is_as = |token: &Tok| token.keyword().is_some_and(|word| word.eq_ignore_ascii_case("as"));
    let position = source.tokens.iter().position(is_as)?;
    let first = source.tokens.get(position + 1)?;
    statement.get(first.start..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_keeps_the_text_of_its_query() {
        let text = "CREATE OR REPLACE VIEW v AS SELECT 'as' AS a FROM t -- end";
        assert_eq!(view_definition(text), Some("SELECT 'as' AS a FROM t -- end"));
        assert_eq!(view_definition("CREATE VIEW v"), None);
    }

    #[test]
    fn only_one_expression_is_taken() {
        assert!(parse_expression("1 + 2").is_ok());
        assert!(parse_expression("1, 2").is_err());
        assert!(parse_expression("").is_err());
    }
}
