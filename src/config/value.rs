//! Values as a file has them, and how each type of setting is read from one.
//!
//! The dialect of nvme-stas has only text, TOML has types; both become a [`Value`], so that every key has one reader. A
//! reader that refuses says what it found and what it accepts. Sources for the words: the stafd.conf(5) and stacd.conf(5)
//! manuals of nvme-stas and its configuration parser.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::finding::quoted;
use crate::config::settings::{DisconnectScope, IpFamily, Persistence, Persistent};
use crate::core::tid::Transport;

/// The right-hand side of a key.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// Untyped text (INI): may be anything.
    Bare(String),
    /// A TOML string.
    Text(String),
    Integer(i64),
    Boolean(bool),
    /// A TOML array of strings.
    List(Vec<String>),
    /// A controller or an exclusion.
    Table(Vec<Entry>),
    /// A TOML type that no key takes; its name.
    Other(&'static str),
}

/// One key with its value, and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    /// Only in INI; TOML keys need none.
    pub(super) section: Option<String>,
    pub(super) key: String,
    pub(super) value: Value,
    /// Counted from 1.
    pub(super) line: usize,
}

impl Value {
    pub(super) fn boolean(&self) -> Result<bool, String> {
        match self {
            Value::Boolean(on) => Ok(*on),
            Value::Bare(text) if text.eq_ignore_ascii_case("true") => Ok(true),
            Value::Bare(text) if text.eq_ignore_ascii_case("false") => Ok(false),
            _ => Err(self.is_not("a boolean", "true, false")),
        }
    }

    /// `enabled` and `disabled`, or a TOML boolean.
    pub(super) fn enabled(&self) -> Result<bool, String> {
        match self {
            Value::Boolean(on) => Ok(*on),
            _ => self.choice(&[("enabled", true), ("disabled", false)]),
        }
    }

    /// An integer in `range`.
    pub(super) fn integer<T>(&self, range: RangeInclusive<T>) -> Result<T, String>
    where
        T: TryFrom<i64> + Into<i64> + Copy + PartialOrd,
    {
        let number = match self {
            Value::Integer(number) => Some(*number),
            Value::Bare(text) => text.parse::<i64>().ok(),
            _ => None,
        };
        let accepted = format!("{} to {}", (*range.start()).into(), (*range.end()).into());
        let Some(number) = number else {
            return Err(self.is_not("an integer", &accepted));
        };
        match T::try_from(number) {
            Ok(value) if range.contains(&value) => Ok(value),
            _ => Err(format!("{number} is out of range; accepted: {accepted}")),
        }
    }

    /// Any text; may be empty.
    pub(super) fn text(&self) -> Result<&str, String> {
        match self {
            Value::Bare(text) | Value::Text(text) => Ok(text),
            _ => Err(self.is_not("a string", "text")),
        }
    }

    /// Text that can stand in an option of the kernel's connect call, where commas separate and white space is no part of
    /// anything. Refusing them here also keeps a value from smuggling in other options.
    pub(super) fn word(&self) -> Result<&str, String> {
        let text = self.text()?;
        if text.is_empty() {
            return Err("has no value".to_owned());
        }
        if text.chars().any(|c| c == ',' || c.is_whitespace() || c.is_control()) {
            return Err(format!("{} contains a comma, white space or a control character", quoted(text)));
        }
        Ok(text)
    }

    /// A TCP or UDP port, or a word in place of one (`none` for FC): a TOML file may give a number.
    pub(super) fn service_id(&self) -> Result<String, String> {
        match self {
            Value::Integer(_) => self.integer(1..=u16::MAX).map(|port| port.to_string()),
            _ => self.word().map(str::to_owned),
        }
    }

    pub(super) fn transport(&self) -> Result<Transport, String> {
        let word = self.text()?;
        Transport::parse(word).ok_or_else(|| self.is_not("a transport", "tcp, rdma, fc, loop"))
    }

    /// Transports joined with `+`, each once.
    pub(super) fn transports(&self) -> Result<Vec<Transport>, String> {
        let mut transports = Vec::new();
        for word in self.text()?.split('+') {
            match Transport::parse(word.trim()).filter(|transport| *transport != Transport::Loop) {
                Some(transport) if transports.contains(&transport) => {}
                Some(transport) => transports.push(transport),
                None => return Err(self.is_not("a list of transports", "tcp, rdma, fc, joined with +")),
            }
        }
        Ok(transports)
    }

    pub(super) fn ip_family(&self) -> Result<IpFamily, String> {
        self.choice(&[
            ("ipv4", IpFamily::Ipv4),
            ("ipv6", IpFamily::Ipv6),
            ("ipv4+ipv6", IpFamily::Ipv4Ipv6),
            ("ipv6+ipv4", IpFamily::Ipv6Ipv4),
        ])
    }

    pub(super) fn disconnect_scope(&self) -> Result<DisconnectScope, String> {
        self.choice(&[
            ("only-stas-connections", DisconnectScope::OnlyStasConnections),
            ("all-connections-matching-disconnect-trtypes", DisconnectScope::AllConnectionsMatchingDisconnectTrtypes),
            ("no-disconnect", DisconnectScope::NoDisconnect),
        ])
    }

    pub(super) fn persistent(&self) -> Result<Persistent, String> {
        self.choice(&[("no", Persistent::No), ("auto", Persistent::Auto), ("force", Persistent::Force)])
    }

    /// Seconds, or a time span; a second at least.
    pub(super) fn interval(&self) -> Result<Duration, String> {
        match self.persistence() {
            Ok(Persistence::For(span)) if span >= Duration::from_secs(1) => Ok(span),
            _ => Err(self
                .is_not("an interval", "seconds, or numbers with days, hours, minutes, seconds; one second at least")),
        }
    }

    /// Files, each by its path from the root on; without an array, separated by white space.
    pub(super) fn paths(&self) -> Result<Vec<PathBuf>, String> {
        let words: Vec<&str> = match self {
            Value::List(words) => words.iter().map(String::as_str).collect(),
            _ => self.text()?.split_whitespace().collect(),
        };
        match words.iter().find(|word| !word.starts_with('/')) {
            Some(word) => Err(format!("{} is not a path from the root on", quoted(word))),
            None => Ok(words.into_iter().map(PathBuf::from).collect()),
        }
    }

    /// Seconds, or a time span such as `72hours`, `3 days 5 hours`, `1:30:00`. Anything negative is for ever.
    pub(super) fn persistence(&self) -> Result<Persistence, String> {
        let seconds = match self {
            Value::Integer(seconds) => Some(*seconds as f64),
            Value::Bare(text) | Value::Text(text) => parse_seconds(text),
            _ => None,
        };
        match seconds {
            Some(seconds) if seconds < 0.0 => Some(Persistence::Forever),
            Some(seconds) => Duration::try_from_secs_f64(seconds).ok().map(Persistence::For),
            None => None,
        }
        .ok_or_else(|| {
            self.is_not("a time span", "seconds, or numbers with days, hours, minutes, seconds, or -1 for ever")
        })
    }

    fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Result<T, String> {
        let found = self.text().ok().and_then(|text| choices.iter().find(|(word, _)| text.eq_ignore_ascii_case(word)));
        found.map(|(_, value)| *value).ok_or_else(|| {
            let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            format!("{} is not one of: {}", self.describe(), words.join(", "))
        })
    }

    fn is_not(&self, what: &str, accepted: &str) -> String {
        format!("{} is not {what}; accepted: {accepted}", self.describe())
    }

    fn describe(&self) -> String {
        match self {
            Value::Bare(text) | Value::Text(text) => quoted(text),
            Value::Integer(number) => number.to_string(),
            Value::Boolean(on) => on.to_string(),
            Value::List(_) => "an array".to_owned(),
            Value::Table(_) => "a table".to_owned(),
            Value::Other(name) => name.to_string(),
        }
    }
}

/// Plain seconds, numbers with units in any order, or a clock (`[[days:]hours:]minutes:seconds`).
fn parse_seconds(text: &str) -> Option<f64> {
    let text = text.trim();
    if text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) && !text.ends_with(char::is_alphabetic) {
        if let Ok(seconds) = text.parse() {
            return Some(seconds);
        }
        return parse_clock(text);
    }
    let mut seconds = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let (number, after) = split_where(rest, |c| !c.is_ascii_digit() && c != '.');
        let (unit, after) = split_where(after.trim_start(), |c| !c.is_ascii_alphabetic());
        seconds += number.parse::<f64>().ok()? * unit_seconds(unit)?;
        rest = after.trim_start_matches(|c: char| c.is_whitespace() || c == ',' || c == '/');
    }
    (!text.is_empty()).then_some(seconds)
}

fn parse_clock(text: &str) -> Option<f64> {
    let units = [1.0, 60.0, 3600.0, 86400.0];
    let parts: Vec<&str> = text.split(':').collect();
    if parts.len() < 2 || parts.len() > units.len() {
        return None;
    }
    let seconds =
        parts.iter().rev().zip(units).map(|(part, unit)| part.parse::<u32>().ok().map(|n| f64::from(n) * unit));
    seconds.sum()
}

fn unit_seconds(unit: &str) -> Option<f64> {
    match unit.to_ascii_lowercase().as_str() {
        "d" | "dy" | "dys" | "day" | "days" => Some(86400.0),
        "h" | "hr" | "hrs" | "hour" | "hours" => Some(3600.0),
        "m" | "min" | "mins" | "minute" | "minutes" => Some(60.0),
        "s" | "sec" | "secs" | "second" | "seconds" => Some(1.0),
        _ => None,
    }
}

fn split_where(text: &str, at: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(at).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bare(text: &str) -> Value {
        Value::Bare(text.to_owned())
    }

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    #[test]
    fn bare_text_may_be_of_any_type_but_a_string_is_a_string() {
        assert_eq!(bare("True").boolean(), Ok(true));
        assert_eq!(bare("16").integer(16u16..=1024), Ok(16));
        assert_eq!(bare("-1").integer(-1i32..=i32::MAX), Ok(-1));
        assert!(text("true").boolean().is_err());
        assert!(text("16").integer(16u16..=1024).is_err());
        assert_eq!(Value::Boolean(false).enabled(), Ok(false));
        assert_eq!(text("Enabled").enabled(), Ok(true));
        assert!(bare("true").enabled().is_err());
    }

    #[test]
    fn refusals_say_what_is_accepted() {
        let error = bare("maybe").boolean().unwrap_err();
        assert_eq!(error, r#""maybe" is not a boolean; accepted: true, false"#);
        let error = Value::Integer(1 << 40).integer(0u32..=10).unwrap_err();
        assert_eq!(error, "1099511627776 is out of range; accepted: 0 to 10");
        let error = Value::Boolean(true).ip_family().unwrap_err();
        assert_eq!(error, "true is not one of: ipv4, ipv6, ipv4+ipv6, ipv6+ipv4");
    }

    #[test]
    fn a_word_cannot_carry_a_second_connect_option() {
        for bad in ["", "nqn.x,dhchap_secret=y", "eth0 # comment", "a\0b", "a\nb"] {
            assert!(bare(bad).word().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn transports_are_joined_with_plus() {
        use Transport::{Fc, Rdma, Tcp};
        assert_eq!(bare("tcp+rdma+fc+tcp").transports(), Ok(vec![Tcp, Rdma, Fc]));
        for bad in ["", "tcp+", "tcp,rdma", "loop", "pcie"] {
            assert!(bare(bad).transports().is_err(), "{bad}");
        }
    }

    #[test]
    fn time_spans_as_nvme_stas_reads_them() {
        let hours = |n: u64| Ok(Persistence::For(Duration::from_secs(n * 3600)));
        assert_eq!(bare("72hours").persistence(), hours(72));
        assert_eq!(bare("5days").persistence(), hours(120));
        assert_eq!(bare("3 days 5 hours").persistence(), hours(77));
        assert_eq!(bare("1d, 60min / 3600 secs").persistence(), hours(26));
        assert_eq!(bare("1.5H 30m").persistence(), hours(2));
        assert_eq!(bare("01:00:00").persistence(), hours(1));
        assert_eq!(bare("1:01:00:00").persistence(), hours(25));
        assert_eq!(bare("3600").persistence(), hours(1));
        assert_eq!(text("3600.0").persistence(), hours(1));
        assert_eq!(Value::Integer(0).persistence(), hours(0));
        assert_eq!(Value::Integer(-1).persistence(), Ok(Persistence::Forever));
        assert_eq!(bare("-1").persistence(), Ok(Persistence::Forever));
        for bad in ["", "x", "days", "5 fortnights", "1e400", "inf", "nan", ":", "1:", "1:2:3:4:5", ".", "1e30d"] {
            assert!(bare(bad).persistence().is_err(), "{bad}");
        }
    }
}
