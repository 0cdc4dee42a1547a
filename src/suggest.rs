//! What somebody meant who mistyped an option, a command or a key: the nearest one that there is.

/// Longer words are not looked at.
const WORD_MAX: usize = 40;

/// `, perhaps WORD is meant` if one of the words is near enough, else nothing.
pub fn meant<'a>(typed: &str, words: impl IntoIterator<Item = &'a str>) -> String {
    // Of a short word every other one is near.
    let limit = match typed.trim_start_matches('-').len() {
        0 | 1 => 0,
        2..5 => 1,
        5.. => 2,
    };
    let near = words.into_iter().map(|word| (distance(typed, word), word));
    match near.filter(|(far, _)| *far <= limit && typed.len() <= WORD_MAX).min() {
        Some((_, word)) => format!(", perhaps {word} is meant"),
        None => String::new(),
    }
}

/// The same for an option or a command, by the help text that tells of all.
pub fn meant_in(typed: &str, help: &str) -> String {
    let is_option = typed.starts_with('-');
    let typed = typed.split('=').next().unwrap_or_default();
    let words = help.lines().take_while(|line| !line.starts_with("Examples")).flat_map(|line| {
        let command = line.strip_prefix("  ").filter(|rest| !is_option && rest.starts_with(char::is_alphabetic));
        let options = line.split([' ', ',', '[', ']']).filter(|word| is_option && word.starts_with('-'));
        command.into_iter().flat_map(|line| line.split(' ').take(1)).chain(options)
    });
    meant(typed, words)
}

/// How many bytes have to be put in, taken out, changed or swapped with their neighbour to make one of the other.
fn distance(one: &str, other: &str) -> usize {
    let width = other.len().saturating_add(1);
    let mut before: Vec<usize> = vec![usize::MAX; width];
    let mut above: Vec<usize> = (0..width).collect();
    let mut last = None;
    for (row, byte) in one.bytes().enumerate() {
        let mut current = vec![row.saturating_add(1)];
        let mut left = None;
        for (column, its) in other.bytes().enumerate() {
            let at = |cells: &[usize], column: usize| cells.get(column).copied().unwrap_or(usize::MAX);
            let next = column.saturating_add(1);
            let mut best = at(&above, next).min(at(&current, column)).saturating_add(1);
            best = best.min(at(&above, column).saturating_add(usize::from(byte != its)));
            if last == Some(its) && left == Some(byte) {
                best = best.min(at(&before, column.saturating_sub(1)).saturating_add(1));
            }
            current.push(best);
            left = Some(its);
        }
        before = std::mem::replace(&mut above, current);
        last = Some(byte);
    }
    above.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (one, other, far) in [
            ("", "", 0),
            ("", "ab", 2),
            ("kato", "kato", 0),
            ("kat", "kato", 1),
            ("staus", "status", 1),
            ("wiat", "wait", 1),
            ("hdr_digest", "hdr-digest", 1),
            ("tls", "tos", 1),
            ("abc", "xyz", 3),
        ] {
            assert_eq!((distance(one, other), distance(other, one)), (far, far), "{one} {other}");
        }
    }

    #[test]
    fn only_what_is_near_is_named() {
        assert_eq!(meant("ctrl-los-tmo", ["kato", "ctrl-loss-tmo"]), ", perhaps ctrl-loss-tmo is meant");
        assert_eq!(meant("colour", ["kato", "controller"]), "");
        assert_eq!(meant(&"x".repeat(1 << 20), ["kato"]), "");
        let help = "Commands:\n  ls [-d]  lists\n  status   tells\n\nOptions:\n  -d, --detailed  more\n";
        assert_eq!(meant_in("staus", help), ", perhaps status is meant");
        assert_eq!(meant_in("--detialed", help), ", perhaps --detailed is meant");
        assert_eq!(meant_in("-x", help), "");
        assert_eq!(meant_in("tells", help), "");
    }
}
