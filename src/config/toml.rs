//! Our own syntax: a TOML file with keys at the top level and `[[controller]]`, `[[exclude]]` tables.
//!
//! Reads only the form; which keys there are, and what they accept, is not known here. All syntax errors are reported, not
//! just the first; what the keys say is judged once there is none. The parser of the `toml` crate limits nesting, so hostile input cannot exhaust the stack.

use ::toml::Spanned;
use ::toml::de::{DeTable, DeValue};

use crate::config::finding::Report;
use crate::config::value::{Entry, Value};

/// Bytes of a line that are looked at for what may help.
const LINE_MAX: usize = 100;

/// Every key with its value. Errors end up in `report`; then the entries are of no use.
pub(super) fn read(text: &str, report: &mut Report<'_>) -> Vec<Entry> {
    let lines = Lines::of(text);
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let line = error.span().map_or(1, |span| lines.number(span.start));
        report.mistake(line, "", format!("no TOML: {}{}", error.message(), remedy(lines.beginning(text, line))));
    }
    if errors.is_empty() { entries_of(document.get_ref(), &lines) } else { Vec::new() }
}

/// What most likely helps against a syntax error in this line: an address without quotation marks looks like half a number.
fn remedy(line: &[u8]) -> &'static str {
    let mut value = line.iter().skip_while(|byte| **byte != b'=').skip(1).skip_while(|byte| **byte == b' ');
    match value.next() {
        Some(byte) if byte.is_ascii_alphanumeric() || b"/:".contains(byte) => "; text stands in quotation marks",
        _ => "",
    }
}

/// A key that holds an array of tables becomes one entry for each of them.
fn entries_of(table: &DeTable<'_>, lines: &Lines) -> Vec<Entry> {
    let mut entries = Vec::new();
    for (key, value) in table {
        let key_line = lines.number(key.span().start);
        let mut push = |value, line| {
            entries.push(Entry { section: None, key: key.get_ref().to_string(), value, line });
        };
        match value.get_ref() {
            DeValue::Array(items)
                if !items.is_empty() && items.iter().all(|item| matches!(item.get_ref(), DeValue::Table(_))) =>
            {
                for item in items {
                    push(value_of(item.get_ref(), lines), lines.number(item.span().start));
                }
            }
            other => push(value_of(other, lines), key_line),
        }
    }
    entries
}

fn value_of(value: &DeValue<'_>, lines: &Lines) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Integer(number),
            Err(_) => Value::Other("an integer of more than 64 bits"),
        },
        DeValue::Boolean(on) => Value::Boolean(*on),
        DeValue::Table(table) => Value::Table(entries_of(table, lines)),
        DeValue::Float(_) => Value::Other("a number with a fraction"),
        DeValue::Datetime(_) => Value::Other("a date"),
        DeValue::Array(items) => {
            let text = |item: &Spanned<DeValue<'_>>| item.get_ref().as_str().map(str::to_owned);
            items.iter().map(text).collect::<Option<_>>().map_or(Value::Other("an array"), Value::List)
        }
    }
}

/// Where the lines of a text begin.
struct Lines {
    starts: Vec<usize>,
}

impl Lines {
    fn of(text: &str) -> Lines {
        let after_breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Lines { starts: std::iter::once(0).chain(after_breaks).collect() }
    }

    /// The number, from 1, of the line that holds the byte at `offset`.
    fn number(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset)
    }

    /// The first bytes of the line of this number; of a long one not all, for there may be a mistake in each of them.
    fn beginning<'a>(&self, text: &'a str, number: usize) -> &'a [u8] {
        let start = self.starts.get(number.saturating_sub(1)).copied().unwrap_or_default();
        let rest = text.as_bytes().get(start..).unwrap_or_default();
        let line = rest.get(..LINE_MAX).unwrap_or(rest);
        line.split(|byte| *byte == b'\n').next().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::finding::{Finding, Severity};

    fn read_all(text: &str) -> Result<Vec<Entry>, Vec<Finding>> {
        let mut report = Report::new(Path::new("test.conf"), Severity::Error);
        let entries = read(text, &mut report);
        report.conclude(entries).map(|loaded| loaded.settings)
    }

    #[test]
    fn tables_and_keys_carry_their_lines() {
        let entries =
            read_all("tron = true\n\n[[controller]]\ntransport = 'tcp'\n\n[[controller]]\nkato = 5\n").unwrap();
        let lines: Vec<(&str, usize)> = entries.iter().map(|entry| (entry.key.as_str(), entry.line)).collect();
        assert_eq!(lines, [("controller", 3), ("controller", 6), ("tron", 1)]);
        let Value::Table(fields) = &entries[0].value else { panic!("{entries:?}") };
        assert_eq!(fields[0].line, 4);
        assert_eq!(fields[0].value, Value::Text("tcp".to_owned()));
    }

    #[test]
    fn all_syntax_errors_are_told_with_their_lines() {
        let findings = read_all("tron = maybe\nkato = 5\nkato = 6\nx = [\n").unwrap_err();
        let lines: Vec<_> = findings.iter().map(|finding| finding.line.unwrap()).collect();
        assert!(lines.contains(&1) && lines.contains(&3), "{findings:?}");
    }

    #[test]
    fn syntax_errors_hold_no_part_of_a_secret() {
        for bad in
            ["dhchap-secret = hunter2", "dhchap-secret = \"hunter2", "dhchap-secret hunter2", "\"hunter2\"\nx=1\nx=1"]
        {
            for finding in read_all(bad).unwrap_err() {
                assert!(!finding.to_string().contains("hunter2"), "{finding}");
            }
        }
    }

    #[test]
    fn nesting_is_bounded() {
        for open in ["x = ", "[", "x."] {
            let deep = format!("{}{}", open, "[".repeat(100_000));
            assert!(read_all(&deep).is_err());
        }
        let dotted = format!("{}x = 1", "x.".repeat(100_000));
        let tables = format!("x = {}", "{x=".repeat(100_000));
        assert!(read_all(&dotted).is_err());
        assert!(read_all(&tables).is_err());
    }
}
