//! What the code says of itself: the help texts of the programs, and the string literals of the sources.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{STAS, project, set};

/// The help of a program; of `stas` itself if the name is empty.
pub fn help(program: &str) -> String {
    let words = [program, "--help"];
    let output = Command::new(STAS).args(words.iter().filter(|word| !word.is_empty())).output().unwrap();
    assert!(output.status.success(), "{program}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Every option in a help text. After "Examples" come those of other programs.
pub fn options(help: &str) -> BTreeSet<String> {
    let lines = help.lines().take_while(|line| !line.starts_with("Examples"));
    let words = lines.flat_map(|line| line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')));
    set(words.filter(|word| is_option(word)))
}

fn is_option(word: &str) -> bool {
    let name = word.strip_prefix("--").filter(|name| name.len() > 1).or_else(|| word.strip_prefix('-'));
    name.is_some_and(|name| name.starts_with(|c: char| c.is_ascii_alphabetic()))
        && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        && (word.starts_with("--") || word.len() == 2)
}

/// The words that begin the lines below "Commands:" or "Names:".
pub fn commands(help: &str) -> BTreeSet<String> {
    let mut lines = help.lines().skip_while(|line| !["Commands:", "Names:"].contains(line)).skip(1).peekable();
    let mut commands = BTreeSet::new();
    while let Some(line) = lines.next_if(|line| !line.is_empty()) {
        let word =
            line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')).and_then(|rest| rest.split(' ').next());
        commands.extend(word.map(str::to_owned));
    }
    commands
}

/// The numbers after "Exit status:".
pub fn exit_statuses(help: &str) -> BTreeSet<String> {
    let text = help.split_once("Exit status:").map_or("", |(_, after)| after).split("\n\n").next().unwrap();
    // "0 done, 1 it failed": a number begins a clause.
    let first = |clause: &str| clause.split_whitespace().next().unwrap_or_default().to_owned();
    let numbers = text.split([';', ',', '.']).map(first);
    numbers.filter(|word| word.parse::<u8>().is_ok()).collect()
}

/// The text of source files, less their tests; string literals that go on in the next line are put together.
pub fn source(below: &str) -> String {
    let mut text = String::new();
    read(&project(below), &mut text);
    text.replace("\\\"", "\"")
}

fn read(path: &Path, text: &mut String) {
    if path.is_dir() {
        let mut entries: Vec<PathBuf> = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        return entries.iter().for_each(|entry| read(entry, text));
    }
    let name = path.file_name().unwrap().to_str().unwrap();
    if name.contains("tests") {
        return;
    }
    let source = std::fs::read_to_string(path).unwrap();
    let mut rest = source.split("#[cfg(test)]").next().unwrap();
    while let Some((before, after)) = rest.split_once("\\\n") {
        *text += before;
        rest = after.trim_start();
    }
    *text += rest;
}

/// What stands between `before` and `after` in a text, wherever both do.
pub fn between<'a>(text: &'a str, before: &str, after: &str) -> Vec<&'a str> {
    text.split(before).skip(1).filter_map(|rest| rest.split_once(after).map(|(word, _)| word)).collect()
}

/// The options that the sources of the command lines read.
pub fn options_read() -> BTreeSet<String> {
    let files = ["src/main.rs", "src/ctl/options.rs", "src/ctl/admin.rs", "src/ctl/nbft.rs", "src/daemon/options.rs"];
    let sources = files.iter().chain(&["src/daemon/boot.rs"]).map(|file| source(file)).collect::<String>();
    set(between(&sources, "\"-", "\"").into_iter().map(|rest| format!("-{rest}")).filter(|word| is_option(word)))
}
