//! PostgreSQL's SQL passes as it is, whatever its tables and columns are called.

use super::super::{
    CopyColumns, CopyDataFormat, CopyDirection, CopyHeader, CopyTarget, FetchDirection,
    MaintenanceCommand, Statement, fold, parse_script,
};
use super::{one, parse, shape, sql};

#[test]
fn words_of_thanosql_are_names_in_postgres() {
    let statements = [
        "SELECT convert, search, list, print, function, model, job, image FROM model, job AS jobs",
        "SELECT convert('a', 'b'), list(1), search FROM convert JOIN search USING(id)",
        "SELECT * FROM (list JOIN model ON true)",
        "SELECT * FROM (search AS image JOIN b USING(a))",
        "CREATE TABLE model (search INT, list TEXT, print TEXT, convert BIGINT)",
        "INSERT INTO model (search, list) VALUES (1, 'a')",
        "DELETE FROM model WHERE job = 1",
        "DROP TABLE model",
        "UPDATE model SET search = 1",
        "SELECT model.name FROM model",
        "CREATE VIEW v AS SELECT * FROM a JOIN b AS convert USING(id)",
        "INSERT INTO t SELECT * FROM a JOIN b convert USING(id)",
        "SELECT a AS build, b AS fit, c AS options FROM t AS upload",
        "CREATE INDEX i ON t USING hnsw (e vector_cosine_ops) WITH (m = 16)",
    ];
    for text in statements {
        let parsed = sql(text);
        assert!(parsed.embedded.is_empty(), "{text}");
        assert_eq!(shape(&parsed), text);
    }
}

#[test]
fn what_clients_send_at_connect() {
    let statements = [
        "SET extra_float_digits = 3",
        "SET DateStyle='ISO'",
        "SET client_encoding TO 'UTF8'",
        "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED",
        "SET search_path TO \"$user\", public",
        "SET TIME ZONE 'UTC'",
        "SET LOCAL a.b = 'c'",
        "SHOW TRANSACTION ISOLATION LEVEL",
        "SHOW ALL",
        "show standard_conforming_strings",
        "select pg_catalog.version()",
        "SELECT pg_advisory_unlock_all()",
        "UNLISTEN *",
        "RESET ALL",
        "DISCARD ALL",
        "DEALLOCATE ALL",
        "BEGIN",
        "BEGIN TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE",
        "BEGIN NOT DEFERRABLE",
        "START TRANSACTION READ WRITE",
        "COMMIT AND CHAIN",
        "END WORK",
        "ROLLBACK TO SAVEPOINT a",
        "RELEASE a",
        "SELECT a OPERATOR(pg_catalog.~) 'x' COLLATE pg_catalog.default",
        "SELECT (information_schema._pg_expandarray(con.conkey)).n FROM pg_constraint AS con",
        "SELECT typinput = 'pg_catalog.array_in'::regproc, ARRAY(SELECT 1)",
    ];
    for text in statements {
        assert!(matches!(one(text), Statement::Sql(_)), "{text}");
    }
    assert!(parse("-- ping").is_empty());
    assert!(parse("").is_empty());
    assert!(parse(" ; ;; /* ; */ ").is_empty());
    assert_eq!(
        parse("SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL;").len(),
        4
    );
}

#[test]
fn other_words_for_what_sqlparser_has() {
    let same = [
        ("ABORT", "ROLLBACK"),
        ("ABORT TRANSACTION AND CHAIN", "ROLLBACK AND CHAIN"),
        ("RESET TIME ZONE", "RESET timezone"),
        ("RESET SESSION AUTHORIZATION", "RESET session_authorization"),
        ("TABLE t", "SELECT * FROM t"),
        ("TABLE t ORDER BY 1 LIMIT 2", "SELECT * FROM t ORDER BY 1 LIMIT 2"),
        ("SELECT 1 UNION ALL TABLE t", "SELECT 1 UNION ALL SELECT * FROM t"),
        ("CREATE TABLE a AS TABLE b", "CREATE TABLE a AS SELECT * FROM b"),
        ("CREATE TABLE a USING heap AS SELECT 1", "CREATE TABLE a AS SELECT 1"),
        ("CREATE TABLE a (b INT) USING heap", "CREATE TABLE a (b INT)"),
        ("BEGIN DEFERRABLE, READ ONLY", "BEGIN READ ONLY"),
        ("SELECT 'a'\n'b'", "SELECT 'ab'"),
        ("SELECT 'a' -- c\n 'b'", "SELECT 'ab'"),
    ];
    for (written, meant) in same {
        assert_eq!(shape(&sql(written)), meant, "{written}");
    }
    let named = sql("CREATE TABLE n (a, \"B\") AS VALUES (1, 2) WITH NO DATA");
    assert_eq!(
        shape(&named),
        "CREATE TABLE n AS SELECT * FROM (VALUES (1, 2)) __thanosql_embedded_columns (a, \"B\")"
    );
    assert!(!named.with_data);
    assert!(sql("CREATE TABLE n AS SELECT 1 WITH DATA").with_data);
}

#[test]
fn operators_end_where_postgres_ends_them() {
    let same = [
        ("SELECT a>-1", "SELECT a > -1"),
        ("SELECT a>=-1, a<>-1, a||-1, a<=>-b", "SELECT a >= -1, a <> -1, a || -1, a <=> -b"),
        ("SELECT a>--comment\n1", "SELECT a > 1"),
        ("SELECT a>/* comment */1", "SELECT a > 1"),
        ("SELECT a<->'[1]', a<#>'[1]'", "SELECT a <-> '[1]', a <#> '[1]'"),
        ("SELECT a<+>'[1]', a < +1", "SELECT a <+> '[1]', a < +1"),
    ];
    for (written, meant) in same {
        assert_eq!(shape(&sql(written)), meant);
    }
    // pgvector's operators bind closer than comparisons.
    for operator in ["<=>", "<->", "<#>", "<+>"] {
        let select = sql(&format!("SELECT 1 < a {operator} b"));
        let sqlparser::ast::Statement::Query(query) = select.ast.as_ref() else { panic!() };
        let item = &query.body.as_select().unwrap().projection[0];
        let sqlparser::ast::SelectItem::UnnamedExpr(sqlparser::ast::Expr::BinaryOp { op, .. }) =
            item
        else {
            panic!()
        };
        assert_eq!(*op, sqlparser::ast::BinaryOperator::Lt, "{operator}");
    }
}

#[test]
fn copy_in_both_syntaxes() {
    let Statement::Copy(copy) = one(
        "COPY s.t (a, \"B\") FROM STDIN WITH (FORMAT csv, HEADER, DELIMITER ';', NULL 'x', QUOTE '''')",
    ) else {
        panic!()
    };
    let CopyDirection::Into { table, columns } = &copy.direction else { panic!("{copy:?}") };
    assert_eq!(table.to_string(), "s.t");
    assert_eq!(columns.iter().map(|name| name.value.as_str()).collect::<Vec<_>>(), ["a", "B"]);
    assert_eq!(
        (copy.target.clone(), copy.format, copy.header),
        (CopyTarget::Client, CopyDataFormat::Csv, CopyHeader::Yes)
    );
    assert_eq!(
        (copy.delimiter, copy.null.as_deref(), copy.quote, copy.escape),
        (Some(';'), Some("x"), Some('\''), None)
    );

    let Statement::Copy(copy) =
        one("COPY t TO STDOUT CSV HEADER QUOTE AS '\"' FORCE QUOTE a, b DELIMITER E'\\t'")
    else {
        panic!()
    };
    assert_eq!(
        (copy.format, copy.header, copy.delimiter),
        (CopyDataFormat::Csv, CopyHeader::Yes, Some('\t'))
    );
    assert!(matches!(&copy.force_quote, CopyColumns::Named(names) if names.len() == 2));

    let Statement::Copy(copy) = one("COPY BINARY t FROM STDIN") else { panic!() };
    assert_eq!(copy.format, CopyDataFormat::Binary);
    let Statement::Copy(copy) = one("COPY t FROM STDIN (FORMAT 'text', HEADER match) WHERE a > 1")
    else {
        panic!()
    };
    assert_eq!(
        (copy.header, copy.filter.map(|filter| filter.to_string())),
        (CopyHeader::Match, Some("a > 1".to_owned()))
    );
    let Statement::Copy(copy) = one("COPY (SELECT 1) TO '/tmp/x' WITH (FORMAT csv, HEADER false)")
    else {
        panic!()
    };
    assert_eq!(
        (copy.target.clone(), copy.header),
        (CopyTarget::File("/tmp/x".to_owned()), CopyHeader::No)
    );
    let Statement::Copy(copy) = one("COPY t FROM '/tmp/x' WITH (FORMAT csv)") else { panic!() };
    assert_eq!(copy.target, CopyTarget::File("/tmp/x".to_owned()));
    assert!(matches!(one("COPY t (a) FROM '/tmp/x'"), Statement::Copy(_)));

    let wrong = [
        ("COPY t FROM STDIN WITH (FORMAT xml)", "22023"),
        ("COPY t FROM STDIN WITH (FORMATT csv)", "42601"),
        ("COPY t FROM STDIN WITH (FORMAT csv, FORMAT csv)", "42601"),
        ("COPY t FROM STDIN WITH (DELIMITER 'ab')", "0A000"),
        ("COPY t FROM STDIN WITH (DELIMITER 'a')", "22023"),
        ("COPY t FROM STDIN WITH (QUOTE '\"')", "0A000"),
        ("COPY t FROM STDIN WITH (FORMAT binary, NULL 'x')", "42601"),
        ("COPY t FROM STDIN WITH (FORMAT csv, DELIMITER '\"')", "22023"),
        ("COPY t FROM STDIN WITH (NULL E'a\\n')", "22023"),
        ("COPY t FROM STDIN WITH (ENCODING 'LATIN1')", "0A000"),
        ("COPY t FROM PROGRAM 'rm'", "0A000"),
        ("COPY t TO STDOUT WITH (HEADER match)", "0A000"),
        ("COPY t FROM STDIN WITH (FORMAT csv, FORCE_QUOTE *)", "0A000"),
        ("COPY (DELETE FROM t RETURNING *) TO STDOUT", "0A000"),
        ("COPY (SELECT 1) FROM STDIN", "42601"),
        ("COPY t", "42601"),
    ];
    for (text, code) in wrong {
        let error = parse_script(text).unwrap_err();
        assert_eq!(error.kind.sqlstate(), code, "{text}: {error}");
        assert!(error.position.is_some(), "{text}");
    }
}

#[test]
fn cursors_and_maintenance() {
    let fetches = [
        ("FETCH c", FetchDirection::Forward(1)),
        ("FETCH next", FetchDirection::Forward(1)),
        ("FETCH NEXT FROM c", FetchDirection::Forward(1)),
        ("FETCH 100 c", FetchDirection::Forward(100)),
        ("FETCH -5 IN c", FetchDirection::Forward(-5)),
        ("FETCH ALL FROM c", FetchDirection::ForwardAll),
        ("FETCH FORWARD ALL IN \"c\"", FetchDirection::ForwardAll),
        ("FETCH BACKWARD 2 FROM c", FetchDirection::Forward(-2)),
        ("FETCH BACKWARD ALL FROM c", FetchDirection::BackwardAll),
        ("FETCH LAST FROM c", FetchDirection::Absolute(-1)),
        ("FETCH ABSOLUTE 3 FROM c", FetchDirection::Absolute(3)),
        ("MOVE RELATIVE -1 FROM c", FetchDirection::Relative(-1)),
    ];
    for (text, direction) in fetches {
        let Statement::Fetch(fetch) = one(text) else { panic!("{text}") };
        assert_eq!((fetch.direction, fetch.moves), (direction, text.starts_with("MOVE")), "{text}");
    }
    let Statement::DeclareCursor(cursor) =
        one("DECLARE \"C\" BINARY INSENSITIVE NO SCROLL CURSOR WITHOUT HOLD FOR SELECT 1")
    else {
        panic!()
    };
    assert_eq!(
        (cursor.name.value.as_str(), cursor.binary, cursor.hold, cursor.scroll),
        ("C", true, false, Some(false))
    );
    assert!(matches!(one("CLOSE ALL"), Statement::CloseCursor(None)));
    assert!(matches!(one("CLOSE c"), Statement::CloseCursor(Some(_))));
    let maintained = [
        ("VACUUM", MaintenanceCommand::Vacuum { full: false }, 0),
        ("VACUUM (FULL, ANALYZE) t", MaintenanceCommand::Vacuum { full: true }, 1),
        ("VACUUM FULL VERBOSE t", MaintenanceCommand::Vacuum { full: true }, 1),
        ("ANALYZE VERBOSE t (a, b), s.u", MaintenanceCommand::Analyze, 2),
        ("CHECKPOINT", MaintenanceCommand::Checkpoint, 0),
        ("REINDEX TABLE t", MaintenanceCommand::Reindex, 1),
        ("REINDEX DATABASE d", MaintenanceCommand::Reindex, 0),
        ("CLUSTER t USING i", MaintenanceCommand::Cluster, 1),
    ];
    for (text, command, tables) in maintained {
        let Statement::Maintenance(found) = one(text) else { panic!("{text}") };
        assert_eq!((found.command, found.tables.len()), (command, tables), "{text}");
    }
}

#[test]
fn identifiers_fold_as_in_postgres() {
    use sqlparser::ast::Ident;
    assert_eq!(fold(&Ident::new("Mnist_Model_SimCLR")), "mnist_model_simclr");
    assert_eq!(fold(&Ident::with_quote('"', "Mixed")), "Mixed");
    assert_eq!(fold(&Ident::new("ÄB")), "Äb", "only letters of ASCII fold");
}
