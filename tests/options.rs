//! The table of options in `docs/options.md` against the grammar's own: every option of every statement is there, with a
//! test that exercises it, and that test names the option.

use std::collections::BTreeSet;
use std::path::Path;

use thanosql_server::sql::options::{self, OptionSpec};

/// The grammar's tables by the heading that a statement has in the document.
const STATEMENTS: &[(&str, &[OptionSpec])] = &[
    ("BUILD MODEL, FIT MODEL", options::BUILD_MODEL),
    ("EXPORT MODEL", options::EXPORT_MODEL),
    ("UPLOAD MODEL", options::UPLOAD_MODEL),
    ("CREATE TABLE USING", options::CREATE_TABLE_USING),
    ("CONVERT", options::CONVERT),
    ("COPY", options::COPY_FILE),
    ("GET THANOSQL DATASET", options::GET_DATASET),
    ("GET THANOSQL MODEL", options::GET_MODEL),
    ("SEARCH IMAGE images=", options::SEARCH_EVERY_ROW),
    ("SEARCH IMAGE ... search_input=", options::SEARCH_BEST),
    ("PRINT IMAGE", options::PRINT),
    ("PREDICT", options::PREDICT),
    ("EVALUATE", options::EVALUATE),
    ("FUNCTION compute.groupby_emb_mean", options::GROUPBY_EMB_MEAN),
    ("FUNCTION compute.similarity", options::SIMILARITY),
];

/// A row of the document's tables: the option with its other names, and the tests.
struct Row {
    names: Vec<String>,
    tests: Vec<String>,
}

/// What stands in backquotes in a cell.
fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn section(document: &str, heading: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut inside = false;
    for line in document.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            inside = title.trim() == heading;
        } else if inside && line.starts_with("| `") {
            let cells: Vec<&str> = line.trim_matches('|').split(" | ").collect();
            let (first, last) = (cells.first().copied(), cells.last().copied());
            rows.push(Row {
                names: quoted(first.unwrap_or_default()),
                tests: quoted(last.unwrap_or_default()),
            });
        }
    }
    rows
}

#[test]
fn options_of_one_name_are_of_one_kind() {
    // A parameter's type is decided by the option's name alone.
    for spec in options::ALL.iter().copied().flatten() {
        for name in std::iter::once(&spec.name).chain(spec.aliases) {
            let kind = options::kind_of(name).unwrap();
            assert_eq!(std::mem::discriminant(&kind), std::mem::discriminant(&spec.kind), "{name}");
        }
    }
}

#[test]
fn every_option_is_documented_and_tested() {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let document = std::fs::read_to_string(root.join("docs/options.md")).unwrap();
    let mut faults = Vec::new();
    let mut checked = 0;
    for (heading, specs) in STATEMENTS {
        let rows = section(&document, heading);
        let documented: BTreeSet<String> =
            rows.iter().flat_map(|row| row.names.iter().cloned()).collect();
        let known: BTreeSet<String> = specs
            .iter()
            .flat_map(|spec| std::iter::once(spec.name).chain(spec.aliases.iter().copied()))
            .map(str::to_owned)
            .collect();
        for name in known.symmetric_difference(&documented) {
            faults
                .push(format!("{heading}: {name} is in one of the grammar and the document only"));
        }
        for row in rows {
            if row.tests.is_empty() {
                faults.push(format!("{heading}: no test for {:?}", row.names));
            }
            for test in &row.tests {
                let text = std::fs::read_to_string(root.join(test)).unwrap_or_default();
                if !row.names.iter().any(|name| text.contains(name.as_str())) {
                    faults.push(format!("{heading}: {test} does not name {:?}", row.names));
                }
                checked += 1;
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(checked >= 60, "only {checked} options were found");
}
