//! Results as psql prints them, and pictures side by side.

use std::fmt::Write;

/// Longest cell that is printed whole, in characters.
const MAX_CELL: usize = 60;
/// Numbers of a vector that are shown.
const SHOWN_NUMBERS: usize = 3;

/// A statement's answer in text.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Answer {
    pub(super) columns: Vec<String>,
    /// None is NULL.
    pub(super) rows: Vec<Vec<Option<String>>>,
    /// The number in the command tag.
    pub(super) affected: u64,
}

impl Answer {
    /// The table with its row count, or the command tag of a statement without a result. Only the first rows of a long
    /// one are shown.
    pub(super) fn text(&self, statement: &str, shown_rows: usize) -> String {
        if self.columns.is_empty() {
            return self.tag(statement);
        }
        let shown: Vec<Vec<String>> = self
            .rows
            .iter()
            .take(shown_rows)
            .map(|row| row.iter().map(|cell| cell_text(cell.as_deref())).collect())
            .collect();
        let widths: Vec<usize> = self
            .columns
            .iter()
            .enumerate()
            .map(|(column, name)| {
                let cells = shown.iter().filter_map(|row| row.get(column));
                cells.map(|cell| width(cell)).chain([width(name)]).max().unwrap_or(0)
            })
            .collect();
        let mut text = String::new();
        let header: Vec<String> = self
            .columns
            .iter()
            .zip(&widths)
            .map(|(name, width)| format!(" {} ", centred(name, *width)))
            .collect();
        let rule: Vec<String> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}\n{}", header.join("|").trim_end(), rule.join("+"));
        for row in &shown {
            let cells: Vec<String> = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| {
                    let padding = " ".repeat(width.saturating_sub(self::width(cell)));
                    if cell.parse::<f64>().is_ok() {
                        format!(" {padding}{cell} ")
                    } else {
                        format!(" {cell}{padding} ")
                    }
                })
                .collect();
            let _ = writeln!(text, "{}", cells.join("|").trim_end());
        }
        if shown.len() < self.rows.len() {
            let _ = writeln!(text, " ... {} more", self.rows.len() - shown.len());
        }
        let _ = write!(text, "({})", rows_text(self.rows.len() as u64));
        text
    }

    /// The command tag, of which the client's library hands on no more than its number.
    fn tag(&self, statement: &str) -> String {
        let words: Vec<&str> = statement.split_whitespace().take(2).collect();
        match words.as_slice() {
            ["COPY", _] => format!("COPY {}", self.affected),
            words => words.join(" "),
        }
    }

    /// The drawings in a column side by side, each above the row's values in the caption columns.
    pub(super) fn gallery(&self, picture: &str, captions: &[&str]) -> String {
        let place = |name: &str| self.columns.iter().position(|column| column == name);
        let value = |row: &[Option<String>], name: &str| {
            place(name).and_then(|column| row.get(column).cloned().flatten())
        };
        let pictures: Vec<Vec<String>> = self
            .rows
            .iter()
            .map(|row| {
                let mut lines: Vec<String> =
                    value(row, picture).unwrap_or_default().lines().map(str::to_owned).collect();
                for caption in captions {
                    let text = value(row, caption).unwrap_or_else(|| "-".to_owned());
                    lines.push(format!("{caption} {}", shortened_number(&text)));
                }
                lines
            })
            .collect();
        let height = pictures.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = pictures
            .iter()
            .map(|lines| lines.iter().map(|line| width(line)).max().unwrap_or(0))
            .collect();
        let mut text = String::new();
        for line in 0..height {
            let parts: Vec<String> = pictures
                .iter()
                .zip(&widths)
                .map(|(lines, width)| {
                    let part = lines.get(line).map_or("", String::as_str);
                    format!("{part}{}", " ".repeat(width.saturating_sub(self::width(part))))
                })
                .collect();
            let _ = writeln!(text, "{}", parts.join("  ").trim_end());
        }
        text
    }
}

fn rows_text(rows: u64) -> String {
    if rows == 1 { "1 row".to_owned() } else { format!("{rows} rows") }
}

/// Characters, which is columns for everything that the demo shows.
fn width(text: &str) -> usize {
    text.chars().count()
}

fn centred(text: &str, width: usize) -> String {
    format!("{text:^width$}")
}

fn shortened_number(text: &str) -> String {
    match text.parse::<f64>() {
        Ok(number) if text.contains('.') => format!("{number:.4}"),
        Ok(_) | Err(_) => text.to_owned(),
    }
}

/// A cell on one line: vectors by their first numbers, drawings by their size, long texts cut.
fn cell_text(cell: Option<&str>) -> String {
    let Some(cell) = cell else { return String::new() };
    if cell.contains('\n') {
        return format!("(drawing of {} lines)", cell.lines().count());
    }
    if width(cell) <= MAX_CELL {
        return cell.to_owned();
    }
    if let Some(numbers) = cell.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let shown: Vec<&str> = numbers.split(',').take(SHOWN_NUMBERS).collect();
        return format!("[{},... {} numbers]", shown.join(","), numbers.split(',').count());
    }
    let start: String = cell.chars().take(MAX_CELL - 3).collect();
    format!("{start}...")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(columns: &[&str], rows: &[&[&str]]) -> Answer {
        Answer {
            columns: columns.iter().map(|name| (*name).to_owned()).collect(),
            rows: rows
                .iter()
                .map(|row| row.iter().map(|cell| Some((*cell).to_owned())).collect())
                .collect(),
            affected: rows.len() as u64,
        }
    }

    #[test]
    fn a_table_as_psql_prints_it() {
        let answer = answer(&["img_path", "label"], &[&["/a/1.jpg", "7"], &["/a/20.jpg", "3"]]);
        let expected = " img_path  | label\n-----------+-------\n /a/1.jpg  |     7\n /a/20.jpg |     3\n(2 rows)";
        assert_eq!(answer.text("SELECT", 5), expected);
        let cut = " img_path | label\n----------+-------\n /a/1.jpg |     7\n ... 1 more\n(2 rows)";
        assert_eq!(answer.text("SELECT", 1), cut);
    }

    #[test]
    fn a_statement_without_a_result_answers_with_its_tag() {
        let done = Answer { affected: 3, ..Answer::default() };
        assert_eq!(done.text("COPY t FROM 'f.csv'", 5), "COPY 3");
        assert_eq!(done.text("BUILD MODEL m\nUSING SimCLR", 5), "BUILD MODEL");
    }

    #[test]
    fn long_cells_are_cut() {
        let vector = format!("[{}]", vec!["0.12345678"; 128].join(","));
        assert_eq!(cell_text(Some(&vector)), "[0.12345678,0.12345678,0.12345678,... 128 numbers]");
        assert_eq!(cell_text(Some(&"x".repeat(80))), format!("{}...", "x".repeat(57)));
        assert_eq!(cell_text(Some("a\nb")), "(drawing of 2 lines)");
        assert_eq!(cell_text(None), "");
    }

    #[test]
    fn pictures_stand_side_by_side() {
        let answer = answer(&["preview", "score"], &[&["█▀\n▄", "1.0"], &["░░░", "0.98765"]]);
        assert_eq!(
            answer.gallery("preview", &["score"]),
            "█▀            ░░░\n▄             score 0.9877\nscore 1.0000\n"
        );
    }
}
