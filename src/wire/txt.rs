//! The TXT record of a DNS-SD service: strings of the form `key=value`, written by whoever announces it.
//!
//! Rules: RFC 6763 section 6. Keys compare without case, the first occurrence of a key counts, a string without `=` is a
//! key without value, a string without key is ignored, and values are bytes of any kind.

/// Most bytes of a TXT record: what a multicast DNS message can carry (RFC 6762 section 17).
pub const TXT_MAX: usize = 9000;

/// A TXT record within its bound.
#[derive(Debug, Clone, Copy)]
pub struct Txt<'a> {
    strings: &'a [&'a [u8]],
}

impl<'a> Txt<'a> {
    /// `None` for a record that no DNS message could have brought.
    pub fn new(strings: &'a [&'a [u8]]) -> Option<Txt<'a>> {
        // Each string comes with a length byte.
        let bytes: usize = strings.iter().map(|string| string.len().saturating_add(1)).sum();
        (bytes <= TXT_MAX).then_some(Txt { strings })
    }

    /// The value of a key; `None` when the key is not there or has no value.
    pub fn get(self, key: &str) -> Option<&'a [u8]> {
        let halves = self.strings.iter().map(|string| {
            let end = string.iter().position(|byte| *byte == b'=');
            (string.get(..end.unwrap_or(string.len())), end.and_then(|end| string.get(end.saturating_add(1)..)))
        });
        let mut found = halves.filter(|(name, _)| name.is_some_and(|name| name.eq_ignore_ascii_case(key.as_bytes())));
        found.next()?.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_compare_without_case_and_the_first_counts() {
        let strings: [&[u8]; 6] = [b"=x", b"", b"NQN=nqn.A=B", b"nqn=other", b"P", b"p=tcp"];
        let txt = Txt::new(&strings).unwrap();
        assert_eq!(txt.get("nqn"), Some(&b"nqn.A=B"[..]));
        assert_eq!(txt.get("p"), None, "the first one has no value");
        assert_eq!(txt.get("q"), None);
    }

    #[test]
    fn values_are_bytes() {
        let strings: [&[u8]; 2] = [b"p=\xff\0", b"q="];
        let txt = Txt::new(&strings).unwrap();
        assert_eq!((txt.get("P"), txt.get("q")), (Some(&b"\xff\0"[..]), Some(&b""[..])));
    }

    #[test]
    fn what_no_message_can_carry_is_refused() {
        let string = [b'x'; 99];
        assert!(Txt::new(&vec![&string[..]; 90]).is_some());
        assert!(Txt::new(&vec![&string[..]; 91]).is_none());
        assert!(Txt::new(&vec![&b""[..]; 9001]).is_none());
    }
}
