//! PostgreSQL's SQL: the tokens of a statement or query, made ready for sqlparser, and its answer.
//!
//! A ThanoSQL statement that yields rows may stand wherever a query may. sqlparser has no hook there, so such a statement is
//! taken out of the tokens: `FROM (SEARCH ...)` becomes `FROM (SELECT * FROM placeholder)`, and [`Embedded`] remembers
//! what the placeholder stands for. All of this happens to tokens that keep their places; no text is
//! printed and none is read twice.
//!
//! A few things that PostgreSQL has and sqlparser lacks are put into words that it knows: `TABLE t`, column names and
//! `WITH NO DATA` of CREATE TABLE AS, `ABORT`, `RESET TIME ZONE`, DEFERRABLE.

use sqlparser::ast as pg;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan};

use super::ast::{Body, Embedded, SqlStatement, Statement};
use super::dialect::Postgres;
use super::error::{ErrorKind, ParseError};
use super::source::Tok;
use super::statement::StatementParser;
use super::suggest::closest;

/// How deeply sqlparser may nest.
const MAX_DEPTH: usize = 64;

/// The words that a statement of PostgreSQL starts with and that reach sqlparser, which knows many more of other databases.
const VERBS: &[&str] = &[
    "abort",
    "alter",
    "begin",
    "call",
    "comment",
    "commit",
    "create",
    "deallocate",
    "delete",
    "discard",
    "drop",
    "end",
    "execute",
    "explain",
    "grant",
    "insert",
    "listen",
    "load",
    "lock",
    "merge",
    "notify",
    "prepare",
    "release",
    "reset",
    "revoke",
    "rollback",
    "savepoint",
    "select",
    "set",
    "show",
    "start",
    "table",
    "truncate",
    "unlisten",
    "update",
    "values",
    "with",
];

/// Verbs of PostgreSQL that nothing here stands behind.
const UNSUPPORTED_VERBS: &[&str] = &["do", "import", "reassign", "refresh", "security"];

/// Verbs that other files read.
const OTHER_VERBS: &[&str] = &[
    "analyze",
    "build",
    "cancel",
    "checkpoint",
    "close",
    "cluster",
    "convert",
    "copy",
    "declare",
    "evaluate",
    "export",
    "fetch",
    "fit",
    "function",
    "get",
    "list",
    "move",
    "predict",
    "print",
    "reindex",
    "search",
    "upload",
    "vacuum",
    "wait",
];

impl StatementParser<'_> {
    /// The query from the next token to the end of the part at hand: SELECT, WITH, VALUES, a table's name, or a row statement.
    pub(super) fn body(&mut self) -> Result<Body, ParseError> {
        let (start, end) = (self.at, self.end);
        if start >= end {
            return Err(self.unexpected());
        }
        let position = self.position();
        let mut embedded = Vec::new();
        let mut tokens = Vec::with_capacity(end - start + 4);
        match self.table_name_alone(start, end) {
            Some(name) => {
                tokens.extend(self.source.tokens[start..name].iter().map(Tok::to_sqlparser));
                select_from(self.source.tokens[name].span, &mut tokens);
                tokens.extend(self.source.tokens[name..end].iter().map(Tok::to_sqlparser));
            }
            None => self.rewrite(start, end, Some(start), &mut tokens, &mut embedded)?,
        }
        let query = self.run_sqlparser(tokens, end, |parser| parser.parse_query())?;
        self.at = end;
        Ok(Body { query, embedded, position })
    }

    /// The whole statement, as PostgreSQL's SQL.
    pub(super) fn sql_statement(&mut self) -> Result<Statement, ParseError> {
        let (start, mut end) = (self.at, self.end);
        self.check_verb()?;
        self.check_explained()?;
        if let Some(ast) = self.statement_in_other_words()? {
            return Ok(sql(ast, Vec::new(), true));
        }
        let mut with_data = true;
        let query = self.query_start(start);
        if query.is_some() && self.creates(start) {
            (end, with_data) = self.without_data_clause(end);
        }
        let mut embedded = Vec::new();
        let mut tokens = Vec::with_capacity(end - start + 8);
        let verb = &self.source.tokens[start];
        if verb.is_keyword("begin") || verb.is_keyword("start") || verb.is_keyword("set") {
            self.without_deferrable(start, end, &mut tokens);
        } else if let Some(header) = self.create_table_header(start, query)? {
            self.rewrite(start, header.name_end, None, &mut tokens, &mut embedded)?;
            tokens.extend(self.source.tokens[header.clauses.clone()].iter().map(Tok::to_sqlparser));
            match header.columns {
                None => self.rewrite(header.clauses.end, end, query, &mut tokens, &mut embedded)?,
                Some(_) if header.clauses.end >= end => return Err(self.source.near(end)),
                Some(columns) => {
                    let span = self.source.tokens[header.clauses.end].span;
                    select_from(span, &mut tokens);
                    tokens.push(TokenWithSpan::new(Token::LParen, span));
                    self.rewrite(header.clauses.end, end, query, &mut tokens, &mut embedded)?;
                    tokens.push(TokenWithSpan::new(Token::RParen, span));
                    let alias = format!("{}columns", self.placeholder_prefix);
                    tokens.push(TokenWithSpan::new(Token::make_word(&alias, None), span));
                    tokens.extend(self.source.tokens[columns].iter().map(Tok::to_sqlparser));
                }
            }
        } else {
            self.rewrite(start, end, query, &mut tokens, &mut embedded)?;
        }
        let ast = self.run_sqlparser(tokens, end, |parser| parser.parse_statement())?;
        self.at = self.end;
        Ok(sql(ast, embedded, with_data))
    }

    /// An expression up to the end of the part at hand.
    pub(super) fn expression(&mut self) -> Result<Box<pg::Expr>, ParseError> {
        let tokens = self.source.tokens[self.at..self.end].iter().map(Tok::to_sqlparser).collect();
        let expression = self.run_sqlparser(tokens, self.end, |parser| parser.parse_expr())?;
        self.at = self.end;
        Ok(Box::new(expression))
    }

    /// Copies tokens, with a placeholder for each row statement in parentheses and for one that starts at `bare`.
    fn rewrite(
        &mut self,
        start: usize,
        end: usize,
        bare: Option<usize>,
        tokens: &mut Vec<TokenWithSpan>,
        embedded: &mut Vec<Embedded>,
    ) -> Result<(), ParseError> {
        let source = self.source;
        let mut index = start;
        while index < end {
            let token = &source.tokens[index];
            let before = index
                .checked_sub(1)
                .filter(|before| *before >= start)
                .map(|before| &source.tokens[before]);
            let opened = before.filter(|before| before.token == Token::LParen);
            if opened.is_some() || bare == Some(index) {
                let stop = opened.and_then(|open| open.partner).unwrap_or(end).min(end);
                if let Some(statement) = self.embedded(index, stop)? {
                    select_from(token.span, tokens);
                    let span = Span::new(token.span.start, source.tokens[stop - 1].span.end);
                    tokens.push(TokenWithSpan::new(
                        Token::make_word(&statement.placeholder, None),
                        span,
                    ));
                    embedded.push(statement);
                    index = stop;
                    continue;
                }
            }
            let may_be_query = opened.is_some()
                || bare == Some(index)
                || before.is_none()
                || before.is_some_and(|before| {
                    ["union", "intersect", "except", "all", "distinct"]
                        .iter()
                        .any(|word| before.is_keyword(word))
                });
            let is_name = |token: &Tok| matches!(token.token, Token::Word(_));
            if may_be_query
                && token.is_keyword("table")
                && source.tokens[..end].get(index + 1).is_some_and(is_name)
            {
                select_from(token.span, tokens);
            } else {
                tokens.push(token.to_sqlparser());
            }
            index += 1;
        }
        Ok(())
    }

    /// The row statement from `start` to `stop`, if there is one.
    fn embedded(&mut self, start: usize, stop: usize) -> Result<Option<Embedded>, ParseError> {
        let outer = (self.at, self.end);
        (self.at, self.end) = (start, stop);
        let statement = match self.starts_row_statement(start) {
            true => {
                let placeholder = format!("{}{}", self.placeholder_prefix, self.placeholders);
                self.placeholders += 1;
                let position = self.position();
                Some(Embedded { placeholder, statement: self.row_statement()?, position })
            }
            false => None,
        };
        (self.at, self.end) = outer;
        Ok(statement)
    }

    /// Where a name starts, if the tokens are nothing but a table's name, perhaps in parentheses.
    fn table_name_alone(&self, start: usize, end: usize) -> Option<usize> {
        let (mut start, mut end) = (start, end);
        while start < end && self.source.tokens[start].token == Token::LParen {
            if self.source.tokens[start].partner != Some(end - 1) {
                return None;
            }
            (start, end) = (start + 1, end - 1);
        }
        let mut name = self.fork(start, end);
        (name.object_name().is_ok() && name.at == end).then_some(start)
    }

    /// Where the query of a statement starts that is not in parentheses: after AS, after INSERT's target, after EXPLAIN.
    fn query_start(&self, start: usize) -> Option<usize> {
        let mut part = self.fork(start, self.end);
        if part.is_keyword(0, "explain") {
            part.explain_options();
            return self.query_start(part.at).or(Some(part.at));
        }
        if part.is_keyword(0, "insert") {
            if !part.eat_keywords(&["insert", "into"]) {
                return None;
            }
            part.object_name().ok()?;
            if part.eat_keyword("as") {
                part.name().ok()?;
            }
            if part.is_token(0, &Token::LParen)
                && let Some(close) = part.peek(0).and_then(|open| open.partner)
                // `INSERT INTO t (SELECT ...)` has no list of columns.
                && close + 1 < self.end
            {
                part.at = close + 1;
            }
            if part.eat_keyword("overriding") {
                part.at += 2;
            }
            return Some(part.at);
        }
        if self.creates(start) || part.is_keyword(0, "prepare") {
            return self.find_outside(part.at, "as").map(|index| index + 1);
        }
        None
    }

    /// Whether the statement creates a table or a view.
    fn creates(&self, start: usize) -> bool {
        let part = self.fork(start, self.end);
        part.is_keyword(0, "create")
            && (1..=5)
                .any(|ahead| part.is_keyword(ahead, "table") || part.is_keyword(ahead, "view"))
    }

    /// The first such keyword from `start` on that stands outside parentheses.
    fn find_outside(&self, start: usize, keyword: &str) -> Option<usize> {
        let mut index = start;
        while index < self.end {
            let token = &self.source.tokens[index];
            if token.is_keyword(keyword) {
                return Some(index);
            }
            index = token.partner.map_or(index + 1, |close| close + 1);
        }
        None
    }

    /// Where `WITH [NO] DATA` starts at the end of CREATE TABLE AS, and whether there is to be data.
    fn without_data_clause(&self, end: usize) -> (usize, bool) {
        let ends_with = |words: &[&str]| {
            end.checked_sub(words.len()).is_some_and(|from| {
                from > self.at
                    && words
                        .iter()
                        .zip(&self.source.tokens[from..end])
                        .all(|(word, token)| token.is_keyword(word))
            })
        };
        if ends_with(&["with", "no", "data"]) {
            (end - 3, false)
        } else if ends_with(&["with", "data"]) {
            (end - 2, true)
        } else {
            (end, true)
        }
    }

    /// Copies tokens without `[NOT] DEFERRABLE`: it makes a serializable transaction wait, and here none needs to.
    fn without_deferrable(&self, start: usize, end: usize, tokens: &mut Vec<TokenWithSpan>) {
        let mut index = start;
        while index < end {
            let source = &self.source.tokens[..end];
            let not = source[index].is_keyword("not")
                && source.get(index + 1).is_some_and(|t| t.is_keyword("deferrable"));
            if index == start || !(not || source[index].is_keyword("deferrable")) {
                tokens.push(source[index].to_sqlparser());
                index += 1;
                continue;
            }
            index += if not { 2 } else { 1 };
            if tokens.last().is_some_and(|last| last.token == Token::Comma) {
                tokens.pop();
            } else if source.get(index).is_some_and(|token| token.token == Token::Comma) {
                index += 1;
            }
        }
    }

    /// The parts of CREATE TABLE that sqlparser does not know: column names without types, and `USING heap`.
    fn create_table_header(
        &self,
        start: usize,
        query: Option<usize>,
    ) -> Result<Option<Header>, ParseError> {
        let mut part = self.fork(start, self.end);
        if !part.eat_keyword("create") {
            return Ok(None);
        }
        while ["global", "local", "temp", "temporary", "unlogged"]
            .iter()
            .any(|word| part.eat_keyword(word))
        {}
        if !part.eat_keyword("table") {
            return Ok(None);
        }
        part.eat_keywords(&["if", "not", "exists"]);
        if part.object_name().is_err() {
            return Ok(None);
        }
        let mut header = Header { name_end: part.at, columns: None, clauses: part.at..part.at };
        if let Some(close) =
            part.peek(0).filter(|open| open.token == Token::LParen).and_then(|open| open.partner)
        {
            let inner = &self.source.tokens[part.at + 1..close];
            let are_names = inner.iter().enumerate().all(|(index, token)| match index % 2 {
                0 => matches!(token.token, Token::Word(_)),
                _ => token.token == Token::Comma,
            });
            if are_names && inner.len() % 2 == 1 && query.is_some() {
                header.columns = Some(part.at..close + 1);
            } else {
                header.name_end = close + 1;
            }
            part.at = close + 1;
        }
        let has_method = part.eat_keyword("using");
        if has_method {
            let method = part.name()?;
            if method.value != "heap" {
                let error = ParseError::new(
                    ErrorKind::UndefinedObject,
                    format!("access method \"{method}\" does not exist"),
                );
                return Err(error
                    .with_hint("To embed files, write CREATE TABLE name USING model FROM 'path'.")
                    .at(method.position));
            }
        }
        header.clauses = part.at..query.filter(|query| *query >= part.at).unwrap_or(part.at);
        Ok((has_method || header.columns.is_some()).then_some(header))
    }

    /// Statements that sqlparser lacks and that mean the same as others that it has.
    fn statement_in_other_words(&mut self) -> Result<Option<pg::Statement>, ParseError> {
        let start = self.at;
        let reset = |name: &str| {
            pg::Statement::Reset(pg::ResetStatement {
                reset: pg::Reset::ConfigurationParameter(pg::ObjectName::from(vec![
                    pg::Ident::new(name),
                ])),
            })
        };
        let ast = if self.eat_keyword("abort") {
            let _ = self.eat_keyword("work") || self.eat_keyword("transaction");
            let chain = self.eat_keywords(&["and", "chain"]);
            let _ = !chain && self.eat_keywords(&["and", "no", "chain"]);
            pg::Statement::Rollback { chain, savepoint: None }
        } else if self.eat_keywords(&["reset", "time", "zone"]) {
            reset("timezone")
        } else if self.eat_keywords(&["reset", "session", "authorization"]) {
            reset("session_authorization")
        } else if self.eat_keywords(&["reset", "transaction", "isolation", "level"]) {
            reset("transaction_isolation")
        } else if self.eat_keywords(&["prepare", "transaction"])
            || self.eat_keywords(&["commit", "prepared"])
            || self.eat_keywords(&["rollback", "prepared"])
        {
            let error =
                ParseError::new(ErrorKind::Unsupported, "two-phase commit is not supported");
            return Err(error.at(self.source.tokens[start].position));
        } else {
            return Ok(None);
        };
        self.expect_end()?;
        Ok(Some(ast))
    }

    /// EXPLAIN of EXPLAIN and PREPARE of PREPARE are no statements, and sqlparser would nest in them without a bound.
    fn check_explained(&self) -> Result<(), ParseError> {
        let mut part = self.fork(self.at, self.end);
        if part.is_keyword(0, "explain") {
            part.explain_options();
        }
        if part.is_keyword(0, "prepare") {
            let query = part.find_outside(part.at, "as").map_or(part.end, |index| index + 1);
            part.at = query;
        }
        // Their bodies nest in the same way, and nothing here would run them.
        if let Some(kind) = ["procedure", "trigger"].iter().find(|kind| {
            part.is_keyword(0, "create") && (1..=3).any(|ahead| part.is_keyword(ahead, kind))
        }) {
            let message = format!("CREATE {} is not supported", kind.to_ascii_uppercase());
            return Err(ParseError::new(ErrorKind::Unsupported, message).at(part.position()));
        }
        let nests =
            part.at > self.at && (part.is_keyword(0, "explain") || part.is_keyword(0, "prepare"));
        if nests { Err(self.source.near(part.at)) } else { Ok(()) }
    }

    fn check_verb(&self) -> Result<(), ParseError> {
        let Some(token) = self.peek(0) else { return Err(self.unexpected()) };
        let Some(verb) = token.keyword().map(str::to_ascii_lowercase) else {
            return if token.token == Token::LParen { Ok(()) } else { Err(self.unexpected()) };
        };
        if VERBS.binary_search(&verb.as_str()).is_ok() {
            return Ok(());
        }
        if UNSUPPORTED_VERBS.contains(&verb.as_str()) {
            let message = format!("{} is not supported", verb.to_ascii_uppercase());
            return Err(ParseError::new(ErrorKind::Unsupported, message).at(token.position));
        }
        let error = self.unexpected();
        match closest(&verb, VERBS.iter().chain(OTHER_VERBS).copied()) {
            Some(near) => {
                Err(error.with_hint(format!("Did you mean {}?", near.to_ascii_uppercase())))
            }
            None => Err(error),
        }
    }

    /// Hands tokens to sqlparser, which must use them all.
    fn run_sqlparser<T>(
        &self,
        tokens: Vec<TokenWithSpan>,
        end: usize,
        parse: impl FnOnce(&mut Parser<'_>) -> Result<T, ParserError>,
    ) -> Result<T, ParseError> {
        let dialect = Postgres::for_tokens(tokens.len());
        let mut parser = Parser::new(&dialect)
            .with_recursion_limit(MAX_DEPTH)
            .with_tokens_with_locations(tokens);
        let parsed = parse(&mut parser);
        let error = match parsed {
            Ok(parsed) => {
                let next = parser.peek_token_ref();
                if next.token == Token::EOF {
                    return Ok(parsed);
                }
                return Err(self.near_location(next.span.start, end));
            }
            Err(error) => error,
        };
        Err(match error {
            ParserError::RecursionLimitExceeded => {
                let mut error =
                    ParseError::new(ErrorKind::TooComplex, "statement is nested too deeply");
                error.position =
                    self.near_location(parser.get_current_token().span.start, end).position;
                error
            }
            // sqlparser tries one rule after another and goes back; only its message knows which token it stumbled over.
            ParserError::ParserError(message) | ParserError::TokenizerError(message) => {
                match location_in(&message) {
                    Some(location) => self.near_location(location, end),
                    None if message.ends_with("found: EOF") => self.source.near(end),
                    None => self.near_location(parser.get_current_token().span.start, end),
                }
            }
        })
    }

    fn near_location(&self, location: Location, end: usize) -> ParseError {
        self.source.near(self.source.index_at(location).unwrap_or(end))
    }
}

/// What stands between a table's name and its query.
struct Header {
    /// The end of what is copied as it is.
    name_end: usize,
    /// The parentheses with the column names.
    columns: Option<std::ops::Range<usize>>,
    /// From there up to the query, AS included.
    clauses: std::ops::Range<usize>,
}

fn sql(ast: pg::Statement, embedded: Vec<Embedded>, with_data: bool) -> Statement {
    Statement::Sql(SqlStatement { ast: Box::new(ast), embedded, with_data })
}

/// `SELECT * FROM`, all in the place of one token.
fn select_from(span: Span, tokens: &mut Vec<TokenWithSpan>) {
    for token in [Token::make_keyword("SELECT"), Token::Mul, Token::make_keyword("FROM")] {
        tokens.push(TokenWithSpan::new(token, span));
    }
}

/// The location at the end of one of sqlparser's messages.
fn location_in(message: &str) -> Option<Location> {
    let (rest, column) = message.rsplit_once(", Column: ")?;
    let (_, line) = rest.rsplit_once(" at Line: ")?;
    Some(Location::new(line.parse().ok()?, column.parse().ok()?))
}
