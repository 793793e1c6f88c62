//! "Did you mean": the nearest of some names to one that does not exist.

/// The candidate that `word` is most likely a slip of, if one is near enough: a third of its letters may be wrong.
pub fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<char> = word.chars().take(MAX_LENGTH + 1).flat_map(char::to_lowercase).collect();
    if word.len() > MAX_LENGTH {
        return None;
    }
    candidates
        .into_iter()
        .map(|candidate| {
            let letters: Vec<char> = candidate.chars().flat_map(char::to_lowercase).collect();
            (distance(&word, &letters), letters.len(), candidate)
        })
        .filter(|(distance, length, _)| *distance <= word.len().max(*length).div_ceil(3))
        .filter(|(distance, length, _)| *distance < word.len().max(*length))
        .min_by_key(|(distance, _, _)| *distance)
        .map(|(_, _, candidate)| candidate)
}

/// Longer names are no slips of ours, and the work grows with the length.
const MAX_LENGTH: usize = 64;

/// How many letters to insert, drop, change or swap with their neighbour (Damerau and Levenshtein, no letter touched twice).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let change = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = change.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::{closest, distance};

    fn between(a: &str, b: &str) -> usize {
        let letters = |word: &str| word.chars().collect::<Vec<_>>();
        distance(&letters(a), &letters(b))
    }

    #[test]
    fn distances_worked_by_hand() {
        assert_eq!(between("", ""), 0);
        assert_eq!(between("", "abc"), 3);
        assert_eq!(between("kitten", "sitting"), 3);
        assert_eq!(between("max_epcohs", "max_epochs"), 1);
        assert_eq!(between("ca", "abc"), 3);
    }

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        let names = ["image_col", "max_epochs", "seed"];
        assert_eq!(closest("max_epoch", names), Some("max_epochs"));
        assert_eq!(closest("IMG_COL", names), Some("image_col"));
        assert_eq!(closest("sede", names), Some("seed"));
        assert_eq!(closest("wholly_other", names), None);
        assert_eq!(closest("x", ["y"]), None);
        assert_eq!(closest(&"max_epochs".repeat(100_000), names), None);
    }
}
