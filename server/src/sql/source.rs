//! A script as tokens: cut once, by sqlparser's tokenizer, with the place of each in characters and bytes.
//!
//! Everything after works on these tokens and never on text, so a string or a comment that looks like SQL cannot mislead
//! it. White space and comments are dropped: no rule of PostgreSQL's grammar needs them, once strings that stand on
//! lines of their own are joined, which happens here.
//!
//! Spans are sqlparser's lines and columns; they go into its trees untouched. Positions, as clients get them, count
//! characters from 1 through the whole script. [`position_of`] turns one into the other.

use std::sync::Arc;

use sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan, Tokenizer, Whitespace, Word};

use super::dialect::Postgres;
use super::error::{ErrorKind, ParseError};

/// More parameters than this cannot be bound: the protocol counts them in 16 bits.
const MAX_PARAMETERS: usize = 65_535;

/// How many tokens may stand in a row between commas, summed over the parentheses around a token.
///
/// A chain such as `a OR b OR c` becomes a tree as deep as the chain is long, and trees are dropped, copied and
/// compared by recursion. This bounds their depth, so that no statement can exhaust a thread's stack.
const MAX_CHAIN: usize = 4_000;

/// How many tokens a UNION, INTERSECT or EXCEPT counts for: its branch of the tree takes several times the stack.
const SET_OPERATOR_WEIGHT: usize = 8;

/// How much of the script an error message repeats.
const MAX_NEAR: usize = 100;

/// A script that has been cut into tokens.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) text: Arc<str>,
    pub(super) tokens: Vec<Tok>,
}

/// A token and its place.
#[derive(Debug, Clone)]
pub(super) struct Tok {
    pub(super) token: Token,
    pub(super) span: Span,
    /// Where it starts, in characters from 1.
    pub(super) position: usize,
    /// The bytes of the script that it is.
    pub(super) start: usize,
    pub(super) end: usize,
    /// For an opening parenthesis or bracket, the index of the closing one.
    pub(super) partner: Option<usize>,
}

impl Tok {
    pub(super) fn to_sqlparser(&self) -> TokenWithSpan {
        TokenWithSpan::new(self.token.clone(), self.span)
    }

    /// The word that this is, if it is one without quotes.
    pub(super) fn keyword(&self) -> Option<&str> {
        if let Token::Word(Word { value, quote_style: None, .. }) = &self.token {
            Some(value)
        } else {
            None
        }
    }

    /// The text of a string in single quotes or dollars.
    pub(super) fn string(&self) -> Option<&str> {
        use Token::{
            DollarQuotedString, EscapedStringLiteral, SingleQuotedString, UnicodeStringLiteral,
        };
        if let DollarQuotedString(string) = &self.token {
            return Some(&string.value);
        }
        if let SingleQuotedString(text) | EscapedStringLiteral(text) | UnicodeStringLiteral(text) =
            &self.token
        {
            return Some(text);
        }
        None
    }

    /// The digits of a number, as written.
    pub(super) fn number(&self) -> Option<&str> {
        if let Token::Number(number, _) = &self.token { Some(number) } else { None }
    }

    /// The `n` of `$n`.
    pub(super) fn parameter(&self) -> Option<usize> {
        if let Token::Placeholder(placeholder) = &self.token {
            parameter_number(placeholder)
        } else {
            None
        }
    }

    pub(super) fn is_keyword(&self, keyword: &str) -> bool {
        self.keyword().is_some_and(|word| word.eq_ignore_ascii_case(keyword))
    }
}

/// pgvector's `<+>`, which sqlparser reads as three tokens: PostgreSQL takes them for one operator if nothing stands between them.
fn join_distances(tokens: &mut Vec<Tok>) {
    let mut at = 0;
    while at + 2 < tokens.len() {
        let [less, plus, greater] = &tokens[at..at + 3] else { return };
        if less.token == Token::Lt
            && plus.token == Token::Plus
            && greater.token == Token::Gt
            && less.end == plus.start
            && plus.end == greater.start
        {
            let (span, end) = (Span::new(less.span.start, greater.span.end), greater.end);
            let operator = Token::CustomBinaryOperator("<+>".to_owned());
            tokens.splice(at + 1..at + 3, []);
            let joined = &mut tokens[at];
            (joined.token, joined.span, joined.end) = (operator, span, end);
        }
        at += 1;
    }
}

/// Where a location stands in a script, in characters from 1; nothing for a location that sqlparser left empty.
pub fn position_of(location: Location, script: &str) -> Option<usize> {
    let line = usize::try_from(location.line).ok()?.checked_sub(1)?;
    let column = usize::try_from(location.column).ok()?;
    let before: usize =
        script.split_inclusive('\n').take(line).map(|line| line.chars().count()).sum();
    Some(before + column)
}

impl Source {
    pub(super) fn new(text: &str) -> Result<Source, ParseError> {
        let mut raw = Vec::new();
        let outcome = Tokenizer::new(&Postgres::for_tokens(0), text)
            .tokenize_with_location_into_buf(&mut raw);
        let mut places = Places::new(text);
        let mut tokens: Vec<Tok> = Vec::with_capacity(raw.len() / 2 + 1);
        // Whether the space before the token at hand holds a new line, which joins strings.
        let mut new_line = false;
        for TokenWithSpan { token, span } in raw {
            let (position, start) = places.advance(span.start);
            let (_, end) = places.advance(span.end);
            if let Token::Whitespace(space) = &token {
                new_line |=
                    matches!(space, Whitespace::Newline | Whitespace::SingleLineComment { .. });
                continue;
            }
            if new_line
                && let Token::SingleQuotedString(more) = &token
                && let Some(Tok {
                    token: Token::SingleQuotedString(string),
                    span: last,
                    end: last_end,
                    ..
                }) = tokens.last_mut()
            {
                string.push_str(more);
                *last = Span::new(last.start, span.end);
                *last_end = end;
            } else {
                tokens.push(Tok { token, span, position, start, end, partner: None });
            }
            new_line = false;
        }
        if outcome.is_err() {
            // What was being read starts where the last whole token, or the space after it, ended.
            return Err(unterminated(text, places));
        }
        check_placeholders(text, &tokens)?;
        join_distances(&mut tokens);
        pair(&mut tokens)?;
        Ok(Source { text: Arc::from(text), tokens })
    }

    /// PostgreSQL's message for a token that cannot stand where it stands.
    pub(super) fn near(&self, index: usize) -> ParseError {
        match self.tokens.get(index) {
            Some(token) => {
                let near = shorten(&self.text[token.start..token.end]);
                ParseError::new(ErrorKind::Syntax, format!("syntax error at or near \"{near}\""))
                    .at(token.position)
            }
            None => self.at_end(),
        }
    }

    /// PostgreSQL's message for a script that ends too early.
    pub(super) fn at_end(&self) -> ParseError {
        ParseError::new(ErrorKind::Syntax, "syntax error at end of input").at(self
            .text
            .chars()
            .count()
            + 1)
    }

    /// The token at a location, if one starts there.
    pub(super) fn index_at(&self, location: Location) -> Option<usize> {
        self.tokens.binary_search_by(|token| token.span.start.cmp(&location)).ok()
    }
}

/// Walks through a text once, from location to location.
struct Places<'a> {
    text: &'a str,
    /// In characters from 1.
    position: usize,
    byte: usize,
    at: Location,
}

impl<'a> Places<'a> {
    fn new(text: &'a str) -> Places<'a> {
        Places { text, position: 1, byte: 0, at: Location::new(1, 1) }
    }

    fn advance(&mut self, to: Location) -> (usize, usize) {
        let mut rest = self.text[self.byte..].chars();
        while self.at < to {
            let Some(ch) = rest.next() else { break };
            self.byte += ch.len_utf8();
            self.position += 1;
            self.at = match ch {
                '\n' => Location::new(self.at.line + 1, 1),
                _ => Location::new(self.at.line, self.at.column + 1),
            };
        }
        (self.position, self.byte)
    }
}

fn unterminated(text: &str, places: Places<'_>) -> ParseError {
    let rest = &text[places.byte..];
    let lower: String = rest.chars().take(3).flat_map(char::to_lowercase).collect();
    let what = if rest.starts_with('"') {
        "unterminated quoted identifier"
    } else if rest.starts_with("/*") {
        "unterminated /* comment"
    } else if rest.starts_with('$') {
        "unterminated dollar-quoted string"
    } else if lower.starts_with("u&") || (lower.starts_with("e'") && is_closed(&rest[1..])) {
        "invalid escape in string"
    } else if rest.starts_with('\'') || lower.get(1..2) == Some("'") {
        "unterminated quoted string"
    } else {
        "syntax error"
    };
    ParseError::new(ErrorKind::Syntax, format!("{what} at or near \"{}\"", shorten(rest)))
        .at(places.position)
}

/// Whether a string with backslashes, starting with its quote, has an end.
fn is_closed(string: &str) -> bool {
    let mut escaped = false;
    string.chars().skip(1).any(|ch| {
        let closes = ch == '\'' && !escaped;
        escaped = ch == '\\' && !escaped;
        closes
    })
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(MAX_NEAR) {
        Some((cut, _)) => format!("{}...", &text[..cut]),
        None => text.to_owned(),
    }
}

/// The `n` of `$n`.
fn parameter_number(placeholder: &str) -> Option<usize> {
    let digits = placeholder.strip_prefix('$')?;
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

fn check_placeholders(text: &str, tokens: &[Tok]) -> Result<(), ParseError> {
    for token in tokens {
        let Token::Placeholder(placeholder) = &token.token else { continue };
        let near = shorten(&text[token.start..token.end]);
        let error = match parameter_number(placeholder) {
            Some(0) => ParseError::new(ErrorKind::UndefinedParameter, "there is no parameter $0"),
            Some(number) if number <= MAX_PARAMETERS => continue,
            Some(_) => ParseError::new(
                ErrorKind::Syntax,
                format!("parameter number too large at or near \"{near}\""),
            ),
            None => {
                ParseError::new(ErrorKind::Syntax, format!("syntax error at or near \"{near}\""))
            }
        };
        return Err(error.at(token.position));
    }
    Ok(())
}

/// Finds the partner of each parenthesis and bracket, and refuses what would make too deep a tree. See [`MAX_CHAIN`].
fn pair(tokens: &mut [Tok]) -> Result<(), ParseError> {
    struct Level {
        opened_at: usize,
        chain: usize,
        set_operators: usize,
    }
    let mut levels: Vec<Level> = vec![Level { opened_at: usize::MAX, chain: 0, set_operators: 0 }];
    // The sum over all levels.
    let mut total = 0;
    for index in 0..tokens.len() {
        let is_outermost = levels.len() == 1;
        let Some(level) = levels.last_mut() else { break };
        let token = &tokens[index].token;
        if *token == Token::SemiColon {
            levels.truncate(1);
            levels[0] = Level { opened_at: usize::MAX, chain: 0, set_operators: 0 };
            total = 0;
        } else if *token == Token::Comma {
            // A comma ends an expression, but not a chain of UNIONs.
            total -= level.chain;
            level.chain = 0;
        } else if matches!(token, Token::RParen | Token::RBracket) && !is_outermost {
            if let Some(closed) = levels.pop() {
                total -= closed.chain + closed.set_operators;
                tokens[closed.opened_at].partner = Some(index);
            }
        } else {
            level.chain += 1;
            total += 1;
            if ["union", "intersect", "except"].iter().any(|set| tokens[index].is_keyword(set)) {
                level.set_operators += SET_OPERATOR_WEIGHT;
                total += SET_OPERATOR_WEIGHT;
            }
            if matches!(tokens[index].token, Token::LParen | Token::LBracket) {
                levels.push(Level { opened_at: index, chain: 0, set_operators: 0 });
            }
        }
        if total > MAX_CHAIN {
            let error =
                ParseError::new(ErrorKind::TooComplex, "statement is nested or chained too deeply")
                    .with_hint("Split it, or write long chains of OR as IN (...).");
            return Err(error.at(tokens[index].position));
        }
    }
    Ok(())
}
