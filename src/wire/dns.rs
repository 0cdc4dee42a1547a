//! DNS messages (RFC 1035, AAAA by RFC 3596), as far as finding the addresses of a name needs them.
//!
//! A name server that recurses answers with the whole chain of aliases at once, so every address in the answer section is
//! one of the name that was asked for. An answer that was cut short (TC) is good for what it has: that is 28 addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const HEADER: usize = 12;
const CLASS_IN: u16 = 1;
const RECURSION_DESIRED: u8 = 0x01;
const RESPONSE: u8 = 0x80;
const OPCODE: u8 = 0x78;
const RCODE: u8 = 0x0f;
const POINTER: u8 = 0xc0;
const LABEL_MAX: usize = 63;
/// Of a name with the length bytes of its labels.
const NAME_MAX: usize = 255;

/// The longest message over UDP that a name server may send unasked.
pub const MESSAGE_MAX: usize = 512;

/// What is asked for: addresses of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    A = 1,
    Aaaa = 28,
}

/// What a name server says.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// Perhaps none: the name exists, but has no address of this family.
    Addresses(Vec<IpAddr>),
    NoSuchName,
    /// It has none, for a reason of its own: the RCODE.
    Failed(u8),
}

/// A question for a name of ASCII letters, as `array.example.org`; `None` if it is none that DNS could have.
pub fn query(id: u16, name: &str, kind: Kind) -> Option<Vec<u8>> {
    let mut message = [&id.to_be_bytes()[..], &[RECURSION_DESIRED, 0, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
    for label in name.strip_suffix('.').unwrap_or(name).split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=LABEL_MAX).contains(&usize::from(*length)))?;
        message.push(length);
        message.extend_from_slice(label.as_bytes());
    }
    message.push(0);
    if message.len() > HEADER + NAME_MAX {
        return None;
    }
    message.extend_from_slice(&(kind as u16).to_be_bytes());
    message.extend_from_slice(&CLASS_IN.to_be_bytes());
    Some(message)
}

/// The answer to a `query`; `None` if the message is not that.
pub fn answer(query: &[u8], message: &[u8]) -> Option<Answer> {
    let (question, kind) = (query.get(HEADER..)?, u16_at(query, query.len().checked_sub(4)?)?);
    let (flags, rcode) = (*message.get(2)?, *message.get(3)? & RCODE);
    let is_ours = message.get(..2) == query.get(..2) && flags & RESPONSE != 0 && flags & OPCODE == 0;
    let asked = message.get(HEADER..)?.get(..question.len())?;
    if !is_ours || u16_at(message, 4)? != 1 || !asked.eq_ignore_ascii_case(question) {
        return None;
    }
    match rcode {
        0 => {}
        3 => return Some(Answer::NoSuchName),
        rcode => return Some(Answer::Failed(rcode)),
    }
    let mut rest = message.get(HEADER + question.len()..)?;
    let mut addresses = Vec::new();
    for _ in 0..u16_at(message, 6)? {
        // Cut short: what came so far counts.
        let Some((address, after)) = record(rest, kind) else {
            break;
        };
        addresses.extend(address);
        rest = after;
    }
    Some(Answer::Addresses(addresses))
}

/// The address in a resource record, if it has one of this kind, and what comes after the record.
fn record(bytes: &[u8], kind: u16) -> Option<(Option<IpAddr>, &[u8])> {
    let fixed = after_name(bytes)?;
    let (its_kind, class, length) = (u16_at(fixed, 0)?, u16_at(fixed, 2)?, usize::from(u16_at(fixed, 8)?));
    let (data, rest) = fixed.get(10..)?.split_at_checked(length)?;
    let is_asked_for = its_kind == kind && class == CLASS_IN;
    Some((if is_asked_for { address(kind, data) } else { None }, rest))
}

fn address(kind: u16, data: &[u8]) -> Option<IpAddr> {
    if kind == Kind::A as u16 {
        <[u8; 4]>::try_from(data).ok().map(|octets| Ipv4Addr::from(octets).into())
    } else {
        <[u8; 16]>::try_from(data).ok().map(|octets| Ipv6Addr::from(octets).into())
    }
}

/// Passes over a name: labels, and at the end a zero or a pointer, which need not be followed.
fn after_name(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes;
    loop {
        let (length, after) = rest.split_first()?;
        match length & POINTER {
            0 if *length == 0 => return Some(after),
            0 => rest = after.get(usize::from(*length)..)?,
            POINTER => return after.get(1..),
            _ => return None,
        }
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer with these flags, RCODE and records after an alias.
    fn message(query: &[u8], rcode: u8, records: &[(u16, &[u8])]) -> Vec<u8> {
        let mut message = query.to_vec();
        message[2] |= RESPONSE;
        message[3] = RESPONSE | rcode;
        message[7] = 1 + records.len() as u8;
        let mut push = |name: &[u8], kind: u16, data: &[u8]| {
            message.extend_from_slice(name);
            message.extend_from_slice(&kind.to_be_bytes());
            message.extend_from_slice(&[0, 1, 0, 0, 0, 60, 0, data.len() as u8]);
            message.extend_from_slice(data);
        };
        push(&[0xc0, 12], 5, b"\x05other\xc0\x12");
        records.iter().for_each(|(kind, data)| push(b"\x05other\xc0\x12", *kind, data));
        message
    }

    #[test]
    fn a_question_as_on_the_wire() {
        let expected = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x05array\x07example\x03org\0\0\x1c\0\x01";
        assert_eq!(query(0x1234, "array.example.org", Kind::Aaaa).unwrap(), expected);
        assert_eq!(query(0x1234, "array.example.org.", Kind::Aaaa).unwrap(), expected);
        for bad in ["", ".", "a..b", &"a".repeat(64), &"a.".repeat(128)] {
            assert_eq!(query(1, bad, Kind::A), None, "{bad}");
        }
    }

    #[test]
    fn addresses_behind_an_alias() {
        let query = query(7, "Array.example.org", Kind::A).unwrap();
        let records: [(u16, &[u8]); 4] = [(1, &[192, 0, 2, 1]), (28, &[1; 16]), (1, &[192, 0, 2, 2]), (1, &[1, 2])];
        let message = message(&query.to_ascii_lowercase(), 0, &records);
        let expected = ["192.0.2.1", "192.0.2.2"].map(|ip| ip.parse().unwrap());
        assert_eq!(answer(&query, &message), Some(Answer::Addresses(expected.to_vec())));
        // Cut anywhere after the question, it says less, and never anything else.
        for end in 0..message.len() {
            match answer(&query, &message[..end]) {
                None => assert!(end < query.len()),
                Some(Answer::Addresses(some)) => assert!(expected.starts_with(&some)),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn what_the_server_does_not_have() {
        let query = query(7, "array", Kind::A).unwrap();
        assert_eq!(answer(&query, &message(&query, 3, &[])), Some(Answer::NoSuchName));
        assert_eq!(answer(&query, &message(&query, 2, &[])), Some(Answer::Failed(2)));
        assert_eq!(answer(&query, &message(&query, 0, &[])), Some(Answer::Addresses(vec![])));
    }

    #[test]
    fn what_answers_another_question_is_none() {
        let ours = query(7, "array", Kind::A).unwrap();
        for other in [query(8, "array", Kind::A), query(7, "arrax", Kind::A), query(7, "array", Kind::Aaaa)] {
            assert_eq!(answer(&ours, &message(&other.unwrap(), 0, &[])), None);
        }
        assert_eq!(answer(&ours, &ours), None, "the question itself");
        assert_eq!(answer(&[], &ours), None);
    }
}
