//! Statements that nobody wrote: every ThanoSQL statement with its options dropped, repeated, misspelt and mistyped, nested where
//! rows may nest, with words dropped, doubled and swapped. Each gets an answer or a SQLSTATE other than XX000, the server lives, and
//! an error changes nothing. The options come from the grammar's own tables, so that a new one is tried without a word here.
//!
//! Short by default; `THANOSQL_GENERATED` sets the number of statements, `THANOSQL_SEED` the seed. Both are printed.
//! Preparing, describing and explaining are here, too: they change nothing, whatever the statement.

#![allow(clippy::print_stdout, clippy::unwrap_used)] // counts and seed are part of the result; helpers of tests may end a test

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::time::Duration;

use futures::StreamExt as _;
use thanosql_server::sql::options::{self, OptionKind, OptionSpec};
use thanosql_tests::random::{Random, number};
use thanosql_tests::{TestServer, describe, rows, state_of, value};
use tokio_postgres::Client;

/// How long a statement may take; trainings here see a handful of images.
const PATIENCE: Duration = Duration::from_secs(60);

/// A statement with a place for its options.
struct Form {
    /// Before the options.
    head: &'static str,
    /// After them.
    tail: &'static str,
    /// The options that it takes.
    options: &'static [OptionSpec],
    /// Whether it yields rows, and so may stand in FROM.
    yields_rows: bool,
    /// Options that a valid statement of this form has in any case, to keep it short or to make it whole.
    always: &'static str,
}

const fn rows_form(
    head: &'static str,
    options: &'static [OptionSpec],
    always: &'static str,
    tail: &'static str,
) -> Form {
    Form { head, tail, options, yields_rows: true, always }
}

const fn form(
    head: &'static str,
    options: &'static [OptionSpec],
    always: &'static str,
    tail: &'static str,
) -> Form {
    Form { head, tail, options, yields_rows: false, always }
}

/// Every statement of the language. `$DATA` is the data root.
fn forms() -> Vec<Form> {
    let training = "max_epochs = 1";
    let image = "search_input = '$DATA/digits/test/0.jpg'";
    vec![
        form(
            "BUILD MODEL g USING SimCLR",
            options::BUILD_MODEL,
            training,
            "AS SELECT * FROM d LIMIT 6",
        ),
        form(
            "BUILD MODEL m USING SimCLR",
            options::BUILD_MODEL,
            training,
            "AS ( SELECT * FROM d LIMIT 4 )",
        ),
        form("FIT MODEL g USING m", options::BUILD_MODEL, training, "AS SELECT * FROM d LIMIT 6"),
        form("DELETE MODEL g", &[], "", ""),
        form("DROP MODEL IF EXISTS g", &[], "", ""),
        form("EXPORT MODEL m", options::EXPORT_MODEL, "", "TO '$DATA/out/m.safetensors'"),
        form("UPLOAD MODEL g", options::UPLOAD_MODEL, "", "FROM '$DATA/m.safetensors'"),
        form("SHOW CREATE MODEL m", &[], "", ""),
        form(
            "CREATE TABLE g USING m",
            options::CREATE_TABLE_USING,
            "",
            "FROM '$DATA/digits/test/'",
        ),
        form("COPY g", options::COPY_FILE, "", "FROM '$DATA/digits/digits_dataset.csv'"),
        form("COPY g", options::COPY_FILE, "", "FROM '[{\"a\":1,\"b\":\"x\"}]'"),
        form("GET THANOSQL DATASET mnist_data", options::GET_DATASET, "", ""),
        form("GET THANOSQL MODEL digits", options::GET_MODEL, "", ""),
        form(
            "CREATE INDEX gi ON e USING hnsw ( m_simclr vector_cosine_ops )",
            &[],
            "",
            "WITH ( m = 8 , ef_construction = 32 )",
        ),
        form(
            "CREATE INDEX IF NOT EXISTS gi ON e USING hnsw ( m_simclr vector_l2_ops )",
            &[],
            "",
            "",
        ),
        form("DROP INDEX gi", &[], "", ""),
        form("CANCEL JOB 1", &[], "", ""),
        form("WAIT JOB 1", &[], "", ""),
        rows_form("CONVERT USING m", options::CONVERT, "", "AS SELECT * FROM e LIMIT 3"),
        rows_form(
            "CONVERT USING m",
            options::CONVERT,
            "",
            "AS SELECT img_path , label FROM d LIMIT 3",
        ),
        rows_form(
            "SEARCH IMAGE images = '$DATA/digits/test/0.jpg' USING m",
            options::SEARCH_EVERY_ROW,
            "",
            "AS SELECT * FROM e",
        ),
        rows_form(
            "SEARCH IMAGE images = [ '$DATA/digits/test/0.jpg' , '$DATA/digits/test/1.jpg' ] USING m",
            options::SEARCH_EVERY_ROW,
            "",
            "AS e",
        ),
        rows_form("SEARCH IMAGE USING m", options::SEARCH_BEST, image, "AS SELECT * FROM e"),
        rows_form("PRINT IMAGE", options::PRINT, "", "AS ( SELECT image FROM e LIMIT 2 )"),
        rows_form(
            "PREDICT USING m",
            options::PREDICT,
            "",
            "AS SELECT img_path , label FROM d LIMIT 3",
        ),
        rows_form(
            "EVALUATE USING m",
            options::EVALUATE,
            "",
            "AS SELECT img_path , label FROM d LIMIT 9",
        ),
        rows_form("LIST MODEL", &[], "", ""),
        rows_form("LIST TABLE", &[], "", ""),
        rows_form("LIST JOB", &[], "", ""),
        rows_form("LIST THANOSQL DATASET", &[], "", ""),
        rows_form("LIST THANOSQL MODEL", &[], "", ""),
        rows_form("SHOW JOBS", &[], "", ""),
        rows_form(
            "FUNCTION compute.groupby_emb_mean",
            options::GROUPBY_EMB_MEAN,
            "label_col = 'label' , emb_col = 'm_simclr'",
            "AS SELECT d.label , e.m_simclr FROM d JOIN e ON e.image = d.img_path",
        ),
        rows_form(
            "FUNCTION compute.similarity",
            options::SIMILARITY,
            "src_table = 'e' , emb_col = 'm_simclr' , src_label_col = 'image'",
            "AS SELECT * FROM e LIMIT 4",
        ),
    ]
}

/// What may stand around a statement that yields rows.
const NESTS: &[(&str, &str)] = &[
    ("SELECT * FROM (", ")"),
    ("SELECT count( * ) FROM (", ") x WHERE true"),
    ("WITH w AS (", ") SELECT * FROM w LIMIT 2"),
    ("CREATE TABLE g AS SELECT * FROM (", ") x"),
    ("CREATE VIEW g AS SELECT * FROM (", ") x"),
    ("EXPLAIN", ""),
    ("EXPLAIN SELECT * FROM (", ") x"),
    ("SELECT x.* FROM (", ") x JOIN d ON true LIMIT 1"),
    ("COPY (", ") TO STDOUT"),
    ("PRINT IMAGE AS (", ")"),
    ("INSERT INTO kept SELECT 1 FROM (", ") x"),
];

/// Words that fit nowhere, or anywhere.
const ODD: &[&str] = &[
    "(",
    ")",
    "[",
    "]",
    ",",
    "=",
    "AS",
    "FROM",
    "USING",
    "OPTIONS",
    "NULL",
    "True",
    "None",
    "''",
    "\"\"",
    "-1",
    "1e400",
    "$1",
    "::",
    "'한글'",
    "SELECT",
    "TABLE",
    "IMAGE",
    "*",
    "nothing",
    "d",
    "e",
    "m",
    "99999999999999999999",
    "ARRAY",
    "'\u{7f}'",
];

const COLUMNS: &[&str] =
    &["image", "img_path", "label", "filename", "m_simclr", "nothing", "Image", "", "e", "g"];

/// A value for an option: mostly one that it may have.
fn option_value(random: &mut Random, spec: &OptionSpec) -> String {
    if random.chance(15) {
        let wrong = [
            "'x'",
            "-1",
            "0",
            "1.5",
            "True",
            "None",
            "[ ]",
            "[ 1 , 'a' ]",
            "word",
            "''",
            "1e300",
            "[ [ 1 ] ]",
            "$1",
            "'NaN'",
            "NaN",
            "999999999999999999999",
        ];
        return random.one(&wrong).to_owned();
    }
    match spec.kind {
        OptionKind::Text => match spec.name {
            "device" => "'cpu'".to_owned(),
            "encoder" => random.one(&["'auto'", "'compact'", "'nothing'"]).to_owned(),
            "base_dir" => "'$DATA/digits'".to_owned(),
            "table_name" => "'g'".to_owned(),
            "src_table" => random.one(&["'e'", "'d'", "'nothing'"]).to_owned(),
            _ => format!("'{}'", random.one(COLUMNS)),
        },
        OptionKind::Boolean => random.one(&["True", "False", "'on'", "false"]).to_owned(),
        // Small ones, so that a valid statement is a short one.
        OptionKind::Integer { min, max } => {
            let value = min.saturating_add(
                random.below(4) as i64 * if spec.name == "image_size" { 8 } else { 1 },
            );
            value.min(max).to_string()
        }
        OptionKind::Number { min, max, .. } => {
            format!("{:.3}", (min + 0.01 + random.below(100) as f64 / 100.0).min(max))
        }
        OptionKind::TextList => random
            .one(&["[ '.jpg' ]", "'.png'", "[ 'crop' , 'nothing' ]", "[ ]", "[ 'affine' ]"])
            .to_owned(),
        OptionKind::Word(words) => format!("'{}'", random.one(words)),
        OptionKind::Image => random
            .one(&["'$DATA/digits/test/1.jpg'", "'$DATA/nothing.jpg'", "'/etc/passwd'"])
            .to_owned(),
    }
}

/// A name with a letter changed, lost or doubled.
fn misspelt(random: &mut Random, name: &str) -> String {
    let mut letters: Vec<char> = name.chars().collect();
    let at = random.below(letters.len().max(1));
    if letters.is_empty() {
        return "x".to_owned();
    }
    match random.below(3) {
        0 => letters[at] = 'q',
        1 => drop(letters.remove(at)),
        _ => letters.insert(at, letters[at]),
    }
    letters.into_iter().collect()
}

fn statement(random: &mut Random, forms: &[Form]) -> String {
    let form = &forms[random.below(forms.len())];
    let mut given: Vec<String> = Vec::new();
    let mut always: Vec<&str> =
        form.always.split(" , ").filter(|option| !option.is_empty()).collect();
    if random.chance(5) {
        always.pop();
    }
    given.extend(always.iter().map(|option| (*option).to_owned()));
    if !form.options.is_empty() {
        for _ in 0..random.below(4) {
            let spec = &form.options[random.below(form.options.len())];
            if always.iter().any(|option| option.starts_with(spec.name)) && random.chance(90) {
                continue;
            }
            let alias = spec.aliases.first().copied().unwrap_or(spec.name);
            let name = if random.chance(10) { alias } else { spec.name };
            let name = if random.chance(8) { misspelt(random, name) } else { name.to_owned() };
            given.push(format!("{name} = {}", option_value(random, spec)));
        }
        if random.chance(5)
            && let Some(again) = given.first().cloned()
        {
            given.push(again);
        }
    }
    let options = if given.is_empty() && random.chance(80) {
        String::new()
    } else {
        format!("OPTIONS ( {} )", given.join(" , "))
    };
    let mut text = format!("{} {options} {}", form.head, form.tail);
    if form.yields_rows {
        for _ in 0..random.below(3) {
            let (before, after) = NESTS[random.below(NESTS.len())];
            text = format!("{before} {text} {after}");
        }
    }
    let mut words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    if random.chance(45) {
        for _ in 0..=random.below(2) {
            if words.len() < 2 {
                break;
            }
            let at = random.below(words.len());
            match random.below(6) {
                0 => drop(words.remove(at)),
                1 => words.insert(at, words[at].clone()),
                2 => {
                    let other = random.below(words.len());
                    words.swap(at, other);
                }
                3 => words[at] = random.one(ODD).to_owned(),
                4 => words.insert(at, random.one(ODD).to_owned()),
                // A path stays a path: `$DATA` is put in later.
                _ if !words[at].contains('$') => words[at] = misspelt(random, &words[at].clone()),
                _ => {}
            }
        }
    }
    words.join(" ")
}

/// Everything that an error must leave as it is: tables with their rows, views, models with their versions, and indexes.
async fn catalog(client: &Client) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let tables = "SELECT type || ' ' || name, rows FROM thanosql.tables";
    let models = "SELECT 'model ' || name, version FROM thanosql.models";
    let indexes = "SELECT 'index ' || indexname, indexdef FROM pg_indexes";
    for query in [tables, models, indexes] {
        for row in rows(client, query).await {
            let mut cells = row.into_iter().map(Option::unwrap_or_default);
            found.insert(cells.next().unwrap_or_default(), cells.next().unwrap_or_default());
        }
    }
    found
}

/// Drops what [`catalog`] names so.
async fn drop_all<'a>(client: &Client, names: impl Iterator<Item = &'a String>) {
    for name in names {
        if let Some((kind, name)) = name.split_once(' ') {
            let name = name.replace('"', "\"\"");
            client.simple_query(&format!("DROP {kind} IF EXISTS \"{name}\"")).await.unwrap();
        }
    }
}

/// Drops what there is and makes the tables and the model that the statements name.
async fn set_up(client: &Client, data: &str) {
    drop_all(client, catalog(client).await.keys()).await;
    for statement in [
        "COPY d FROM '$DATA/digits/digits_dataset.csv'",
        "BUILD MODEL m USING SimCLR OPTIONS (max_epochs=1, batch_size=16) AS SELECT * FROM d",
        "CREATE TABLE e USING m FROM '$DATA/digits/train_data'",
        "CREATE TABLE kept (a int)",
    ] {
        client.simple_query(&statement.replace("$DATA", data)).await.unwrap();
    }
}

/// Takes back what a statement has made and makes anew what it has changed. Answers what is there then.
async fn restored(
    client: &Client,
    data: &str,
    base: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let found = catalog(client).await;
    if found == *base {
        return found;
    }
    drop_all(client, found.keys().filter(|name| !base.contains_key(*name))).await;
    let found = catalog(client).await;
    if found == *base {
        return found;
    }
    set_up(client, data).await;
    catalog(client).await
}

/// A training that goes on by itself would change the catalog under a later statement.
async fn wait_for_trainings(client: &Client) {
    let waiting = "SELECT id FROM thanosql.jobs WHERE state IN ('queued', 'running')";
    for job in rows(client, waiting).await {
        let id = job[0].clone().unwrap_or_default();
        let _ = client.simple_query(&format!("WAIT JOB {id}")).await;
    }
}

async fn answer(client: &Client, sql: &str) -> Result<(), tokio_postgres::Error> {
    // The simple protocol of the client library does not take COPY's data.
    if sql.starts_with("COPY (") && sql.contains("STDOUT") {
        let prepared = client.prepare(sql).await?;
        // With a parameter it is sent below, so that the server, not the driver, misses the value.
        if prepared.params().is_empty() {
            let mut data = Box::pin(client.copy_out(&prepared).await?);
            while let Some(piece) = data.next().await {
                piece?;
            }
            return Ok(());
        }
    }
    client.simple_query(sql).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn generated_statements_get_an_answer_or_a_sqlstate() {
    let wanted = number("THANOSQL_GENERATED", 1_500);
    let mut random = Random::from_environment(0x7468_616e_6f73_716c);
    let server = TestServer::start(env!("CARGO_BIN_EXE_thanosql"));
    let data = server.data.display().to_string();
    thanosql_ml::digits::write_dataset(&server.data.join("digits"), 24, 2, 7).unwrap();
    std::fs::create_dir_all(server.data.join("out")).unwrap();
    let mut client = server.connect().await;
    set_up(&client, &data).await;
    let mut before = catalog(&client).await;
    let base = before.clone();
    let forms = forms();
    let mut codes: BTreeMap<String, u64> = BTreeMap::new();
    let mut answered = 0;
    for _ in 0..wanted {
        let sql = statement(&mut random, &forms).replace("$DATA", &data);
        let outcome = tokio::time::timeout(PATIENCE, answer(&client, &sql))
            .await
            .unwrap_or_else(|_| panic!("no answer in time: {sql}"));
        match outcome {
            Ok(()) => {
                answered += 1;
                wait_for_trainings(&client).await;
                before = restored(&client, &data, &base).await;
            }
            Err(error) => {
                let state = state_of(&error);
                assert!(
                    error.as_db_error().is_some() && state != "XX000",
                    "{state} {}: {sql}",
                    describe(&error)
                );
                *codes.entry(state).or_default() += 1;
                if client.is_closed() {
                    client = server.connect().await;
                }
                let after = catalog(&client).await;
                assert_eq!(
                    after,
                    before,
                    "an error changed something: {} for {sql}",
                    describe(&error)
                );
            }
        }
    }
    println!("{wanted} statements: {answered} answered, errors {codes:?}");
    assert!(answered * 10 > wanted, "hardly any statement is a valid one");
    assert!(codes.len() >= 8, "errors of too few kinds: {codes:?}");
}

/// Every file under a folder with its length and what it holds.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.display().to_string(), std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn preparing_describing_and_explaining_change_nothing() {
    let server = TestServer::start(env!("CARGO_BIN_EXE_thanosql"));
    let data = server.data.display().to_string();
    thanosql_ml::digits::write_dataset(&server.data.join("digits"), 24, 2, 7).unwrap();
    std::fs::create_dir_all(server.data.join("out")).unwrap();
    let client = server.connect().await;
    set_up(&client, &data).await;
    client.simple_query(&format!("EXPORT MODEL m TO '{data}/m.safetensors'")).await.unwrap();
    let jobs = "SELECT count(*) FROM thanosql.jobs";
    let (catalog_before, jobs_before) = (catalog(&client).await, value(&client, jobs).await);
    // What the store writes by itself, some time after the last commit, is over.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (data_before, store_before) = (files(&server.data), files(&server.store));
    let mut statements = Vec::new();
    let mut seen = HashSet::new();
    for form in forms() {
        let options = match form.always {
            "" => String::new(),
            given => format!("OPTIONS ({given})"),
        };
        let sql = format!("{} {options} {}", form.head, form.tail).replace("$DATA", &data);
        if seen.insert(sql.clone()) {
            statements.push(sql.clone());
        }
        if form.yields_rows {
            statements.push(format!("CREATE TABLE g AS SELECT * FROM ({sql}) x"));
            statements.push(format!("INSERT INTO kept SELECT 1 FROM ({sql}) x"));
        }
    }
    statements.push(format!(
        "SELECT * FROM (CONVERT USING m OPTIONS (table_name='g') AS SELECT * FROM e) x, (SEARCH IMAGE images='{data}/digits/test/0.jpg' USING m AS e) y"
    ));
    let (mut prepared, mut explained) = (0, 0);
    for sql in &statements {
        // Parse and Describe.
        client.prepare(sql).await.unwrap_or_else(|error| panic!("{sql}: {}", describe(&error)));
        prepared += 1;
        let named = format!("PREPARE p AS {sql}");
        if client.simple_query(&named).await.is_ok() {
            client.simple_query("DEALLOCATE p").await.unwrap();
        }
        match client.simple_query(&format!("EXPLAIN {sql}")).await {
            Ok(_) => explained += 1,
            // Not every statement can be explained, and what would fail says so here already.
            Err(error) => assert!(
                ["0A000", "42601", "42704", "42710", "42P07", "55000"]
                    .contains(&state_of(&error).as_str()),
                "EXPLAIN {sql}: {}",
                describe(&error)
            ),
        }
    }
    println!("{prepared} statements prepared and described, {explained} explained");
    assert!(explained * 2 > prepared, "{explained} of {prepared} can be explained");
    assert_eq!(catalog(&client).await, catalog_before);
    assert_eq!(value(&client, jobs).await, jobs_before);
    assert!(files(&server.data) == data_before, "a file of the data root changed");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(files(&server.store) == store_before, "the store changed");
}
