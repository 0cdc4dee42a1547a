//! What a stranger reads is held to the code: the manual pages, and the configuration files that are installed.
//!
//! On one side is what the programs themselves say (their help, the tables of keys, the introspection XML, the exit
//! statuses, the messages), on the other what the pages mark up as such. Each has to have all that the other has.

mod code;
mod commands;
mod configuration;
mod examples;
mod interface;
mod mdoc;
mod messages;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use mdoc::Page;

/// The binary.
const STAS: &str = env!("CARGO_BIN_EXE_stas");

fn project(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Every page, by name and section.
fn pages() -> Vec<Page> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(project("man")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| Page::read(file)).collect()
}

fn page(file: &str) -> Page {
    Page::read(&project("man").join(file))
}

/// Both have to be the same. `of`: what it is about, `here` and `there`: where each stands.
#[track_caller]
fn same(of: &str, code: &BTreeSet<String>, here: &str, page: &BTreeSet<String>, there: &str) {
    let missing: Vec<_> = code.difference(page).collect();
    let invented: Vec<_> = page.difference(code).collect();
    assert!(missing.is_empty(), "{of} of {here} that {there} does not have: {missing:?}");
    assert!(invented.is_empty(), "{of} in {there} that {here} does not have: {invented:?}");
}

fn set<T: ToString>(all: impl IntoIterator<Item = T>) -> BTreeSet<String> {
    all.into_iter().map(|one| one.to_string()).collect()
}

#[test]
fn pages_are_rendered_without_a_warning() {
    let mut command = Command::new("mandoc");
    command.args(["-T", "lint", "-W", "warning"]).args(pages().iter().map(|page| &page.path));
    let output = command.output().unwrap_or_else(|error| panic!("mandoc: {error}; tests/setup installs it"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    for page in pages() {
        // Whoever has the other formatter looks with that, too.
        let Ok(output) = Command::new("groff").args(["-mandoc", "-Tutf8", "-ww", "-z"]).arg(&page.path).output() else {
            return;
        };
        assert!(output.stderr.is_empty(), "{}: {}", page.file, String::from_utf8_lossy(&output.stderr));
    }
}

/// A word such as "In" is a macro in a heading, too, and what it makes of the rest is not what was meant.
#[test]
fn headings_are_printed_as_they_are_written() {
    for page in pages() {
        for heading in page.headings() {
            let is_macro = |word: &str| matches!(word.as_bytes(), [b'A'..=b'Z', b'a'..=b'z']);
            assert!(!heading.split(' ').any(is_macro), "{}: {heading}: \\& before what is no macro", page.file);
        }
    }
}

/// A page of ours that is referred to has to be there, and every page is referred to.
#[test]
fn pages_refer_to_each_other() {
    let pages = pages();
    let files = set(pages.iter().map(|page| page.file.clone()));
    let ours = ["sta", "org.nvmexpress", "sys.conf"];
    let mut referred = BTreeSet::new();
    for page in &pages {
        for (name, section) in page.references() {
            let file = format!("{name}.{section}");
            if ours.iter().any(|prefix| name.starts_with(prefix)) {
                assert!(files.contains(&file), "{} refers to {name}({section}), which there is not", page.file);
            }
            referred.insert(file);
        }
        assert_eq!(format!("{}.{}", page.title.0.to_lowercase(), page.title.1), page.file, "title");
    }
    assert!(files.is_subset(&referred), "nobody refers to {:?}", files.difference(&referred));
}
