//! The dialect of nvme-stas: sections, repeatable keys, controllers as `key=value` joined with `;`.
//!
//! It is what Python's `configparser` makes of a file as nvme-stas sets it up: `=` alone separates key and value, keys are
//! taken without case and may repeat, `#` and `;` begin a comment only as the first character of a line, and a line that is
//! indented deeper than its key is one more value of that key, blank lines and comments in between notwithstanding.
//!
//! Reads only the form; which keys there are, and what they accept, is not known here. Every mistake is a warning.

use std::path::Path;

use crate::config::finding::{Report, Severity, quoted};
use crate::config::keys::{CONTROLLERS, DISCOVERY_MANAGEMENT, GLOBAL, IO_MANAGEMENT, SECTIONS};
use crate::config::value::{Entry, Value};

/// Whether this is a file for nvme-stas: one of its sections begins in it. No TOML file of ours has a table of such a name.
pub(super) fn is_ini(text: &str) -> bool {
    text.lines().filter_map(|line| section_header(line.trim())).any(|name| SECTIONS.contains(&name))
}

/// Every key with its value, in the order of the file. What is not understood is reported and left out.
pub(super) fn read(text: &str, report: &mut Report<'_>) -> Vec<Entry> {
    let mut entries = Reader::over(text, report).entries;
    entries.retain_mut(|entry| !is_placeholder(entry) && modernise(entry, report));
    for entry in &mut entries {
        if entry.section.as_deref() == Some(CONTROLLERS) {
            split_controller(entry, report);
        }
    }
    entries
}

/// Where sections and keys stand, for who wants to change a file. Lines are counted from 1.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    Section {
        name: String,
        line: usize,
    },
    /// A key of the section that the last [`Place::Section`] names, with the lines that continue its value.
    Key {
        key: String,
        lines: Vec<usize>,
    },
}

/// The places in the order of the file.
pub(super) fn places(text: &str) -> Vec<Place> {
    // What is wrong with the file is told to who reads it.
    let mut report = Report::new(Path::new(""), Severity::Warning);
    Reader::over(text, &mut report).places
}

#[derive(Default)]
struct Reader {
    section: Option<Section>,
    /// Columns by which the last key or section was indented.
    indent: usize,
    entries: Vec<Entry>,
    places: Vec<Place>,
}

struct Section {
    name: String,
    /// An unknown section is reported once, and its keys are not read.
    known: bool,
    /// The key that an indented line continues.
    key: Option<String>,
}

impl Reader {
    fn over(text: &str, report: &mut Report<'_>) -> Reader {
        let mut reader = Reader::default();
        for (index, line) in text.lines().enumerate() {
            reader.line(line, index + 1, report);
        }
        reader
    }

    fn line(&mut self, line: &str, number: usize, report: &mut Report<'_>) {
        let text = line.trim();
        if text.is_empty() || text.starts_with(['#', ';']) {
            return;
        }
        let indent = line.len() - line.trim_start().len();
        let continued = match &self.section {
            Some(Section { key: Some(key), .. }) if indent > self.indent => Some(key.clone()),
            _ => None,
        };
        if let Some(key) = continued {
            return self.continuation(key, text, number);
        }
        self.indent = indent;
        if let Some(name) = section_header(text) {
            let known = SECTIONS.contains(&name);
            if !known {
                let known = SECTIONS.join("], [");
                report.mistake(number, "", format!("unknown section {}, ignored; known: [{known}]", quoted(name)));
            }
            self.section = Some(Section { name: name.to_owned(), known, key: None });
            self.places.push(Place::Section { name: name.to_owned(), line: number });
            return;
        }
        let Some(section) = &mut self.section else {
            report.mistake(number, "", "this line stands before the first [section], ignored");
            return;
        };
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        let key = key.trim().to_lowercase();
        section.key = Some(key.clone());
        self.places.push(Place::Key { key: key.clone(), lines: vec![number] });
        self.push(key, value.trim(), number);
    }

    fn continuation(&mut self, key: String, value: &str, line: usize) {
        if let Some(Place::Key { lines, .. }) = self.places.last_mut() {
            lines.push(line);
        }
        // `controller =` alone on its line only opens the list that follows.
        let opens = |entry: &mut Entry| entry.key == key && entry.value == Value::Bare(String::new());
        self.entries.pop_if(opens);
        self.push(key, value, line);
    }

    fn push(&mut self, key: String, value: &str, line: usize) {
        if let Some(section) = self.section.as_ref().filter(|section| section.known) {
            let section = Some(section.name.clone());
            self.entries.push(Entry { section, key, value: Value::Bare(value.to_owned()), line });
        }
    }
}

/// The name in `[name]`; what follows the bracket does not count.
fn section_header(line: &str) -> Option<&str> {
    line.strip_prefix('[')?.split_once(']').map(|(name, _)| name).filter(|name| !name.is_empty())
}

/// `controller=` and `exclude=` without a value: how the files that nvme-stas ships show that there are none.
fn is_placeholder(entry: &Entry) -> bool {
    entry.section.as_deref() == Some(CONTROLLERS) && entry.value == Value::Bare(String::new())
}

/// Keys that other releases of nvme-stas have: translated where they still mean something. False drops the entry.
fn modernise(entry: &mut Entry, report: &mut Report<'_>) -> bool {
    let section = entry.section.as_deref().unwrap_or_default();
    let no_effect = match (section, entry.key.as_str()) {
        // Releases 1.0 to 1.1.
        (CONTROLLERS, "blacklist") => {
            entry.key = "exclude".to_owned();
            report.warning(entry.line, "blacklist", "taken as exclude, its name since nvme-stas 2.0");
            return true;
        }
        // Releases 1.0 to 2.0.
        (GLOBAL, "persistent-connections") => {
            entry.section = Some(DISCOVERY_MANAGEMENT.to_owned());
            let message = format!("taken as of [{DISCOVERY_MANAGEMENT}], its section since nvme-stas 2.1");
            report.warning(entry.line, "persistent-connections", message);
            return true;
        }
        // Release 3, whose files are no more at these paths, but may have been copied.
        (DISCOVERY_MANAGEMENT, "dc-giveup-timeout") => {
            renamed(entry, "zeroconf-connections-persistence", |span| span.replace("infinity", "-1"), report);
            return true;
        }
        (DISCOVERY_MANAGEMENT, "epcsd-poll-interval-minutes") => {
            renamed(entry, "polling-interval", |minutes| format!("{minutes}min"), report);
            return true;
        }
        (GLOBAL, "udev-rule") => {
            "no longer has an effect: the udev rule of nvme-cli is always overridden while the daemon runs".to_owned()
        }
        (GLOBAL, "sticky-connections") => {
            format!("no longer has an effect: use disconnect-scope in [{IO_MANAGEMENT}]")
        }
        _ => return true,
    };
    report.warning(entry.line, &entry.key, no_effect);
    false
}

/// A key of nvme-stas 3 that has another name here.
fn renamed(entry: &mut Entry, to: &str, value: impl Fn(&str) -> String, report: &mut Report<'_>) {
    report.warning(entry.line, &entry.key, format!("taken as {to}, its name here"));
    if let Value::Bare(text) = &mut entry.value {
        *text = value(text);
    }
    entry.key = to.to_owned();
}

/// Turns the `transport=tcp;traddr=…` of a controller or an exclusion into a table.
///
/// nvme-stas has no comments behind a value, but the examples in its own files have, and people copy them. Since nothing in
/// a controller contains white space followed by `#`, that is a comment here.
fn split_controller(entry: &mut Entry, report: &mut Report<'_>) {
    let Value::Bare(text) = &entry.value else {
        return;
    };
    let comment =
        text.char_indices().zip(text.chars().skip(1)).find(|((_, c), next)| c.is_whitespace() && *next == '#');
    let (text, comment) = match comment {
        Some(((at, _), _)) => text.split_at(at),
        None => (text.as_str(), ""),
    };
    if !comment.is_empty() {
        report.warning(entry.line, &entry.key, "what follows # is taken as a comment");
    }
    let mut fields = Vec::new();
    for (index, part) in text.split(';').map(str::trim).enumerate().filter(|(_, part)| !part.is_empty()) {
        // Base64 may end in `=`: only the first one separates.
        if let Some((key, value)) = part.split_once('=') {
            let value = Value::Bare(value.trim().to_owned());
            fields.push(Entry { section: None, key: key.trim().to_owned(), value, line: entry.line });
        } else {
            // Not quoted: it may be a part of a secret.
            report.mistake(entry.line, &entry.key, format!("part {} is not of the form key=value, ignored", index + 1));
        }
    }
    entry.value = Value::Table(fields);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::finding::Finding;

    fn read_all(text: &str) -> (Vec<(String, Value, usize)>, Vec<Finding>) {
        let mut report = Report::new(Path::new("test.conf"), Severity::Warning);
        let entries = read(text, &mut report);
        let entries = entries.into_iter().map(|entry| (entry.key, entry.value, entry.line)).collect();
        (entries, report.conclude(()).unwrap().findings)
    }

    fn bare(key: &str, value: &str, line: usize) -> (String, Value, usize) {
        (key.to_owned(), Value::Bare(value.to_owned()), line)
    }

    #[test]
    fn recognised_by_its_sections() {
        assert!(is_ini("# c\n\n  [Global] # c\ntron=true"));
        assert!(is_ini("[Host]"));
        assert!(!is_ini("tron = true\n[[controller]]\n"));
        assert!(!is_ini("# [Global]\n"));
        assert!(!is_ini(""));
    }

    #[test]
    fn lines_are_taken_as_configparser_takes_them() {
        let text = "[Global]\n# c\n; c\nTRON = true # no comment\n\n kato:5\n[Host]\nnqn\n a=b=c\n";
        let (entries, findings) = read_all(text);
        let expected = [bare("tron", "true # no comment", 4), bare("tron", "kato:5", 6), bare("nqn", "a=b=c", 9)];
        assert_eq!(entries, expected);
        assert_eq!(findings, []);
    }

    #[test]
    fn an_evenly_indented_section_is_no_continuation() {
        let (entries, _) = read_all("[Global]\n  tron=true\n  kato=5\n\t\t\t\n kato=6\n");
        assert_eq!(entries, [bare("tron", "true", 2), bare("kato", "5", 3), bare("kato", "6", 5)]);
    }

    #[test]
    fn unknown_sections_are_reported_once_and_skipped() {
        let (entries, findings) = read_all("stray\n[Babylon]\na=1\n b\n[Global]\ntron=true\n");
        assert_eq!(entries, [bare("tron", "true", 6)]);
        assert_eq!(findings.iter().map(|finding| finding.line).collect::<Vec<_>>(), [Some(1), Some(2)]);
    }

    #[test]
    fn controllers_become_tables() {
        let (entries, findings) = read_all(
            "[Controllers]\ncontroller =\n  transport = tcp ; traddr=::1;;\n  dhchap-secret=a==:\nexclude=host-iface=e0 # x\n",
        );
        let field = |key: &str, value: &str, line| Entry {
            section: None,
            key: key.to_owned(),
            value: Value::Bare(value.to_owned()),
            line,
        };
        let expected = [
            ("controller", vec![field("transport", "tcp", 3), field("traddr", "::1", 3)], 3),
            ("controller", vec![field("dhchap-secret", "a==:", 4)], 4),
            ("exclude", vec![field("host-iface", "e0", 5)], 5),
        ];
        let expected = expected.map(|(key, fields, line)| (key.to_owned(), Value::Table(fields), line));
        assert_eq!(entries, expected);
        assert_eq!(findings.len(), 1);
    }

    #[test]
    fn keys_of_earlier_releases_are_translated_or_explained() {
        let (entries, findings) = read_all(
            "[Global]\npersistent-connections=false\nudev-rule=enabled\nsticky-connections=enabled\n[Controllers]\n\
             blacklist=transport=tcp\n",
        );
        let keys: Vec<&str> = entries.iter().map(|(key, ..)| key.as_str()).collect();
        assert_eq!(keys, ["persistent-connections", "exclude"]);
        assert_eq!(findings.len(), 4);
    }

    #[test]
    fn keys_of_release_3_are_translated() {
        let (entries, findings) = read_all(
            "[Discovery controller connection management]\ndc-giveup-timeout=infinity\nepcsd-poll-interval-minutes=5\n",
        );
        let expected = [bare("zeroconf-connections-persistence", "-1", 2), bare("polling-interval", "5min", 3)];
        assert_eq!(entries, expected);
        assert_eq!(findings.len(), 2);
    }

    #[test]
    fn no_controller_is_none() {
        assert_eq!(read_all("[Controllers]\ncontroller=\nexclude =\n"), (vec![], vec![]));
    }

    #[test]
    fn a_part_that_may_be_a_secret_is_not_repeated() {
        let (_, findings) = read_all("[Controllers]\ncontroller=transport=tcp;dhchap-secret hunter2\n");
        assert!(!findings[0].to_string().contains("hunter2"));
    }
}
