//! What is wrong with a configuration file, said so that it can be repaired.
//!
//! A finding names file, line and key, and a message that says what is accepted. It may quote what stands in the file, but
//! never a secret, never a control character and never more than a line's worth: see [`quoted`].

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Findings of one file that are kept; the rest is only counted.
const FINDINGS_MAX: usize = 100;

/// Characters of a value that a message repeats.
const QUOTE_MAX: usize = 80;

/// How a secret begins, wherever in a value it stands.
const SECRET_PREFIXES: [&str; 2] = ["DHHC-1", "NVMeTLSkey-1"];

/// How far a remark reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Severity {
    /// Nothing is wrong, but it may not be what the administrator expects.
    Info,
    /// A part of the file is not used; the rest is.
    Warning,
    /// The file is not used.
    Error,
}

/// One remark about a configuration file. Displayed as `/etc/stas/stafd.conf:12: hdr-digest: "maybe" is not a boolean; …`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub path: PathBuf,
    /// Counted from 1; `None` where the finding is about the whole file.
    pub line: Option<usize>,
    pub key: Option<String>,
    pub severity: Severity,
    pub message: String,
}

impl Finding {
    /// A finding about the whole file.
    pub fn about(path: &Path, severity: Severity, message: impl Into<String>) -> Finding {
        Finding { path: path.to_owned(), line: None, key: None, severity, message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if let Some(key) = &self.key {
            write!(f, ": {key}")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// What came out of a file that can be used: the settings, and findings that are no errors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded<S> {
    pub settings: S,
    pub findings: Vec<Finding>,
}

/// Collects the findings of one file.
pub(super) struct Report<'a> {
    path: &'a Path,
    /// How bad a mistake in this file is: an error in TOML, which is written for this program; a warning in the nvme-stas
    /// dialect, where an existing installation has to keep working.
    mistake: Severity,
    findings: Vec<Finding>,
    /// Findings beyond [`FINDINGS_MAX`].
    surplus: usize,
    /// Whether there was an error. The first one is kept even if there are too many findings.
    broken: bool,
}

impl<'a> Report<'a> {
    pub(super) fn new(path: &'a Path, mistake: Severity) -> Report<'a> {
        Report { path, mistake, findings: Vec::new(), surplus: 0, broken: false }
    }

    pub(super) fn mistake(&mut self, line: usize, key: &str, message: impl Into<String>) {
        self.add(self.mistake, Some(line), key, message.into());
    }

    pub(super) fn warning(&mut self, line: usize, key: &str, message: impl Into<String>) {
        self.add(Severity::Warning, Some(line), key, message.into());
    }

    /// `key` may be empty.
    pub(super) fn add(&mut self, severity: Severity, line: Option<usize>, key: &str, message: String) {
        let first_error = severity == Severity::Error && !self.broken;
        self.broken |= first_error;
        if self.findings.len() >= FINDINGS_MAX && !first_error {
            self.surplus += 1;
            return;
        }
        let key = (!key.is_empty()).then(|| name(key));
        self.findings.push(Finding { path: self.path.to_owned(), line, key, severity, message });
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// In the order of the file.
    pub(super) fn into_findings(mut self) -> Vec<Finding> {
        self.findings.sort_by_key(|finding| finding.line);
        if self.surplus > 0 {
            let message = format!("{} more findings are not shown", self.surplus);
            self.findings.push(Finding::about(self.path, self.mistake, message));
        }
        self.findings
    }

    /// The settings, unless there is an error.
    pub(super) fn conclude<S>(self, settings: S) -> Result<Loaded<S>, Vec<Finding>> {
        if self.broken {
            return Err(self.into_findings());
        }
        Ok(Loaded { settings, findings: self.into_findings() })
    }
}

/// `text` in quotation marks, fit for a log line: escaped, shortened, and without a secret that somebody put there.
pub(super) fn quoted(text: &str) -> String {
    if SECRET_PREFIXES.iter().any(|prefix| text.contains(prefix)) {
        return "a secret (not shown)".to_owned();
    }
    let mut start: String = text.chars().take(QUOTE_MAX).collect();
    if start.len() < text.len() {
        start.push('…');
    }
    format!("{start:?}")
}

/// A key as a file has it, which may be anything, fit for a log line.
fn name(key: &str) -> String {
    let is_secret = |prefix: &&str| key.to_ascii_lowercase().contains(&prefix.to_ascii_lowercase());
    if SECRET_PREFIXES.iter().any(is_secret) {
        return "a secret (not shown)".to_owned();
    }
    key.chars().take(QUOTE_MAX).map(|char| if char.is_control() { '?' } else { char }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_shown_without_what_would_spoil_the_log() {
        assert_eq!(name("hdr-digest"), "hdr-digest");
        assert_eq!(name("a\0\x1b[2Jb"), "a??[2Jb");
        assert_eq!(name(&"k".repeat(1000)).len(), QUOTE_MAX);
        assert_eq!(name("dhhc-1:00:hunter2"), "a secret (not shown)");
    }

    #[test]
    fn displayed_with_file_line_and_key() {
        let mut report = Report::new(Path::new("/etc/stas/stafd.conf"), Severity::Warning);
        report.mistake(12, "tron", "is odd");
        let loaded = report.conclude(()).unwrap();
        assert_eq!(loaded.findings[0].to_string(), "/etc/stas/stafd.conf:12: tron: is odd");
        let whole = Finding::about(Path::new("/x"), Severity::Info, "is missing");
        assert_eq!(whole.to_string(), "/x: is missing");
    }

    #[test]
    fn errors_survive_a_flood_of_warnings() {
        let mut report = Report::new(Path::new("x"), Severity::Warning);
        for line in 1..1000 {
            report.mistake(line, "", "bad");
        }
        report.add(Severity::Error, Some(1000), "", "worse".into());
        let findings = report.conclude(()).unwrap_err();
        assert_eq!(findings.len(), FINDINGS_MAX + 2);
        assert!(findings.iter().any(|finding| finding.severity == Severity::Error));
        assert_eq!(findings.last().unwrap().message, "899 more findings are not shown");
    }

    #[test]
    fn quotes_are_short_printable_and_hold_no_secret() {
        assert_eq!(quoted("a\0\n"), r#""a\0\n""#);
        assert!(quoted(&"x".repeat(1 << 20)).len() < 100);
        assert!(!quoted("dhchap-secret DHHC-1:00:c2VjcmV0:").contains("c2Vj"));
    }
}
