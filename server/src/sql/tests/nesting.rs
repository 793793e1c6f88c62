//! Row statements wherever a query may stand, and the places of what is found there.

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

use sqlparser::ast::Spanned;

use super::super::{CopyDirection, RowStatement, Statement, parse_query, position_of};
use super::{body_shape, one, parse, shape, sql};

const SEARCH: &str = "SEARCH IMAGE images='a' USING m AS SELECT * FROM t";
const FOUND: &str = "SELECT * FROM {search m: SELECT * FROM t}";

#[test]
fn a_row_statement_stands_wherever_a_query_does() {
    let places = [
        "SELECT * FROM (@)",
        "SELECT * FROM (@) s WHERE s.a > 1 ORDER BY 1 LIMIT 2",
        "SELECT * FROM (@) AS s (a, b)",
        "SELECT * FROM x JOIN (@) AS s ON x.a = s.a",
        "SELECT * FROM x, (@) AS s",
        "SELECT * FROM x LEFT JOIN LATERAL (@) AS s ON true",
        "SELECT * FROM (SELECT * FROM (@) AS s) AS u",
        "SELECT * FROM ((@) AS s JOIN x ON true)",
        "WITH s AS (@) SELECT * FROM s",
        "WITH s AS MATERIALIZED (@), v AS (SELECT 1) SELECT * FROM s, v",
        "SELECT a IN (@) FROM x",
        "SELECT EXISTS (@)",
        "SELECT (SELECT count(*) FROM (@) AS s)",
        "SELECT * FROM x UNION ALL (@)",
        "CREATE TABLE n AS SELECT * FROM (@) AS s",
        "CREATE TABLE n AS (@)",
        "CREATE VIEW v AS SELECT * FROM (@) AS s",
        "INSERT INTO n (a, b) SELECT * FROM (@) AS s",
        "INSERT INTO n (@)",
        "UPDATE n SET a = 1 WHERE b IN (@)",
        "DELETE FROM n WHERE b IN (@)",
        "EXPLAIN SELECT * FROM (@) AS s",
        "PREPARE p AS SELECT * FROM (@) AS s",
    ];
    for place in places {
        let plain = sql(&place.replace('@', "SELECT * FROM hole"));
        let with_search = sql(&place.replace('@', SEARCH));
        assert_eq!(with_search.embedded.len(), 1, "{place}");
        assert_eq!(
            shape(&with_search),
            plain.ast.to_string().replace("SELECT * FROM hole", FOUND),
            "{place}"
        );
        let position = place.find('@').unwrap() + 1;
        assert_eq!(with_search.embedded[0].position, position, "{place}");
    }
}

#[test]
fn a_row_statement_stands_without_parentheses_where_a_whole_query_does() {
    let places = [
        "CREATE TABLE n AS @",
        "CREATE TEMP TABLE IF NOT EXISTS n AS @",
        "CREATE OR REPLACE VIEW v AS @",
        "CREATE VIEW v (a, b) AS @",
        "INSERT INTO n @",
        "INSERT INTO s.n AS x (a, b) @",
        "EXPLAIN @",
        "EXPLAIN ANALYZE VERBOSE @",
        "EXPLAIN (ANALYZE, FORMAT JSON) @",
        "EXPLAIN CREATE TABLE n AS @",
        "PREPARE p (int) AS @",
    ];
    for place in places {
        let plain = sql(&place.replace('@', "SELECT * FROM hole"));
        let with_search = sql(&place.replace('@', SEARCH));
        assert_eq!(
            shape(&with_search),
            plain.ast.to_string().replace("SELECT * FROM hole", FOUND),
            "{place}"
        );
    }
}

#[test]
fn every_row_statement_stands_in_from() {
    let statements = [
        ("CONVERT USING m OPTIONS (result_col='r') AS t", "convert m: SELECT * FROM t"),
        ("PREDICT USING m AS t", "predict m: SELECT * FROM t"),
        ("EVALUATE USING m AS (SELECT * FROM t)", "evaluate m: (SELECT * FROM t)"),
        ("PRINT IMAGE AS t", "print: SELECT * FROM t"),
        ("PRINT IMAGE OPTIONS (limit=1) AS t", "print: SELECT * FROM t"),
        ("SEARCH IMAGE USING m OPTIONS (search_input='a') AS t", "search m: SELECT * FROM t"),
        ("LIST MODEL", "list Models"),
        ("LIST TABLE", "list Tables"),
        ("LIST JOB", "list Jobs"),
        ("LIST THANOSQL DATASET", "list Datasets"),
        ("SHOW JOBS", "show jobs"),
        (
            "FUNCTION compute.groupby_emb_mean OPTIONS (label_col=l) AS t",
            "GroupbyEmbMean: SELECT * FROM t",
        ),
    ];
    for (written, meant) in statements {
        for lower in [false, true] {
            let written = if lower { written.to_lowercase() } else { written.to_owned() };
            let found = sql(&format!("SELECT count(*) FROM ({written}) AS x"));
            assert_eq!(
                shape(&found),
                format!("SELECT count(*) FROM (SELECT * FROM {{{meant}}}) AS x")
            );
        }
    }
}

#[test]
fn row_statements_stand_in_row_statements() {
    let text = "SELECT * FROM (PRINT IMAGE AS (SELECT * FROM (SEARCH IMAGE images='a' USING m AS \
                CONVERT USING n AS (LIST TABLE)) s, (SHOW JOBS) j LIMIT 3)) p, (LIST MODEL) l";
    let found = sql(text);
    assert_eq!(
        shape(&found),
        "SELECT * FROM (SELECT * FROM {print: (SELECT * FROM (SELECT * FROM {search m: SELECT * FROM {convert n: \
         (SELECT * FROM {list Tables})}}) s, (SELECT * FROM {show jobs}) j LIMIT 3)}) p, (SELECT * FROM {list Models}) l"
    );
    let mut names = Vec::new();
    fn collect(embedded: &[super::Embedded], names: &mut Vec<String>) {
        for one in embedded {
            names.push(one.placeholder.clone());
            let body = match &one.statement {
                RowStatement::Print(print) => &print.body,
                RowStatement::Search(search) => &search.body,
                RowStatement::Convert(convert) => &convert.body,
                other => {
                    return assert!(matches!(
                        other,
                        RowStatement::List(_) | RowStatement::ShowJobs
                    ));
                }
            };
            collect(&body.embedded, names);
        }
    }
    collect(&found.embedded, &mut names);
    assert!(names.len() > 2);
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count, "placeholders are unique in the whole statement");
}

#[test]
fn placeholders_avoid_names_of_the_statement() {
    let text =
        format!("SELECT * FROM ({SEARCH}) s, __thanosql_embedded_0, \"____THANOSQL_embedded_x\"");
    assert_eq!(sql(&text).embedded[0].placeholder, "_____thanosql_embedded_0");
    assert_eq!(
        sql(&format!("SELECT * FROM ({SEARCH}) s")).embedded[0].placeholder,
        "__thanosql_embedded_0"
    );
}

#[test]
fn copy_and_cursors_take_row_statements() {
    let Statement::Copy(copy) = one(&format!("COPY ({SEARCH}) TO STDOUT")) else { panic!() };
    let CopyDirection::OutOfQuery(body) = &copy.direction else { panic!("{copy:?}") };
    assert_eq!(body_shape(body), FOUND);
    let Statement::DeclareCursor(cursor) = one(&format!("DECLARE c CURSOR WITH HOLD FOR {SEARCH}"))
    else {
        panic!()
    };
    assert!(cursor.hold);
    assert_eq!(body_shape(&cursor.body), FOUND);
    assert_eq!(body_shape(&parse_query(&format!("{SEARCH} ; ;")).unwrap()), FOUND);
    assert!(parse_query("SELECT 1; SELECT 2").is_err());
    assert!(parse_query("").is_err());
}

#[test]
fn explain_of_statements_without_rows() {
    let explained = [
        "BUILD MODEL m USING SimCLR AS t",
        "FIT MODEL n USING m AS t",
        "DELETE MODEL m",
        "CREATE TABLE t USING m FROM 'f'",
        "COPY t FROM 'f.csv'",
        "GET THANOSQL DATASET digits_data",
        "CANCEL JOB 1",
    ];
    for text in explained {
        let Statement::Explain(explain) = one(&format!("EXPLAIN {text}")) else { panic!("{text}") };
        assert!(!explain.analyze && !explain.verbose);
        let (Statement::Explain(analyze), Statement::Explain(options)) = (
            one(&format!("EXPLAIN ANALYZE VERBOSE {text}")),
            one(&format!("EXPLAIN (VERBOSE, ANALYZE false) {text}")),
        ) else {
            panic!("{text}")
        };
        assert!(analyze.analyze && analyze.verbose);
        assert!(!options.analyze && options.verbose);
    }
}

#[test]
fn spans_of_trees_point_into_the_script() {
    let text = "SELECT 1;\nSELECT '한글', \"열\"\nFROM (CONVERT USING m AS\n  SELECT 그림 FROM 표) WHERE nope = 1";
    let statements = parse(text);
    let Statement::Sql(select) = &statements[1].statement else { panic!() };
    let sqlparser::ast::Statement::Query(query) = select.ast.as_ref() else { panic!() };
    let filter = query.body.as_select().and_then(|select| select.selection.as_ref()).unwrap();
    let position = position_of(filter.span().start, text).unwrap();
    let before: String = text.chars().take(position - 1).collect();
    assert!(text[before.len()..].starts_with("nope"));
    let RowStatement::Convert(convert) = &select.embedded[0].statement else { panic!() };
    let table = &convert.body.query.body.as_select().unwrap().from[0];
    let position = position_of(table.span().start, text).unwrap();
    assert_eq!(text.chars().nth(position - 1), Some('표'));
    assert_eq!(position_of(sqlparser::tokenizer::Location::empty(), text), None);
}
