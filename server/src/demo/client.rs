//! The demo's connection: statements over the simple protocol, notices as progress.
//!
//! On a terminal the notices of a training move a bar; elsewhere they are printed as psql prints them.

use std::future::poll_fn;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::time::Duration;

use futures::TryStreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::mpsc;
use tokio_postgres::error::DbError;
use tokio_postgres::{AsyncMessage, NoTls, SimpleQueryMessage};

use super::DemoError;
use super::table::Answer;

/// The bar's length; a training's progress is mapped onto it.
const BAR_LENGTH: u64 = 1_000;

pub(super) struct Client {
    client: tokio_postgres::Client,
    notices: mpsc::UnboundedReceiver<DbError>,
}

impl Client {
    pub(super) async fn connect(address: SocketAddr) -> Result<Client, DemoError> {
        let (client, mut connection) = tokio_postgres::Config::new()
            .host(address.ip().to_string())
            .port(address.port())
            .user("demo")
            .dbname("demo")
            .application_name("thanosql demo")
            .connect(NoTls)
            .await
            .map_err(DemoError::Connection)?;
        // A training sends a notice every two seconds: nothing that needs a bound.
        let (sender, notices) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
                match message {
                    Ok(AsyncMessage::Notice(notice)) => {
                        if sender.send(notice).is_err() {
                            return;
                        }
                    }
                    Ok(_) => {}
                    // The statement under way fails with the same cause.
                    Err(_) => return,
                }
            }
        });
        Ok(Client { client, notices })
    }

    /// Runs one statement and collects its answer.
    pub(super) async fn run(&mut self, statement: &str) -> Result<Answer, DemoError> {
        let mut progress = Progress::start();
        let answer = {
            let query = collect(&self.client, statement);
            tokio::pin!(query);
            loop {
                tokio::select! {
                    biased;
                    Some(notice) = self.notices.recv() => progress.notice(&notice),
                    answer = &mut query => break answer,
                }
            }
        };
        while let Ok(notice) = self.notices.try_recv() {
            progress.notice(&notice);
        }
        progress.end();
        answer
    }
}

async fn collect(client: &tokio_postgres::Client, statement: &str) -> Result<Answer, DemoError> {
    let refused = |source: tokio_postgres::Error| match source.as_db_error() {
        Some(error) => DemoError::Statement { message: error_text(error), source },
        None => DemoError::Connection(source),
    };
    let stream = client.simple_query_raw(statement).await.map_err(refused)?;
    tokio::pin!(stream);
    let mut answer = Answer::default();
    while let Some(message) = stream.try_next().await.map_err(refused)? {
        match message {
            SimpleQueryMessage::RowDescription(columns) => {
                answer.columns = columns.iter().map(|column| column.name().to_owned()).collect();
            }
            SimpleQueryMessage::Row(row) => {
                let cells = (0..row.len()).map(|column| row.get(column).map(str::to_owned));
                answer.rows.push(cells.collect());
            }
            SimpleQueryMessage::CommandComplete(rows) => answer.affected = rows,
            // The enum may grow; nothing else is shown.
            _ => {}
        }
    }
    Ok(answer)
}

/// An error as psql prints it.
fn error_text(error: &DbError) -> String {
    let mut text = format!("{}:  {} ({})", error.severity(), error.message(), error.code().code());
    for (name, part) in [("DETAIL", error.detail()), ("HINT", error.hint())] {
        if let Some(part) = part {
            text.push_str(&format!("\n{name}:  {part}"));
        }
    }
    text
}

/// What is shown while a statement runs.
enum Progress {
    Bar(ProgressBar),
    Lines,
}

impl Progress {
    fn start() -> Progress {
        if !std::io::stderr().is_terminal() {
            return Progress::Lines;
        }
        let bar = ProgressBar::new(BAR_LENGTH);
        // The template is a constant; without it the plain bar does.
        if let Ok(style) = ProgressStyle::with_template("{spinner} [{elapsed}] {bar:30} {msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        Progress::Bar(bar)
    }

    fn notice(&mut self, notice: &DbError) {
        let message = notice.message();
        match self {
            Progress::Bar(bar) => {
                if let Some(share) = share_done(message) {
                    bar.set_position((share * BAR_LENGTH as f64) as u64);
                    bar.set_message(message.to_owned());
                } else {
                    bar.println(format!("{}:  {message}", notice.severity()));
                }
            }
            Progress::Lines => {
                // Progress that cannot be shown is no reason to stop.
                let _ = writeln!(std::io::stderr(), "{}:  {message}", notice.severity());
            }
        }
    }

    fn end(self) {
        if let Progress::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

/// How much of a training is done, read off its notice: `epoch 2/5, step 31/156, ...`.
fn share_done(message: &str) -> Option<f64> {
    let mut parts = message.split(", ");
    let part = |text: &str, name: &str| -> Option<(f64, f64)> {
        let (done, all) = text.strip_prefix(name)?.trim().split_once('/')?;
        Some((done.parse().ok()?, all.parse().ok().filter(|all| *all > 0.0)?))
    };
    let (epoch, epochs) = part(parts.next()?, "epoch")?;
    let (step, steps) = part(parts.next()?, "step")?;
    Some(((epoch - 1.0 + step / steps) / epochs).clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_tells_how_much_is_done() {
        assert_eq!(share_done("epoch 2/5, step 31/62, loss 3.21"), Some(0.3));
        assert_eq!(share_done("epoch 5/5, step 62/62"), Some(1.0));
        assert_eq!(share_done("epoch 2/5 done, loss 3.21"), None);
        assert_eq!(share_done("epoch 1/5, step 1/0"), None);
        assert_eq!(share_done("job 3 waits for the device cpu"), None);
    }
}
