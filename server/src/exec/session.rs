//! Statements about the session itself: transactions, SET and SHOW, prepared statements, DISCARD.

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

use sqlparser::ast as pg;
use thanosql_protocol::{Closed, Notice, Response, SqlError, SqlState};

use super::Control;
use super::query::text_rows;
use crate::error::unsupported;
use crate::session::ClientSession;
use crate::sql;

impl ClientSession {
    /// BEGIN.
    pub(crate) fn begin(
        &mut self,
        modes: &[pg::TransactionMode],
        control: &Control,
        tag: &str,
    ) -> Result<Response, SqlError> {
        if self.transaction.in_block() {
            control.notices.send(Notice::warning(
                SqlState::ACTIVE_SQL_TRANSACTION,
                "there is already a transaction in progress",
            ));
        }
        if !self.transaction.in_block() {
            self.block_settings = Some(self.settings_now());
        }
        self.transaction.begin();
        self.set_modes(modes, true)?;
        Ok(Response::Done { tag: tag.to_string() })
    }

    fn set_modes(&mut self, modes: &[pg::TransactionMode], local: bool) -> Result<(), SqlError> {
        for mode in modes {
            match mode {
                pg::TransactionMode::AccessMode(access) => {
                    let value = match access {
                        pg::TransactionAccessMode::ReadOnly => "on",
                        pg::TransactionAccessMode::ReadWrite => "off",
                    };
                    let name = if local {
                        "transaction_read_only"
                    } else {
                        "default_transaction_read_only"
                    };
                    self.settings().set(name, value, local)?;
                }
                pg::TransactionMode::IsolationLevel(level) => {
                    let value = level.to_string().to_lowercase();
                    let name = if local {
                        "transaction_isolation"
                    } else {
                        "default_transaction_isolation"
                    };
                    self.settings().set(name, &value, local)?;
                }
            }
        }
        Ok(())
    }

    /// COMMIT.
    pub(crate) fn commit(&mut self, chain: bool, control: &Control) -> Result<Response, SqlError> {
        if !self.transaction.in_block() {
            control.notices.send(no_transaction());
        }
        let outcome = self.transaction.commit();
        self.end_transaction(matches!(outcome, Ok(true)));
        let tag = if outcome? { "COMMIT" } else { "ROLLBACK" };
        if chain {
            self.block_settings = Some(self.settings_now());
            self.transaction.begin();
        }
        Ok(Response::Done { tag: tag.to_string() })
    }

    /// ROLLBACK.
    pub(crate) fn rollback(
        &mut self,
        chain: bool,
        control: &Control,
    ) -> Result<Response, SqlError> {
        if !self.transaction.in_block() {
            control.notices.send(no_transaction());
        }
        self.transaction.rollback();
        self.end_transaction(false);
        if chain {
            self.block_settings = Some(self.settings_now());
            self.transaction.begin();
        }
        Ok(Response::Done { tag: "ROLLBACK".to_string() })
    }

    /// What ends with every transaction, in a block or not: SET LOCAL, savepoints, cursors; after a rollback SET, too.
    pub(crate) fn end_transaction(&mut self, committed: bool) {
        let before = self.block_settings.take();
        self.savepoint_settings.clear();
        self.cursors.end_transaction(committed);
        match before {
            Some(before) if !committed => self.settings().restore(&before),
            Some(_) | None => self.settings().end_transaction(),
        }
    }

    /// SAVEPOINT.
    pub(crate) fn set_savepoint(&mut self, name: &pg::Ident) -> Result<Response, SqlError> {
        self.transaction.set_savepoint(&sql::fold(name))?;
        let settings = self.settings_now();
        self.savepoint_settings.push(settings);
        Ok(Response::Done { tag: "SAVEPOINT".to_string() })
    }

    /// RELEASE.
    pub(crate) fn release_savepoint(&mut self, name: &pg::Ident) -> Result<Response, SqlError> {
        let left = self.transaction.release_savepoint(&sql::fold(name))?;
        self.savepoint_settings.truncate(left);
        self.cursors.release_to(left);
        Ok(Response::Done { tag: "RELEASE".to_string() })
    }

    /// ROLLBACK TO.
    pub(crate) fn rollback_to_savepoint(&mut self, name: &pg::Ident) -> Result<Response, SqlError> {
        let left = self.transaction.rollback_to_savepoint(&sql::fold(name))?;
        self.savepoint_settings.truncate(left);
        self.cursors.roll_back_to(left);
        if let Some(then) = self.savepoint_settings.last() {
            self.settings().restore(then);
        }
        Ok(Response::Done { tag: "ROLLBACK".to_string() })
    }

    /// SET.
    pub(crate) fn set(&mut self, set: &pg::Set, control: &Control) -> Result<Response, SqlError> {
        let done = Ok(Response::Done { tag: "SET".to_string() });
        match set {
            pg::Set::SingleAssignment { scope, variable, values, .. } => {
                let local = matches!(scope, Some(pg::ContextModifier::Local));
                let name = variable.0.iter().map(ToString::to_string).collect::<Vec<_>>().join(".");
                let words: Vec<String> =
                    values.iter().map(setting_text).collect::<Result<_, _>>()?;
                let value = words.join(", ");
                self.set_one(&name, &value, local, control)?;
                done
            }
            pg::Set::SetTimeZone { local, value } => {
                let value = match value {
                    // INTERVAL '+09:00' HOUR TO MINUTE is an offset, as Sequelize writes it.
                    pg::Expr::Interval(interval) => setting_text(&interval.value)?,
                    value => setting_text(value)?,
                };
                self.set_one("TimeZone", &value, *local, control)?;
                done
            }
            pg::Set::SetNames { charset_name, .. } => {
                self.set_one("client_encoding", &charset_name.value, false, control)?;
                done
            }
            pg::Set::SetNamesDefault {} => {
                self.settings().reset("client_encoding")?;
                done
            }
            pg::Set::SetTransaction { modes, session, .. } => {
                self.set_modes(modes, !session)?;
                done
            }
            pg::Set::SetRole { role_name, .. } => match role_name {
                Some(role) if sql::fold(role) != self.client.user => Err(SqlError::new(
                    SqlState::INVALID_PARAMETER_VALUE,
                    format!("role \"{}\" does not exist", sql::fold(role)),
                )),
                Some(_) | None => done,
            },
            pg::Set::SetSessionAuthorization(_) => Err(unsupported("SET SESSION AUTHORIZATION")),
            pg::Set::ParenthesizedAssignments { .. }
            | pg::Set::MultipleAssignments { .. }
            | pg::Set::SetSessionParam(_) => Err(unsupported("this form of SET")),
        }
    }

    fn set_one(
        &mut self,
        name: &str,
        value: &str,
        local: bool,
        control: &Control,
    ) -> Result<(), SqlError> {
        if local && !self.transaction.in_block() {
            control.notices.send(Notice::warning(
                SqlState::NO_ACTIVE_SQL_TRANSACTION,
                "SET LOCAL can only be used in transaction blocks",
            ));
            return Ok(());
        }
        if value.eq_ignore_ascii_case("default") {
            return self.settings().reset(name);
        }
        self.settings().set(name, value, local)
    }

    /// RESET.
    pub(crate) fn reset(&mut self, reset: &pg::Reset) -> Result<Response, SqlError> {
        match reset {
            pg::Reset::ALL => self.settings().reset_all(),
            pg::Reset::ConfigurationParameter(name) => {
                let name = name.0.iter().map(ToString::to_string).collect::<Vec<_>>().join(".");
                self.settings().reset(&name)?;
            }
        }
        Ok(Response::Done { tag: "RESET".to_string() })
    }

    /// SHOW: one setting, or all.
    pub(crate) fn show(&mut self, variable: &[pg::Ident]) -> Result<Response, SqlError> {
        let name = setting_name(variable);
        if name == "all" {
            let list = self.settings().list();
            let columns = [
                ("name", list.iter().map(|setting| setting.name.clone()).collect()),
                ("setting", list.iter().map(|setting| setting.value.clone()).collect()),
                ("description", list.iter().map(|setting| setting.description.clone()).collect()),
            ];
            return Ok(text_rows(&columns, "SHOW"));
        }
        let value = self.settings().get(&name)?;
        Ok(text_rows(&[(name.as_str(), vec![value])], "SHOW"))
    }

    /// DISCARD.
    pub(crate) async fn discard(
        &mut self,
        object: &pg::DiscardObject,
        control: &Control,
    ) -> Result<Response, SqlError> {
        let tag = match object {
            pg::DiscardObject::ALL => {
                self.refuse_in_block("DISCARD ALL")?;
                self.close_cursor(None)?;
                self.drop_temporary(control).await?;
                self.settings().reset_all();
                self.prepared.clear();
                self.closed.push(Closed::AllStatements);
                "DISCARD ALL"
            }
            pg::DiscardObject::PLANS => "DISCARD PLANS",
            pg::DiscardObject::SEQUENCES => "DISCARD SEQUENCES",
            pg::DiscardObject::TEMP => {
                self.drop_temporary(control).await?;
                "DISCARD TEMP"
            }
        };
        Ok(Response::Done { tag: tag.to_string() })
    }

    async fn drop_temporary(&self, control: &Control) -> Result<(), SqlError> {
        for table in self.transaction.snapshot().tables() {
            if table.is_temporary() {
                self.lock(table.name(), control).await?;
                self.transaction.change(|transaction| transaction.drop_table(table.name()))?;
            }
        }
        Ok(())
    }

    /// DEALLOCATE.
    pub(crate) fn deallocate(&mut self, name: &pg::Ident) -> Result<Response, SqlError> {
        if name.quote_style.is_none() && name.value.eq_ignore_ascii_case("all") {
            self.prepared.clear();
            self.closed.push(Closed::AllStatements);
            return Ok(Response::Done { tag: "DEALLOCATE ALL".to_string() });
        }
        let name = sql::fold(name);
        if self.prepared.remove(&name).is_none() {
            // It may be one of the protocol's, whose names are not known here.
            self.closed.push(Closed::Statement(name));
        }
        Ok(Response::Done { tag: "DEALLOCATE".to_string() })
    }
}

/// The name of SHOW's setting: `TRANSACTION ISOLATION LEVEL` and `TIME ZONE` are spelled in words.
pub(crate) fn setting_name(variable: &[pg::Ident]) -> String {
    let words: Vec<String> = variable.iter().map(|word| word.value.to_lowercase()).collect();
    match words.join(" ").as_str() {
        "transaction isolation level" => "transaction_isolation".to_string(),
        "time zone" => "TimeZone".to_string(),
        "session authorization" => "session_authorization".to_string(),
        _ => words.join("."),
    }
}

/// A prepared statement that is not there.
pub(crate) fn missing_prepared(name: &str) -> SqlError {
    SqlError::new(
        SqlState::INVALID_SQL_STATEMENT_NAME,
        format!("prepared statement \"{name}\" does not exist"),
    )
}

fn setting_text(value: &pg::Expr) -> Result<String, SqlError> {
    Ok(match value {
        pg::Expr::Value(value) => match &value.value {
            pg::Value::SingleQuotedString(text) | pg::Value::DoubleQuotedString(text) => {
                text.clone()
            }
            other => other.to_string(),
        },
        pg::Expr::Identifier(ident) => ident.value.clone(),
        pg::Expr::UnaryOp { .. } | pg::Expr::CompoundIdentifier(_) => value.to_string(),
        _ => {
            return Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                format!("\"{value}\" is no value for a setting"),
            ));
        }
    })
}

fn no_transaction() -> Notice {
    Notice::warning(SqlState::NO_ACTIVE_SQL_TRANSACTION, "there is no transaction in progress")
}
