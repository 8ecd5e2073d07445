//! "Did you mean": the known word that a wrong one is closest to.

/// The closest of `known` if it is close enough to be a slip: one wrong, missing, extra or swapped
/// letter for every three, in a word of four one, with case and `-`/`_` not counted.
pub fn closest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = plain(word);
    if word.is_empty() || word.len() > WORD_MAX {
        return None;
    }
    known
        .into_iter()
        .map(|candidate| (distance(&word, &plain(candidate)), candidate))
        .filter(|(distance, candidate)| {
            *distance <= (word.len().max(candidate.chars().count()) + 1) / 3
                && *distance < word.len()
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Letters of a word that is compared; longer ones are no slips.
const WORD_MAX: usize = 64;

fn plain(word: &str) -> Vec<char> {
    word.chars()
        .map(|c| {
            if c == '-' {
                '_'
            } else {
                c.to_ascii_lowercase()
            }
        })
        .collect()
}

/// Edits from `a` to `b`, a swap of two neighbours being one.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let changed = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = changed.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found_and_other_words_are_not() {
        let known = ["method", "members", "monitor"];
        for (word, meant) in [
            ("metod", Some("method")),
            ("Members", Some("members")),
            ("memebrs", Some("members")),
            ("monitors", Some("monitor")),
            ("member", Some("members")),
            ("color", None),
            // As long as `icmp` and `tcp`: a word of its own.
            ("mint", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(closest(word, known), meant, "{word}");
        }
        assert_eq!(
            closest("least-connections", ["least_connections"]),
            Some("least_connections")
        );
    }
}
