//! COPY: ThanoSQL's, which makes a table of a file, and PostgreSQL's, with its options old and new.
//!
//! sqlparser reads only part of PostgreSQL's COPY and keeps its options untyped, so it is read here. What PostgreSQL refuses
//! is refused in its words; only UTF-8 is an encoding, and programs are never run.

use sqlparser::ast as pg;
use sqlparser::tokenizer::Token;

use super::ast::{
    Copy, CopyColumns, CopyDataFormat, CopyDirection, CopyHeader, CopyTarget, Name, Statement,
};
use super::error::{ErrorKind, ParseError};
use super::source::Tok;
use super::statement::StatementParser;
use super::suggest::closest;

/// The options of `COPY ... WITH (...)`.
const OPTIONS: &[&str] = &[
    "default",
    "delimiter",
    "encoding",
    "escape",
    "force_not_null",
    "force_null",
    "force_quote",
    "format",
    "freeze",
    "header",
    "log_verbosity",
    "null",
    "on_error",
    "quote",
    "reject_limit",
];

impl StatementParser<'_> {
    /// A COPY of either kind, to its end.
    pub(super) fn copy(&mut self) -> Result<Statement, ParseError> {
        self.keyword("copy")?;
        if self.is_token(0, &Token::LParen) {
            return self.copy_query();
        }
        let mut options = CopyOptions::default();
        if self.is_keyword(0, "binary") && !self.is_keyword(1, "from") && !self.is_keyword(1, "to")
        {
            options.set_format(CopyDataFormat::Binary, self.position())?;
            self.at += 1;
        }
        let table = self.object_name()?;
        if self.is_keyword(0, "options") || self.is_copy_of_a_file() {
            return self.copy_file(table);
        }
        let columns = match self.is_token(0, &Token::LParen) {
            true => self.copy_columns()?,
            false => Vec::new(),
        };
        let direction = if self.eat_keyword("from") {
            CopyDirection::Into { table, columns }
        } else {
            self.keyword("to")?;
            CopyDirection::OutOfTable { table, columns }
        };
        self.copy_rest(direction, options)
    }

    /// `FROM 'path'`, or a parameter, with nothing after it.
    fn is_copy_of_a_file(&self) -> bool {
        let is_path = |token: &Tok| token.string().is_some() || token.parameter().is_some();
        self.is_keyword(0, "from") && self.peek(1).is_some_and(is_path) && self.peek(2).is_none()
    }

    fn copy_query(&mut self) -> Result<Statement, ParseError> {
        let open = self.at;
        let outer = self.end;
        let Some(close) = self.source.tokens[open].partner.filter(|close| *close < outer) else {
            self.at = outer;
            return Err(self.unexpected());
        };
        (self.at, self.end) = (open + 1, close);
        let body = self.body()?;
        (self.at, self.end) = (close + 1, outer);
        if changes_rows(&body.query.body) {
            let error = ParseError::new(
                ErrorKind::Unsupported,
                "COPY of a statement that changes rows is not supported",
            );
            return Err(error.at(body.position));
        }
        self.keyword("to")?;
        self.copy_rest(CopyDirection::OutOfQuery(body), CopyOptions::default())
    }

    fn copy_rest(
        &mut self,
        direction: CopyDirection,
        mut options: CopyOptions,
    ) -> Result<Statement, ParseError> {
        let is_from = matches!(direction, CopyDirection::Into { .. });
        let target_position = self.position();
        if self.is_keyword(0, "program") {
            let error =
                ParseError::new(ErrorKind::Unsupported, "COPY with a program is not supported");
            return Err(error.at(target_position));
        }
        let target = if self.eat_keyword("stdin") || self.eat_keyword("stdout") {
            CopyTarget::Client
        } else {
            CopyTarget::File(self.copy_string()?)
        };
        let _ = self.eat_keyword("with");
        if self.is_token(0, &Token::LParen) {
            self.copy_options(&mut options)?;
        } else {
            self.old_copy_options(&mut options)?;
        }
        let filter = match is_from && self.is_keyword(0, "where") {
            true => {
                self.at += 1;
                Some(self.expression()?)
            }
            false => None,
        };
        self.expect_end()?;
        options.check(is_from)?;
        Ok(Statement::Copy(Box::new(Copy {
            direction,
            target,
            target_position,
            format: options.format(),
            delimiter: options.delimiter.map(|(delimiter, _)| delimiter),
            null: options.null.map(|(null, _)| null),
            default: options.default.map(|(default, _)| default),
            header: options.header.map_or(CopyHeader::No, |(header, _)| header),
            quote: options.quote.map(|(quote, _)| quote),
            escape: options.escape.map(|(escape, _)| escape),
            force_quote: options.force_quote.map_or(CopyColumns::None, |(columns, _)| columns),
            force_not_null: options
                .force_not_null
                .map_or(CopyColumns::None, |(columns, _)| columns),
            force_null: options.force_null.map_or(CopyColumns::None, |(columns, _)| columns),
            filter,
        })))
    }

    /// `(FORMAT csv, HEADER, ...)`
    fn copy_options(&mut self, options: &mut CopyOptions) -> Result<(), ParseError> {
        self.token(&Token::LParen)?;
        loop {
            let position = self.position();
            let Some(Tok { token: Token::Word(word), .. }) = self.peek(0) else {
                return Err(self.unexpected());
            };
            let name = word.value.to_ascii_lowercase();
            self.at += 1;
            self.copy_option(&name, position, options)?;
            if !self.eat_token(&Token::Comma) {
                break;
            }
        }
        self.token(&Token::RParen)
    }

    fn copy_option(
        &mut self,
        name: &str,
        position: usize,
        options: &mut CopyOptions,
    ) -> Result<(), ParseError> {
        match name {
            "format" => {
                let value_position = self.position();
                let format = match self.copy_word()?.as_str() {
                    "text" => CopyDataFormat::Text,
                    "csv" => CopyDataFormat::Csv,
                    "binary" => CopyDataFormat::Binary,
                    other => {
                        let message = format!("COPY format \"{other}\" not recognized");
                        return Err(
                            ParseError::new(ErrorKind::InvalidOption, message).at(value_position)
                        );
                    }
                };
                options.set_format(format, position)
            }
            "delimiter" => {
                let delimiter = self.copy_byte("COPY delimiter")?;
                set(&mut options.delimiter, delimiter, position)
            }
            "null" => {
                let null = self.copy_string()?;
                set(&mut options.null, null, position)
            }
            "default" => {
                let default = self.copy_string()?;
                set(&mut options.default, default, position)
            }
            "header" => {
                let header = self.copy_header()?;
                set(&mut options.header, header, position)
            }
            "quote" => {
                let quote = self.copy_byte("COPY quote")?;
                set(&mut options.quote, quote, position)
            }
            "escape" => {
                let escape = self.copy_byte("COPY escape")?;
                set(&mut options.escape, escape, position)
            }
            "force_quote" => {
                let columns = self.copy_forced()?;
                set(&mut options.force_quote, columns, position)
            }
            "force_not_null" => {
                let columns = self.copy_forced()?;
                set(&mut options.force_not_null, columns, position)
            }
            "force_null" => {
                let columns = self.copy_forced()?;
                set(&mut options.force_null, columns, position)
            }
            "encoding" => self.copy_encoding(),
            // Only a promise about visibility, which every COPY keeps anyway.
            "freeze" => self.copy_boolean().map(drop),
            "log_verbosity" => self.copy_word().map(drop),
            "on_error" => {
                let value_position = self.position();
                match self.copy_word()?.as_str() {
                    "stop" => Ok(()),
                    "ignore" => Err(ParseError::new(
                        ErrorKind::Unsupported,
                        "COPY ON_ERROR ignore is not supported",
                    )
                    .at(value_position)),
                    other => {
                        let message = format!("COPY ON_ERROR \"{other}\" not recognized");
                        Err(ParseError::new(ErrorKind::InvalidOption, message).at(value_position))
                    }
                }
            }
            other => {
                let error = ParseError::new(
                    ErrorKind::Syntax,
                    format!("option \"{other}\" not recognized"),
                )
                .at(position);
                Err(match closest(other, OPTIONS.iter().copied()) {
                    Some(near) => {
                        error.with_hint(format!("Did you mean {}?", near.to_ascii_uppercase()))
                    }
                    None => error,
                })
            }
        }
    }

    /// `CSV HEADER DELIMITER AS ',' ...`, as before PostgreSQL 9.
    fn old_copy_options(&mut self, options: &mut CopyOptions) -> Result<(), ParseError> {
        loop {
            let position = self.position();
            if self.eat_keyword("binary") {
                options.set_format(CopyDataFormat::Binary, position)?;
            } else if self.eat_keyword("csv") {
                options.set_format(CopyDataFormat::Csv, position)?;
            } else if self.eat_keyword("header") {
                set(&mut options.header, CopyHeader::Yes, position)?;
            } else if self.eat_keyword("freeze") {
            } else if self.eat_keyword("delimiter") || self.eat_keywords(&["using", "delimiters"]) {
                let _ = self.eat_keyword("as");
                let delimiter = self.copy_byte("COPY delimiter")?;
                set(&mut options.delimiter, delimiter, position)?;
            } else if self.eat_keyword("null") {
                let _ = self.eat_keyword("as");
                let null = self.copy_string()?;
                set(&mut options.null, null, position)?;
            } else if self.eat_keyword("quote") {
                let _ = self.eat_keyword("as");
                let quote = self.copy_byte("COPY quote")?;
                set(&mut options.quote, quote, position)?;
            } else if self.eat_keyword("escape") {
                let _ = self.eat_keyword("as");
                let escape = self.copy_byte("COPY escape")?;
                set(&mut options.escape, escape, position)?;
            } else if self.eat_keywords(&["force", "quote"]) {
                let columns = self.copy_old_forced()?;
                set(&mut options.force_quote, columns, position)?;
            } else if self.eat_keywords(&["force", "not", "null"]) {
                let columns = self.copy_old_forced()?;
                set(&mut options.force_not_null, columns, position)?;
            } else if self.eat_keywords(&["force", "null"]) {
                let columns = self.copy_old_forced()?;
                set(&mut options.force_null, columns, position)?;
            } else if self.eat_keyword("encoding") {
                self.copy_encoding()?;
            } else {
                return Ok(());
            }
        }
    }

    fn copy_columns(&mut self) -> Result<Vec<Name>, ParseError> {
        self.token(&Token::LParen)?;
        let mut columns = vec![self.name()?];
        while self.eat_token(&Token::Comma) {
            columns.push(self.name()?);
        }
        self.token(&Token::RParen)?;
        Ok(columns)
    }

    fn copy_forced(&mut self) -> Result<CopyColumns, ParseError> {
        if self.eat_token(&Token::Mul) {
            return Ok(CopyColumns::All);
        }
        Ok(CopyColumns::Named(self.copy_columns()?))
    }

    fn copy_old_forced(&mut self) -> Result<CopyColumns, ParseError> {
        if self.eat_token(&Token::Mul) {
            return Ok(CopyColumns::All);
        }
        let mut columns = vec![self.name()?];
        while self.eat_token(&Token::Comma) {
            columns.push(self.name()?);
        }
        Ok(CopyColumns::Named(columns))
    }

    fn copy_header(&mut self) -> Result<CopyHeader, ParseError> {
        if self.is_keyword(0, "match") {
            self.at += 1;
            return Ok(CopyHeader::Match);
        }
        Ok(match self.copy_boolean()? {
            true => CopyHeader::Yes,
            false => CopyHeader::No,
        })
    }

    /// A boolean; none at all is true.
    fn copy_boolean(&mut self) -> Result<bool, ParseError> {
        if self.is_token(0, &Token::Comma) || self.is_token(0, &Token::RParen) {
            return Ok(true);
        }
        let Some(token) = self.peek(0) else { return Err(self.unexpected()) };
        let text = token.number().or(token.keyword()).or(token.string());
        let value = match text.map(str::to_ascii_lowercase).as_deref() {
            Some("true" | "on" | "1") => true,
            Some("false" | "off" | "0") => false,
            Some(_) | None => return Err(self.unexpected()),
        };
        self.at += 1;
        Ok(value)
    }

    fn copy_string(&mut self) -> Result<String, ParseError> {
        let text = self.peek(0).and_then(Tok::string);
        let Some(text) = text.map(str::to_owned) else { return Err(self.unexpected()) };
        self.at += 1;
        Ok(text)
    }

    /// A word, in quotes or not, in lower case.
    fn copy_word(&mut self) -> Result<String, ParseError> {
        if let Some(Tok { token: Token::Word(word), .. }) = self.peek(0) {
            self.at += 1;
            return Ok(word.value.to_ascii_lowercase());
        }
        Ok(self.copy_string()?.to_ascii_lowercase())
    }

    fn copy_byte(&mut self, what: &str) -> Result<char, ParseError> {
        let position = self.position();
        let text = self.copy_string()?;
        let mut chars = text.chars();
        match (chars.next(), chars.next()) {
            (Some('\n' | '\r'), None) => {
                let message = format!("{what} cannot be newline or carriage return");
                Err(ParseError::new(ErrorKind::InvalidOption, message).at(position))
            }
            (Some(byte), None) if byte.is_ascii() => Ok(byte),
            _ => {
                let message = format!("{what} must be a single one-byte character");
                Err(ParseError::new(ErrorKind::Unsupported, message).at(position))
            }
        }
    }

    fn copy_encoding(&mut self) -> Result<(), ParseError> {
        let position = self.position();
        let encoding = self.copy_string()?;
        if ["utf8", "utf-8", "unicode"].iter().any(|utf8| encoding.eq_ignore_ascii_case(utf8)) {
            return Ok(());
        }
        let error = ParseError::new(
            ErrorKind::Unsupported,
            format!("encoding \"{encoding}\" is not supported"),
        );
        Err(error.with_hint("Data is read and written in UTF8.").at(position))
    }
}

/// The options as they were given, each with its place.
#[derive(Default)]
struct CopyOptions {
    format: Option<(CopyDataFormat, usize)>,
    delimiter: Option<(char, usize)>,
    null: Option<(String, usize)>,
    default: Option<(String, usize)>,
    header: Option<(CopyHeader, usize)>,
    quote: Option<(char, usize)>,
    escape: Option<(char, usize)>,
    force_quote: Option<(CopyColumns, usize)>,
    force_not_null: Option<(CopyColumns, usize)>,
    force_null: Option<(CopyColumns, usize)>,
}

fn set<T>(option: &mut Option<(T, usize)>, value: T, position: usize) -> Result<(), ParseError> {
    if option.is_some() {
        return Err(
            ParseError::new(ErrorKind::Syntax, "conflicting or redundant options").at(position)
        );
    }
    *option = Some((value, position));
    Ok(())
}

impl CopyOptions {
    fn set_format(&mut self, format: CopyDataFormat, position: usize) -> Result<(), ParseError> {
        set(&mut self.format, format, position)
    }

    fn format(&self) -> CopyDataFormat {
        self.format.map_or(CopyDataFormat::Text, |(format, _)| format)
    }

    /// Options that do not go together.
    fn check(&self, is_from: bool) -> Result<(), ParseError> {
        fn place<T>(option: &Option<(T, usize)>) -> Option<usize> {
            option.as_ref().map(|(_, position)| *position)
        }
        let refuse = |position: usize, kind: ErrorKind, message: String| {
            Err(ParseError::new(kind, message).at(position))
        };
        let format = self.format();
        let everywhere_but_binary = [
            ("DELIMITER", place(&self.delimiter)),
            ("NULL", place(&self.null)),
            ("DEFAULT", place(&self.default)),
            ("HEADER", place(&self.header)),
        ];
        if format == CopyDataFormat::Binary
            && let Some((name, Some(position))) =
                everywhere_but_binary.iter().find(|(_, place)| place.is_some())
        {
            return refuse(
                *position,
                ErrorKind::Syntax,
                format!("cannot specify {name} in BINARY mode"),
            );
        }
        let csv_only = [
            ("QUOTE", place(&self.quote)),
            ("ESCAPE", place(&self.escape)),
            ("FORCE_QUOTE", place(&self.force_quote)),
            ("FORCE_NOT_NULL", place(&self.force_not_null)),
            ("FORCE_NULL", place(&self.force_null)),
        ];
        if format != CopyDataFormat::Csv
            && let Some((name, Some(position))) = csv_only.iter().find(|(_, place)| place.is_some())
        {
            return refuse(
                *position,
                ErrorKind::Unsupported,
                format!("COPY {name} requires CSV mode"),
            );
        }
        let other_way = match is_from {
            true => [("FORCE_QUOTE", place(&self.force_quote)), ("", None), ("", None)],
            false => [
                ("FORCE_NOT_NULL", place(&self.force_not_null)),
                ("FORCE_NULL", place(&self.force_null)),
                ("DEFAULT", place(&self.default)),
            ],
        };
        if let Some((name, Some(position))) = other_way.iter().find(|(_, place)| place.is_some()) {
            let way = if is_from { "COPY FROM" } else { "COPY TO" };
            return refuse(
                *position,
                ErrorKind::Unsupported,
                format!("COPY {name} cannot be used with {way}"),
            );
        }
        if let (false, Some((CopyHeader::Match, position))) = (is_from, &self.header) {
            return refuse(
                *position,
                ErrorKind::Unsupported,
                "cannot use \"match\" with HEADER in COPY TO".to_owned(),
            );
        }
        let delimiter = self
            .delimiter
            .map_or(if format == CopyDataFormat::Csv { ',' } else { '\t' }, |(ch, _)| ch);
        let position =
            place(&self.delimiter).or(place(&self.quote)).or(place(&self.null)).unwrap_or(1);
        if format == CopyDataFormat::Csv && delimiter == self.quote.map_or('"', |(quote, _)| quote)
        {
            let message = "COPY delimiter and quote must be different";
            return refuse(position, ErrorKind::InvalidOption, message.to_owned());
        }
        // In text, a backslash starts an escape, and letters and digits may follow one.
        if format == CopyDataFormat::Text
            && (delimiter.is_ascii_lowercase()
                || delimiter.is_ascii_digit()
                || "\\.".contains(delimiter))
        {
            let message = format!("COPY delimiter cannot be \"{delimiter}\"");
            return refuse(position, ErrorKind::InvalidOption, message);
        }
        let null = self
            .null
            .as_ref()
            .map_or(if format == CopyDataFormat::Csv { "" } else { "\\N" }, |(null, _)| {
                null.as_str()
            });
        if let Some((default, position)) = &self.default
            && default == null
        {
            let message = "NULL specification and DEFAULT specification cannot be the same";
            return refuse(*position, ErrorKind::InvalidOption, message.to_owned());
        }
        for (name, text) in [("null", &self.null), ("default", &self.default)] {
            let Some((text, position)) = text else { continue };
            if text.contains(['\n', '\r']) {
                let message =
                    format!("COPY {name} representation cannot use newline or carriage return");
                return refuse(*position, ErrorKind::InvalidOption, message);
            }
            if text.contains(delimiter) {
                let message = format!(
                    "COPY delimiter character must not appear in the {} specification",
                    name.to_uppercase()
                );
                return refuse(*position, ErrorKind::InvalidOption, message);
            }
        }
        Ok(())
    }
}

fn changes_rows(body: &pg::SetExpr) -> bool {
    use pg::SetExpr::{Delete, Insert, Merge, Update};
    matches!(body, Insert(_) | Update(_) | Delete(_) | Merge(_))
}
