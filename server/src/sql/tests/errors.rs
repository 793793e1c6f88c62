//! What is refused, and how: SQLSTATE, message, hint and place.

use super::super::options::{BuildModelOptions, OptionValue, Parameters};
use super::super::{ErrorKind, Statement};
use super::{error, one};

/// Checks an error whose place is marked by `^` in the script.
fn check(marked: &str, code: &str, message: &str) -> Option<String> {
    let position = marked.chars().position(|ch| ch == '^').map(|before| before + 1);
    let text = marked.replacen('^', "", 1);
    let error = error(&text);
    assert_eq!(
        (error.kind.sqlstate(), error.message.as_str(), error.position),
        (code, message, position),
        "{text}"
    );
    error.hint
}

#[test]
fn syntax_errors_read_as_postgres_has_them() {
    check("^SELEC 1", "42601", "syntax error at or near \"SELEC\"");
    check("SELECT 1; ^SELEC 2", "42601", "syntax error at or near \"SELEC\"");
    check("SELECT * FROM t WHERE^", "42601", "syntax error at end of input");
    check("SELECT (1^; SELECT 2", "42601", "syntax error at or near \";\"");
    check("SELECT * FROM t ^)", "42601", "syntax error at or near \")\"");

    check("SELECT ^'abc", "42601", "unterminated quoted string at or near \"'abc\"");
    check("SELECT 1 AS ^\"abc", "42601", "unterminated quoted identifier at or near \"\"abc\"");
    check("SELECT 1 ^/* abc", "42601", "unterminated /* comment at or near \"/* abc\"");
    check("SELECT ^$x$ abc", "42601", "unterminated dollar-quoted string at or near \"$x$ abc\"");
    check("SELECT ^$0", "42P02", "there is no parameter $0");
    check("SELECT ^$99999", "42601", "parameter number too large at or near \"$99999\"");
    check("SELECT ^$a", "42601", "syntax error at or near \"$a\"");
    check("^KILL 1", "42601", "syntax error at or near \"KILL\"");
}

#[test]
fn thanosql_says_its_form() {
    let hint =
        check("BUILD MODEL ^USING SimCLR AS t", "42601", "syntax error at or near \"USING\"");
    assert_eq!(
        hint.as_deref(),
        Some("The form is: BUILD MODEL name USING algorithm [OPTIONS (...)] AS query")
    );
    check("BUILD MODEL m USING SimCLR^", "42601", "syntax error at end of input");
    check("BUILD MODEL m USING SimCLR AS^", "42601", "syntax error at end of input");
    check(
        "BUILD MODEL m USING SimCLR OPTIONS (max_epochs^) AS t",
        "42601",
        "syntax error at or near \")\"",
    );
    check("BUILD MODEL m USING SimCLR OPTIONS (seed=1^", "42601", "syntax error at end of input");
    check(
        "BUILD MODEL m USING SimCLR OPTIONS (a=[['b']]) AS t".replace("[[", "[^[").as_str(),
        "42601",
        "syntax error at or near \"[\"",
    );
    check("SELECT * FROM (CONVERT USING m AS^)", "42601", "syntax error at or near \")\"");
    check(
        "SELECT * FROM (CONVERT USING m AS SELECT * FROM t WHERE ^)",
        "42601",
        "syntax error at or near \")\"",
    );
    check(
        "SELECT * FROM (SEARCH IMAGE images=^5 USING m AS t)",
        "42601",
        "syntax error at or near \"5\"",
    );
    check("DELETE MODEL m ^n", "42601", "syntax error at or near \"n\"");
    check(
        "CREATE TABLE t USING m OPTIONS (recursive=True)^",
        "42601",
        "syntax error at end of input",
    );
    check("LIST ^CHAIRS", "42601", "syntax error at or near \"CHAIRS\"");
    check("WAIT JOB ^x", "42601", "syntax error at or near \"x\"");
    check("GET THANOSQL ^THING x", "42601", "syntax error at or near \"THING\"");
    let hint =
        check("^BULID MODEL m USING SimCLR AS t", "42601", "syntax error at or near \"BULID\"");
    assert_eq!(hint.as_deref(), Some("Did you mean BUILD?"));
}

#[test]
fn unknown_options_are_named_with_the_nearest() {
    let hint = check(
        "BUILD MODEL m USING SimCLR OPTIONS (^max_epoch=5) AS t",
        "22023",
        "unknown option \"max_epoch\"",
    );
    let hint = hint.unwrap();
    assert!(
        hint.starts_with(
            "Did you mean \"max_epochs\"? Valid options are image_col, filename_col, "
        ),
        "{hint}"
    );
    let hint =
        check("CONVERT USING m OPTIONS (^zzzzzzzz=5) AS t", "22023", "unknown option \"zzzzzzzz\"")
            .unwrap();
    assert_eq!(
        hint,
        "Valid options are table_name, if_exists, image_col, result_col, batch_size, on_error."
    );
    let hint =
        check("UPLOAD MODEL m OPTIONS (^force=True) FROM 'f'", "22023", "unknown option \"force\"")
            .unwrap();
    assert_eq!(hint, "The only option is overwrite.");
    check(
        "BUILD MODEL m USING SimCLR OPTIONS (target='a', ^label_col='b') AS t",
        "22023",
        "option \"target_col\" is given more than once",
    );
    check(
        "SEARCH IMAGE USING m ^OPTIONS (top_k=1) AS t",
        "22023",
        "option \"search_input\" is required",
    );
    check("FUNCTION compute.similarity ^AS t", "22023", "option \"src_table\" is required");
    let hint =
        check("SEARCH IMAGE ^image='a' USING m AS t", "22023", "unknown search input \"image\"");
    assert_eq!(hint.as_deref(), Some("Did you mean \"images\"?"));
}

#[test]
fn wrong_values_are_named() {
    let build = |option: &str| format!("BUILD MODEL m USING SimCLR OPTIONS ({option}) AS t");
    let cases = [
        ("max_epochs=^0", "option \"max_epochs\" must be an integer from 1 to 100000, not 0"),
        ("max_epochs=^-1", "option \"max_epochs\" must be an integer from 1 to 100000, not -1"),
        (
            "max_epochs=^'five'",
            "option \"max_epochs\" must be an integer from 1 to 100000, not 'five'",
        ),
        ("max_epochs=^1.5", "option \"max_epochs\" must be an integer from 1 to 100000, not 1.5"),
        (
            "max_epochs=^99999999999999999999",
            "option \"max_epochs\" must be an integer from 1 to 100000, not 99999999999999999999",
        ),
        ("batch_size=^1", "option \"batch_size\" must be an integer from 2 to 65536, not 1"),
        ("seed=^-1", "option \"seed\" must be an integer of at least 0, not -1"),
        (
            "learning_rate=^0",
            "option \"learning_rate\" must be a number above 0 and up to 1000, not 0",
        ),
        (
            "temperature=^1e999",
            "option \"temperature\" must be a number above 0 and up to 100, not 1e999",
        ),
        ("image_col=^5", "option \"image_col\" must be a string, not 5"),
        ("image_col=^['a']", "option \"image_col\" must be a string, not a list"),
        ("fname=^True", "option \"fname\" must be a string, not True"),
        ("overwrite=^'maybe'", "option \"overwrite\" must be True or False, not 'maybe'"),
        ("overwrite=^1", "option \"overwrite\" must be True or False, not 1"),
        ("color=^'blue'", "option \"color\" must be 'gray' or 'rgb', not 'blue'"),
        (
            "augmentations=^['a', 1]",
            "option \"augmentations\" must be a list of strings, not a list",
        ),
    ];
    for (option, message) in cases {
        assert!(check(&build(option), "22023", message).unwrap().starts_with("Valid options are "));
    }
    let hint = check(
        &build("on_error=^'skp'"),
        "22023",
        "option \"on_error\" must be 'fail' or 'skip', not 'skp'",
    );
    assert_eq!(hint.as_deref(), Some("Did you mean 'skip'?"));
}

#[test]
fn what_is_known_and_not_supported_says_so() {
    check("SEARCH ^AUDIO audios='a' USING m AS t", "0A000", "SEARCH AUDIO is not supported");
    check("SEARCH ^video videos='a' USING m AS t", "0A000", "SEARCH VIDEO is not supported");
    check("SELECT * FROM (SEARCH ^TEXT USING m AS t) x", "0A000", "SEARCH TEXT is not supported");
    check("PRINT ^VIDEO AS t", "0A000", "PRINT VIDEO is not supported");
    check(
        "BUILD MODEL m USING ^AutomlClassifier OPTIONS (x=1) AS t",
        "0A000",
        "algorithm \"automlclassifier\" is not supported",
    );
    check("BUILD MODEL m USING ^clip AS t", "0A000", "algorithm \"clip\" is not supported");
    let hint =
        check("BUILD MODEL m USING ^SimCRL AS t", "42704", "algorithm \"simcrl\" does not exist");
    assert_eq!(hint.as_deref(), Some("Did you mean SimCLR?"));
    check(
        "CREATE TABLE t USING m OPTIONS (data_type=^'audio') FROM 'f'",
        "0A000",
        "embedding audio is not supported",
    );
    check(
        "SEARCH IMAGE USING m OPTIONS (search_by=^text, search_input='a') AS t",
        "0A000",
        "searching by text is not supported",
    );
    check(
        "FUNCTION compute.^similarty OPTIONS (src_table='s') AS t",
        "42883",
        "function compute.similarty does not exist",
    );
    check("CREATE TABLE t USING ^m AS SELECT 1", "42704", "access method \"m\" does not exist");
    check("^PREPARE TRANSACTION 'x'", "0A000", "two-phase commit is not supported");
    check("^DO $$ x $$", "0A000", "DO is not supported");
}

#[test]
fn options_take_parameters() {
    let Statement::BuildModel(build) =
        one("BUILD MODEL m USING SimCLR OPTIONS (max_epochs=$2, image_col=$1) AS t")
    else {
        panic!()
    };
    let text = |text: &str| OptionValue::String(text.to_owned());
    let values = [text("c"), OptionValue::Number("7".to_owned())];
    let options = BuildModelOptions::read(&build.options, Parameters::Known(&values)).unwrap();
    assert_eq!((options.image_col.as_deref(), options.max_epochs), (Some("c"), Some(7)));
    let wrong = [text("c"), text("x")];
    let error = BuildModelOptions::read(&build.options, Parameters::Known(&wrong)).unwrap_err();
    assert_eq!((error.kind, error.position), (ErrorKind::InvalidOption, Some(48)));
    let error =
        BuildModelOptions::read(&build.options, Parameters::Known(&values[..1])).unwrap_err();
    assert_eq!(error.kind, ErrorKind::UndefinedParameter);
}

#[test]
fn positions_count_characters_of_the_whole_script() {
    check(
        "SELECT '가나다';\r\n\n-- 라\nCONVERT USING m OPTIONS (^imag_col='마') AS t",
        "22023",
        "unknown option \"imag_col\"",
    );
}
