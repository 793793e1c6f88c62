//! No script makes the grammar panic, hang or exhaust a stack. Everything random is fixed by a seed, which
//! `THANOSQL_SEED` replaces; `THANOSQL_FUZZ_SECONDS` keeps the two random tests going for as long. Both print their counts.

use std::time::{Duration, Instant};

use thanosql_tests::random::{Random, number};

use super::super::{ErrorKind, parse_script, position_of};

/// How long a random test goes on: as many rounds as it has of itself, and at least the time that is asked for.
struct Rounds {
    rounds: u64,
    least: u64,
    until: Instant,
}

impl Rounds {
    fn new(least: u64) -> Rounds {
        let seconds = number("THANOSQL_FUZZ_SECONDS", 0);
        Rounds { rounds: 0, least, until: Instant::now() + Duration::from_secs(seconds) }
    }

    fn next(&mut self) -> Option<u64> {
        self.rounds += 1;
        let more = self.rounds <= self.least || Instant::now() < self.until;
        more.then_some(self.rounds)
    }
}

const SEEDS: &[&str] = &[
    "BUILD MODEL m USING SimCLR OPTIONS ( max_epochs = 5 , image_col = 'a' ) AS SELECT * FROM t",
    "FIT MODEL n USING m AS ( SELECT * FROM t )",
    "CREATE TABLE t USING m OPTIONS ( file_type = [ '.jpg' , '.png' ] ) FROM 'f'",
    "SELECT a , b FROM ( CONVERT USING m OPTIONS ( table_name = \"t\" ) AS SELECT * FROM t ) x WHERE a > - 1",
    "SEARCH IMAGE images = [ 'a' , $1 ] USING m OPTIONS ( top_k = 3 ) AS t",
    "SEARCH IMAGE USING m OPTIONS ( search_by = 'image' , search_input = $1 ) AS t",
    "PRINT IMAGE AS ( SELECT a FROM ( SEARCH IMAGE images = 'x' USING m AS t ) ORDER BY 1 DESC LIMIT 4 )",
    "WITH w AS ( PREDICT USING m AS t ) INSERT INTO u ( a , b ) SELECT * FROM w JOIN ( LIST MODEL ) l ON true",
    "COPY t ( a , b ) FROM STDIN WITH ( FORMAT csv , HEADER , NULL '' )",
    "COPY ( EVALUATE USING m AS t ) TO STDOUT CSV HEADER",
    "CREATE TABLE n ( a , b ) AS VALUES ( 1 , 2 ) WITH NO DATA",
    "EXPLAIN ( ANALYZE , VERBOSE ) FUNCTION compute . similarity OPTIONS ( src_table = 's' ) AS t",
    "DECLARE c NO SCROLL CURSOR WITH HOLD FOR SHOW JOBS",
    "FETCH FORWARD 5 FROM c ; MOVE - 1 IN c ; CLOSE ALL",
    "BEGIN ISOLATION LEVEL SERIALIZABLE , READ ONLY , NOT DEFERRABLE ; ROLLBACK TO SAVEPOINT a",
    "SELECT CASE WHEN a THEN cast ( b AS int [ ] ) ELSE f ( x , y ) END FROM t GROUP BY ROLLUP ( a ) HAVING count ( * ) > 1",
    "UPDATE t SET a = ( SELECT 1 ) FROM u WHERE t . a IN ( LIST TABLE ) RETURNING *",
    "VACUUM ( FULL ) t ; ANALYZE t ( a ) ; REINDEX TABLE t ; RESET TIME ZONE ; ABORT",
    "DROP MODEL IF EXISTS m ; SHOW CREATE MODEL m ; EXPORT MODEL m TO 'f' ; GET THANOSQL DATASET d",
];

const ODD: &[&str] = &[
    "(", ")", "[", "]", ",", ";", "'", "\"", "$1", "$", "$$", "/*", "*/", "--\n", "\n", "=", "::",
    ".", "AS", "FROM", "USING", "OPTIONS", "TABLE", "SEARCH", "IMAGE", "CONVERT", "LIST", "MODEL",
    "E'\\", "U&'\\", "한글", "\u{0}", "\u{feff}", "𝄞", "\r", "1e", "0x", "1_", "<=>", ">-", "@",
    "?", "{", "}", "\\", "WITH", "UNION", "NULL", "True", "x'", "b\"",
];

fn check(text: &str) {
    let started = Instant::now();
    match parse_script(text) {
        Ok(statements) => {
            assert!(statements.clone() == statements);
            for statement in statements {
                let start: usize = text.chars().take(statement.offset).map(char::len_utf8).sum();
                assert!(text[start..].starts_with(&statement.text), "{text:?}");
                assert!(
                    parse_script(&statement.text).is_ok(),
                    "a statement stands alone: {text:?}"
                );
            }
        }
        Err(error) => {
            let position =
                error.position.unwrap_or_else(|| panic!("no position: {error:?} in {text:?}"));
            assert!((1..=text.chars().count() + 1).contains(&position), "{error:?} in {text:?}");
            assert!(!error.message.ends_with('.'), "{error:?}");
        }
    }
    assert!(started.elapsed() < Duration::from_secs(5), "too slow: {text:?}");
}

#[test]
#[allow(clippy::print_stdout)] // counts and seed are part of the result
fn shuffled_statements_never_panic() {
    let mut random = Random::from_environment(0x7468_616e_6f73_716c);
    let pool: Vec<&str> = SEEDS.iter().flat_map(|seed| seed.split(' ')).collect();
    let mut rounds = Rounds::new(30_000);
    while let Some(round) = rounds.next() {
        let mut words: Vec<&str> = random.one(SEEDS).split(' ').collect();
        for _ in 0..=random.below(4) {
            let at = random.below(words.len().max(1)).min(words.len().saturating_sub(1));
            match random.below(6) {
                0 if words.len() > 1 => drop(words.remove(at)),
                1 => words.insert(at, random.one(&pool)),
                2 => words.insert(at, random.one(ODD)),
                3 => {
                    let other = random.below(words.len());
                    words.swap(at, other);
                }
                4 => words.truncate(at + 1),
                _ => words.extend(random.one(SEEDS).split(' ')),
            }
        }
        let space = if round % 3 == 0 { "" } else { " " };
        check(&words.join(space));
    }
    println!("{} scripts", rounds.rounds - 1);
}

#[test]
#[allow(clippy::print_stdout)]
fn random_characters_never_panic() {
    let mut random = Random::from_environment(0x0123_4567_89ab_cdef);
    let mut rounds = Rounds::new(20_000);
    while rounds.next().is_some() {
        let length = random.below(40);
        let text: String = (0..length)
            .map(|_| match random.below(4) {
                0 => random.one(ODD).to_owned(),
                1 => char::from_u32(random.below(0x3000) as u32).unwrap_or(' ').to_string(),
                _ => char::from(b' ' + random.below(95) as u8).to_string(),
            })
            .collect();
        check(&text);
    }
    println!("{} scripts", rounds.rounds - 1);
}

#[test]
fn cutting_a_script_anywhere_never_panics() {
    for seed in SEEDS {
        for (cut, _) in seed.char_indices() {
            check(&seed[..cut]);
            check(&seed[cut..]);
        }
    }
}

/// Nests `open` and `close` around a middle.
fn nested(before: &str, open: &str, middle: &str, close: &str, depth: usize) -> String {
    format!("{before}{}{middle}{}", open.repeat(depth), close.repeat(depth))
}

#[test]
fn deep_nesting_is_refused_and_never_slow() {
    let shapes = [
        ("SELECT ", "(", "1", ")"),
        ("SELECT ", "f(", "1", ")"),
        ("SELECT ", "f(f(x, ", "1", "))"),
        ("SELECT ", "cast(", "1", " AS int)"),
        ("SELECT ", "case when ", "1", " then 1 end"),
        ("SELECT ", "case ", "1", ""),
        ("SELECT ", "not ", "1", ""),
        ("SELECT ", "- ", "1", ""),
        ("SELECT ", "array[", "1", "]"),
        ("SELECT ", "exists (select ", "1", ")"),
        ("SELECT ", "1 in (", "1", ")"),
        ("SELECT ", "interval ", "'1'", ""),
        ("SELECT 1::", "array<", "int", ">"),
        ("SELECT * FROM ", "(", "t", ")"),
        ("SELECT * FROM ", "(", "SELECT 1", ")"),
        ("SELECT * FROM ", "(a join ", "t", " on true)"),
        ("", "SELECT * FROM (", "t", ")"),
        ("", "with x as (", "select 1", ") select 1"),
        ("", "values ((", "values (1)", "))"),
        ("", "explain ", "select 1", ""),
        ("", "prepare p as ", "select 1", ""),
        ("", "explain analyze prepare p as ", "select 1", ""),
        ("", "begin ", "select 1", " end"),
        ("", "create procedure p as begin ", "select 1", " end"),
        ("", "create trigger t before insert on t begin ", "select 1", " end"),
        ("create table t (a ", "check (", "1", ")"),
        ("alter table t add ", "check (", "1", ")"),
        ("", "SELECT * FROM (SEARCH IMAGE images='a' USING m AS ", "t", ")"),
        ("", "SEARCH IMAGE images='a' USING m AS ", "t", ""),
        ("", "PRINT IMAGE AS (", "t", ")"),
        ("BUILD MODEL m USING SimCLR OPTIONS (a=", "[", "1", "]"),
    ];
    for (before, open, middle, close) in shapes {
        for depth in [5, 15, 25, 35, 60, 1_000, 20_000] {
            check(&nested(before, open, middle, close, depth));
            check(&nested(before, open, "", "", depth));
        }
    }
    let error = parse_script(&nested("SELECT ", "(", "1", ")", 1_000)).unwrap_err();
    assert_eq!(error.kind, ErrorKind::TooComplex);
}

#[test]
fn long_chains_are_bounded() {
    // Half of what the server's threads have.
    let thread = std::thread::Builder::new().stack_size(4 << 20).spawn(check_long_chains).unwrap();
    thread.join().unwrap();
}

fn check_long_chains() {
    let chains = [
        "1 + ",
        "a OR ",
        "a || ",
        "1 = 1 AND ",
        "a.",
        "- ",
        "1 UNION SELECT 1, ",
        "a IS NULL IS NULL OR ",
    ];
    for chain in chains {
        check(&format!("SELECT {}1", chain.repeat(1_000)));
        // `- - 1` nests, and names do not end in a number.
        let bounded = chain == "- " || chain == "a.";
        assert!(
            bounded || parse_script(&format!("SELECT {}1", chain.repeat(300))).is_ok(),
            "{chain}"
        );
        let text = format!("SELECT {}1", chain.repeat(100_000));
        assert_eq!(parse_script(&text).unwrap_err().kind, ErrorKind::TooComplex, "{chain}");
    }
    let postfix = format!("SELECT 1::int{}", "[]".repeat(100_000));
    assert_eq!(parse_script(&postfix).unwrap_err().kind, ErrorKind::TooComplex);
    // The longest that is let through must not overflow the stack when it is copied, compared and dropped.
    for chain in ["1 + ", "a OR ", "1 UNION SELECT ", "1, 2 UNION SELECT ", "NOT a IS NULL AND "] {
        let script = |times: usize| format!("SELECT {} 1", chain.repeat(times));
        let (mut passes, mut fails) = (1, 4_000);
        while fails - passes > 1 {
            let times = (passes + fails) / 2;
            if parse_script(&script(times)).is_ok() { passes = times } else { fails = times }
        }
        let longest = parse_script(&script(passes)).unwrap();
        assert!(longest[0].text.len() > 3_000, "{chain}");
        assert!(longest.clone() == longest);
    }
}

#[test]
fn long_scripts_take_time_in_proportion() {
    let rows = vec!["(1, 'a', -2.5, NULL)"; 50_000].join(", ");
    let started = Instant::now();
    assert_eq!(parse_script(&format!("INSERT INTO t VALUES {rows}")).unwrap().len(), 1);
    let statements = "SELECT 1; ".repeat(50_000);
    assert_eq!(parse_script(&statements).unwrap().len(), 50_000);
    let searches = vec!["(SEARCH IMAGE images='a' USING m AS t) x"; 3_000].join(", ");
    assert_eq!(parse_script(&format!("SELECT * FROM {searches}")).unwrap().len(), 1);
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
}

#[test]
fn places_agree_with_the_tokenizer() {
    use sqlparser::tokenizer::Location;
    let text = "a\r\nb\tc\n\n한글 d\re";
    let expected = [
        ((1, 1), 1),
        ((2, 1), 4),
        ((2, 3), 6),
        ((3, 1), 8),
        ((4, 1), 9),
        ((4, 4), 12),
        ((4, 6), 14),
    ];
    for ((line, column), position) in expected {
        assert_eq!(position_of(Location::new(line, column), text), Some(position));
    }
}
