//! Names as SQL writes them: in double quotes, unless they are plain words that are not reserved.

/// The name as it must be written in SQL.
pub fn quote_ident(name: &str) -> String {
    let is_letter = |letter: char| letter.is_ascii_lowercase() || letter == '_';
    let plain = name.starts_with(is_letter)
        && name.chars().all(|letter| is_letter(letter) || letter.is_ascii_digit());
    if plain && !is_reserved(name) {
        name.to_owned()
    } else {
        format!("\"{}\"", name.replace('"', "\"\""))
    }
}

/// Whether a word, in lower case, is no name unless it is quoted.
pub(super) fn is_reserved(word: &str) -> bool {
    RESERVED.binary_search(&word).is_ok()
}

/// Words that PostgreSQL does not take for a name unless quoted.
const RESERVED: &[&str] = &[
    "all",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "asymmetric",
    "both",
    "case",
    "cast",
    "check",
    "collate",
    "column",
    "constraint",
    "create",
    "current_catalog",
    "current_date",
    "current_role",
    "current_time",
    "current_timestamp",
    "current_user",
    "default",
    "deferrable",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "false",
    "fetch",
    "for",
    "foreign",
    "from",
    "grant",
    "group",
    "having",
    "in",
    "initially",
    "intersect",
    "into",
    "lateral",
    "leading",
    "limit",
    "localtime",
    "localtimestamp",
    "not",
    "null",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "placing",
    "primary",
    "references",
    "returning",
    "select",
    "session_user",
    "some",
    "symmetric",
    "system_user",
    "table",
    "then",
    "to",
    "trailing",
    "true",
    "union",
    "unique",
    "user",
    "using",
    "variadic",
    "when",
    "where",
    "window",
    "with",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_where_they_must_be() {
        for (name, written) in [
            ("m_1", "m_1"),
            ("_", "_"),
            ("1m", "\"1m\""),
            ("M", "\"M\""),
            ("a\"b", "\"a\"\"b\""),
            ("모델", "\"모델\""),
            ("select", "\"select\""),
            ("", "\"\""),
        ] {
            assert_eq!(quote_ident(name), written);
        }
    }

    #[test]
    fn reserved_words_are_found() {
        assert!(RESERVED.is_sorted());
    }
}
