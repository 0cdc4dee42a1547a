//! Changing one key of `sys.conf` and nothing else: comments, order and syntax stay as the administrator left them.
//!
//! Only the bytes of the value are replaced, or a line is added below the comment that shows the key's default, or the key's
//! lines are removed. The result is read again before anybody writes it: a change that does not do what it should, or that
//! changes another key as well, is an error here and never reaches the file.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use ::toml::de::DeTable;

use crate::config::identity::{IdentitySources, parse_identity};
use crate::config::ini::{self, Place};
use crate::config::keys::HOST;
use crate::config::{Syntax, file};

/// Sets `key` of the `sys.conf` at `path` to `value`, or removes it. A file that does not exist is made.
///
/// # Errors
/// One line: the file cannot be read, is broken, or cannot be written.
pub fn edit_identity(path: &Path, key: &str, value: Option<&str>) -> Result<(), String> {
    let at = |why: String| format!("{}: {why}", path.display());
    let text = match file::read(path) {
        Ok(contents) => match contents.garbled_line {
            Some(line) => return Err(at(format!("line {line} is not valid UTF-8; repair it first"))),
            None => contents.text,
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(at(format!("cannot be read: {error}"))),
    };
    let edited = edit(&text, path, key, value)?;
    if edited == text {
        Ok(())
    } else {
        replace_file(path, &edited).map_err(|error| at(format!("cannot be written: {error}")))
    }
}

/// The same to the text of one; `path` is for messages.
///
/// # Errors
/// One line: it is broken, or cannot be changed without harm.
pub fn edit(text: &str, path: &Path, key: &str, value: Option<&str>) -> Result<String, String> {
    let read = |text: &str| match parse_identity(text, path) {
        Ok(loaded) => Ok(loaded.settings),
        Err(findings) => Err(findings.first().map(ToString::to_string).unwrap_or_default()),
    };
    let mut wanted = read(text)?;
    match field(&mut wanted, key) {
        Some(field) => *field = value.unwrap_or_default().to_owned(),
        None => return Err(format!("there is no key {key}")),
    }
    let edited = match Syntax::of(text) {
        Syntax::Toml => edit_toml(text, key, value),
        Syntax::Ini => edit_ini(text, key, value),
    };
    match read(&edited) {
        Ok(actual) if actual == wanted => Ok(edited),
        _ => Err(format!("{}: {key} cannot be changed without harm; change it with an editor", path.display())),
    }
}

fn field<'a>(sources: &'a mut IdentitySources, key: &str) -> Option<&'a mut String> {
    match key {
        "nqn" => Some(&mut sources.nqn),
        "id" => Some(&mut sources.id),
        "symname" => Some(&mut sources.symname),
        _ => None,
    }
}

fn edit_toml(text: &str, key: &str, value: Option<&str>) -> String {
    let value = value.map(toml_string);
    let document = DeTable::parse(text).ok();
    let found = document.as_ref().and_then(|document| {
        let mut keys = document.get_ref().iter();
        keys.find(|(name, _)| name.get_ref() == key).map(|(name, value)| (name.span().start, value.span()))
    });
    match (found, value) {
        (Some((_, span)), Some(value)) => splice(text, span, &value),
        // What follows the value is its comment, which stays.
        (Some((start, span)), None) => {
            let rest = text.get(span.end..).unwrap_or_default();
            let blanks = rest.len().saturating_sub(rest.trim_start_matches([' ', '\t', '\r']).len());
            let end = span.end.saturating_add(blanks);
            let end =
                if text.get(end..).is_some_and(|rest| rest.starts_with('\n')) { end.saturating_add(1) } else { end };
            splice(text, start..end, "")
        }
        (None, Some(value)) => {
            let lines: Vec<&str> = text.split_inclusive('\n').collect();
            let after = default_shown(&lines, 0..lines.len(), key).unwrap_or(lines.len());
            insert(&lines, after, &format!("{key} = {value}"))
        }
        (None, None) => text.to_owned(),
    }
}

fn edit_ini(text: &str, key: &str, value: Option<&str>) -> String {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let host = Host::of(text, &lines, key);
    match (value, host.keys.last()) {
        (None, _) => {
            let gone: Vec<usize> = host.keys.into_iter().flatten().collect();
            without(&lines, &gone)
        }
        (Some(value), Some(of_key)) => {
            let (first, continued) = of_key.split_first().unwrap_or((&0, &[]));
            let replace = |(number, line): (usize, &&str)| match number {
                number if number == *first => with_value(line, key, value),
                number if continued.contains(&number) => String::new(),
                _ => (*line).to_owned(),
            };
            (1..).zip(&lines).map(replace).collect()
        }
        (Some(value), None) => match host.body {
            Some(body) => {
                let after = default_shown(&lines, body.clone(), key).unwrap_or(body.start);
                insert(&lines, after, &format!("{}{key} = {value}", host.indent))
            }
            None => insert(&lines, lines.len(), &format!("\n[{HOST}]\n{key} = {value}")),
        },
    }
}

/// The `[Host]` section of an INI file. Where there are several, the last one.
#[derive(Default)]
struct Host<'a> {
    /// Indices of its lines, without its header.
    body: Option<Range<usize>>,
    /// White space before its keys: a line that is indented deeper than the one before it continues that one's value.
    indent: &'a str,
    /// The lines, from 1, of each occurrence of the key in question, in all sections of that name.
    keys: Vec<Vec<usize>>,
}

impl<'a> Host<'a> {
    fn of(text: &str, lines: &[&'a str], wanted: &str) -> Host<'a> {
        let mut host = Host::default();
        let mut inside = false;
        for place in ini::places(text) {
            match place {
                Place::Section { name, line } => {
                    if inside && let Some(body) = &mut host.body {
                        body.end = line.saturating_sub(1);
                    }
                    inside = name == HOST;
                    if inside {
                        host.body = Some(line..lines.len());
                        host.indent = "";
                    }
                }
                Place::Key { key, lines: of_key } if inside => {
                    let first = of_key.first().and_then(|line| lines.get(line.saturating_sub(1)));
                    host.indent = first.map_or("", |line| indent(line));
                    if key == wanted {
                        host.keys.push(of_key);
                    }
                }
                Place::Key { .. } => {}
            }
        }
        host
    }
}

fn indent(line: &str) -> &str {
    let text = line.trim_start_matches([' ', '\t']);
    line.get(..line.len().saturating_sub(text.len())).unwrap_or_default()
}

/// The index after the last comment in `range` that shows the key with its default, such as `#nqn = …`.
fn default_shown(lines: &[&str], range: Range<usize>, key: &str) -> Option<usize> {
    let shows = |line: &str| {
        let comment = line.trim_start().strip_prefix(['#', ';']).unwrap_or_default();
        comment.trim_start().strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('='))
    };
    let body = lines.get(range.clone()).unwrap_or_default();
    body.iter().rposition(|line| shows(line)).map(|at| range.start.saturating_add(at).saturating_add(1))
}

/// `key=old` with another value; white space and line end as they were.
fn with_value(line: &str, key: &str, value: &str) -> String {
    let (name, old) = line.split_once('=').unwrap_or((indent(line), ""));
    let end = if line.ends_with("\r\n") { "\r\n" } else { "\n" };
    let name = if name.trim().is_empty() { format!("{name}{key} ") } else { name.to_owned() };
    let space = if old.starts_with(' ') || old.trim().is_empty() { " " } else { "" };
    format!("{name}={space}{value}{end}")
}

/// The lines with another one before the one of index `at`.
fn insert(lines: &[&str], at: usize, line: &str) -> String {
    let (before, after) = lines.split_at_checked(at).unwrap_or((lines, &[]));
    let before = before.concat();
    let end = if before.ends_with("\r\n") { "\r\n" } else { "\n" };
    let separator = if before.is_empty() || before.ends_with('\n') { "" } else { "\n" };
    let line = if before.is_empty() { line.trim_start_matches('\n') } else { line };
    format!("{before}{separator}{line}{end}{}", after.concat())
}

/// The lines less those of these numbers, from 1.
fn without(lines: &[&str], gone: &[usize]) -> String {
    (1..).zip(lines).filter(|(number, _)| !gone.contains(number)).map(|(_, line)| *line).collect()
}

fn splice(text: &str, span: Range<usize>, with: &str) -> String {
    let before = text.get(..span.start).unwrap_or_default();
    format!("{before}{with}{}", text.get(span.end..).unwrap_or_default())
}

/// A TOML basic string: its escapes are those of JSON.
pub(super) fn toml_string(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

/// Replaces or makes a file: whoever reads it sees the old contents or the new, and its owner and mode stay.
///
/// # Errors
/// As the system says; the old contents are still there then.
pub fn replace_file(path: &Path, text: &str) -> io::Result<()> {
    // Of a symbolic link, what it leads to is replaced.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let temporary = directory.join(name);
    let written = write_like(&temporary, &path, text).and_then(|()| fs::rename(&temporary, &path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written?;
    // So that the new name survives a power failure as well.
    fs::File::open(directory)?.sync_all()
}

/// Writes a new file with the owner and mode of another one, if that exists.
fn write_like(temporary: &PathBuf, like: &Path, text: &str) -> io::Result<()> {
    // Root's alone until it has the right mode: there may be a key in it.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary)?;
    match fs::metadata(like) {
        Ok(metadata) => {
            fchown(&file, Some(metadata.uid()), Some(metadata.gid()))?;
            file.set_permissions(metadata.permissions())?;
        }
        Err(_) => file.set_permissions(fs::Permissions::from_mode(0o644))?,
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::scratch::Scratch;

    fn edited(text: &str, key: &str, value: Option<&str>) -> String {
        edit(text, Path::new("sys.conf"), key, value).unwrap()
    }

    const SHIPPED: &str = include_str!("../../etc/stas/sys.conf");

    #[test]
    fn a_value_goes_below_the_comment_that_shows_its_default() {
        let text = edited(SHIPPED, "id", Some("file:///x"));
        assert_eq!(text.replace("id = \"file:///x\"\n", ""), SHIPPED);
        assert!(text.contains("#id = \"file:///etc/nvme/hostid\"\nid = \"file:///x\"\n"), "{text}");
        assert_eq!(edited(&text, "id", None), SHIPPED);
        assert_eq!(edited("", "nqn", Some("nqn.x")), "nqn = \"nqn.x\"\n");
        assert_eq!(edited("", "nqn", None), "");
    }

    #[test]
    fn of_a_toml_file_only_the_value_changes() {
        let text = "# a\n  nqn='old' # ours\nsymname = \"\"\"two\nlines\"\"\"   \nid = \"i\"";
        assert_eq!(edited(text, "nqn", Some("a\"b")), text.replace("'old'", "\"a\\\"b\""));
        assert_eq!(edited(text, "nqn", None), text.replace("nqn='old' ", ""));
        assert_eq!(edited(text, "symname", None), "# a\n  nqn='old' # ours\nid = \"i\"");
        assert_eq!(edited(text, "id", None), text.replace("id = \"i\"", ""));
        assert_eq!(edited("id = \"i\"", "nqn", Some("n")), "id = \"i\"\nnqn = \"n\"\n");
    }

    #[test]
    fn of_an_ini_file_only_the_value_changes() {
        let text = "; us\n[Host]\n# nqn = x\n\nNQN=old\r\nid =\n  a\n# b\nsymname = s\n[Other]\nnqn=z\n";
        assert_eq!(edited(text, "nqn", Some("new")), text.replace("old", "new"));
        assert_eq!(edited(text, "id", Some("i")), text.replace("id =\n  a\n", "id = i\n"));
        assert_eq!(edited(text, "id", None), text.replace("id =\n  a\n", ""));
        assert_eq!(edited(text, "symname", None), text.replace("symname = s\n", ""));
        let without = edited(text, "nqn", None);
        assert_eq!(edited(&without, "nqn", Some("n")), without.replace("# nqn = x\n", "# nqn = x\nnqn = n\n"));
        assert_eq!(edited("[Host]\n  id = i\n", "nqn", Some("n")), "[Host]\n  nqn = n\n  id = i\n");
        assert_eq!(edited("[Global]\ntron=true", "id", Some("i")), "[Global]\ntron=true\n\n[Host]\nid = i\n");
        assert_eq!(edited("[Host]\nnqn=a\nnqn=b\n", "nqn", Some("c")), "[Host]\nnqn=a\nnqn=c\n");
        assert_eq!(edited("[Host]\nnqn=a\n[Host]\nnqn=b\n", "nqn", None), "[Host]\n[Host]\n");
    }

    #[test]
    fn what_cannot_be_done_leaves_the_file_alone() {
        let path = Path::new("sys.conf");
        assert!(edit("nqn = \n", path, "id", Some("i")).is_err());
        assert!(edit("[table]\n", path, "id", Some("i")).is_err());
        assert!(edit("[Host]\n", path, "symname", Some(" s")).is_err());
        assert!(edit("[Host]\n", path, "symname", Some("a\nnqn=b")).is_err());
        assert!(edit("", path, "key", Some("k")).is_err());
    }

    #[test]
    fn owner_mode_and_link_survive() {
        let scratch = Scratch::new();
        let (file, link) = (scratch.file("sys.conf", "", 0o640), scratch.join("link"));
        std::os::unix::fs::symlink("sys.conf", &link).unwrap();
        edit_identity(&link, "nqn", Some("nqn.x")).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_to_string(&file).unwrap(), "nqn = \"nqn.x\"\n");
        assert_eq!(fs::read_dir(&*scratch).unwrap().count(), 2);
    }
}
