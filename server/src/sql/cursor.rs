//! Cursors, and the statements that look after tables: PostgreSQL's grammar where sqlparser's is too narrow.

use sqlparser::tokenizer::Token;

use super::ast::{
    DeclareCursor, Fetch, FetchDirection, Maintenance, MaintenanceCommand, Statement,
};
use super::error::ParseError;
use super::source::Tok;
use super::statement::StatementParser;

impl StatementParser<'_> {
    /// `DECLARE name [BINARY] [ASENSITIVE | INSENSITIVE] [[NO] SCROLL] CURSOR [WITH | WITHOUT HOLD] FOR query`
    pub(super) fn declare_cursor(&mut self) -> Result<Statement, ParseError> {
        self.keyword("declare")?;
        let name = self.name()?;
        let (mut binary, mut scroll) = (false, None);
        loop {
            if self.eat_keyword("binary") {
                binary = true;
            } else if self.eat_keywords(&["no", "scroll"]) {
                scroll = Some(false);
            } else if self.eat_keyword("scroll") {
                scroll = Some(true);
            } else if !(self.eat_keyword("insensitive") || self.eat_keyword("asensitive")) {
                break;
            }
        }
        self.keyword("cursor")?;
        let hold = self.eat_keywords(&["with", "hold"]);
        let _ = !hold && self.eat_keywords(&["without", "hold"]);
        self.keyword("for")?;
        let body = self.body()?;
        Ok(Statement::DeclareCursor(DeclareCursor { name, binary, hold, scroll, body }))
    }

    /// `FETCH [direction] [FROM | IN] name`, and MOVE.
    pub(super) fn fetch(&mut self) -> Result<Statement, ParseError> {
        let moves = self.is_keyword(0, "move");
        self.at += 1;
        let direction = self.fetch_direction()?;
        let _ = self.eat_keyword("from") || self.eat_keyword("in");
        let cursor = self.name()?;
        Ok(Statement::Fetch(Fetch { cursor, direction, moves }))
    }

    fn fetch_direction(&mut self) -> Result<FetchDirection, ParseError> {
        // A lone word is a cursor, even one called `next`.
        if self.peek(1).is_none() {
            return Ok(FetchDirection::Forward(1));
        }
        let single = [
            ("next", FetchDirection::Forward(1)),
            ("prior", FetchDirection::Forward(-1)),
            ("first", FetchDirection::Absolute(1)),
            ("last", FetchDirection::Absolute(-1)),
            ("all", FetchDirection::ForwardAll),
        ];
        for (word, direction) in single {
            if self.eat_keyword(word) {
                return Ok(direction);
            }
        }
        if self.eat_keyword("absolute") {
            return Ok(FetchDirection::Absolute(self.signed_integer()?));
        }
        if self.eat_keyword("relative") {
            return Ok(FetchDirection::Relative(self.signed_integer()?));
        }
        let backward = self.is_keyword(0, "backward");
        if self.eat_keyword("forward") || self.eat_keyword("backward") {
            if self.eat_keyword("all") {
                return Ok(if backward {
                    FetchDirection::BackwardAll
                } else {
                    FetchDirection::ForwardAll
                });
            }
            let count = if self.starts_integer() { self.signed_integer()? } else { 1 };
            return Ok(FetchDirection::Forward(if backward {
                count.saturating_neg()
            } else {
                count
            }));
        }
        if self.starts_integer() {
            return Ok(FetchDirection::Forward(self.signed_integer()?));
        }
        Ok(FetchDirection::Forward(1))
    }

    fn starts_integer(&self) -> bool {
        self.is_token(0, &Token::Minus)
            || self.is_token(0, &Token::Plus)
            || self.peek(0).and_then(Tok::number).is_some()
    }

    fn signed_integer(&mut self) -> Result<i64, ParseError> {
        let negative = self.eat_token(&Token::Minus);
        let _ = !negative && self.eat_token(&Token::Plus);
        let number =
            self.peek(0).and_then(Tok::number).and_then(|number| number.parse::<i64>().ok());
        let Some(number) = number else { return Err(self.unexpected()) };
        self.at += 1;
        Ok(if negative { -number } else { number })
    }

    /// `CLOSE name` or `CLOSE ALL`.
    pub(super) fn close_cursor(&mut self) -> Result<Statement, ParseError> {
        self.keyword("close")?;
        if self.eat_keyword("all") {
            return Ok(Statement::CloseCursor(None));
        }
        Ok(Statement::CloseCursor(Some(self.name()?)))
    }

    /// VACUUM, ANALYZE, CHECKPOINT, CLUSTER and REINDEX, with the options that PostgreSQL takes.
    pub(super) fn maintenance(&mut self, verb: &str) -> Result<Statement, ParseError> {
        self.at += 1;
        let mut full = false;
        if self.is_token(0, &Token::LParen)
            && let Some(close) = self.peek(0).and_then(|open| open.partner)
        {
            full = (self.at..close).any(|index| self.source.tokens[index].is_keyword("full"));
            self.at = close + 1;
        }
        loop {
            if self.eat_keyword("full") {
                full = true;
            } else if !["freeze", "verbose", "analyze", "analyse", "concurrently"]
                .iter()
                .any(|word| self.eat_keyword(word))
            {
                break;
            }
        }
        let command = match verb {
            "vacuum" => MaintenanceCommand::Vacuum { full },
            "checkpoint" => MaintenanceCommand::Checkpoint,
            "cluster" => MaintenanceCommand::Cluster,
            "reindex" => {
                let whole =
                    ["schema", "database", "system"].iter().any(|what| self.eat_keyword(what));
                if whole {
                    self.at = self.end;
                } else if !self.eat_keyword("table") {
                    self.keyword("index")?;
                }
                let _ = self.eat_keyword("concurrently");
                MaintenanceCommand::Reindex
            }
            _ => MaintenanceCommand::Analyze,
        };
        let mut tables = Vec::new();
        while self.at < self.end && command != MaintenanceCommand::Checkpoint {
            tables.push(self.object_name()?);
            // `ANALYZE t (a, b)`, `CLUSTER t USING i`
            if self.is_token(0, &Token::LParen)
                && let Some(close) = self.peek(0).and_then(|open| open.partner)
            {
                self.at = close + 1;
            }
            if command == MaintenanceCommand::Cluster && self.eat_keyword("using") {
                self.name()?;
            }
            if !self.eat_token(&Token::Comma) {
                break;
            }
        }
        Ok(Statement::Maintenance(Maintenance { command, tables }))
    }
}
