//! The examples work as they are printed: configuration is accepted, command lines are understood.

use std::path::Path;
use std::process::Command;

use stas::config::{Finding, Loaded, parse_connector, parse_finder, parse_identity};
use stas::daemon::options::{self, Program, Request};

use crate::{STAS, pages};

#[test]
fn examples_of_configuration_are_accepted() {
    fn accepted<S>(file: &str, example: &str, loaded: Result<Loaded<S>, Vec<Finding>>) {
        let findings = loaded.map_or_else(|findings| findings, |loaded| loaded.findings);
        assert!(findings.is_empty(), "{file}:\n{example}\n{findings:?}");
    }
    let mut seen = 0;
    for page in pages() {
        for example in
            page.examples().iter().filter(|example| !example.starts_with(['#', '$']) && example.contains(" = "))
        {
            let path = Path::new("example");
            seen += 1;
            match page.title.0.to_lowercase().as_str() {
                "sys.conf" => accepted(&page.file, example, parse_identity(example, path)),
                "stacd.conf" | "stacd" => accepted(&page.file, example, parse_connector(example, path)),
                _ => accepted(&page.file, example, parse_finder(example, path)),
            }
        }
    }
    assert!(seen > 5, "{seen}");
}

/// Each is called, in a place where it can do no harm; daemons only have their options looked at.
#[test]
fn examples_of_command_lines_are_understood() {
    let scratch = std::env::temp_dir().join(format!("stas-manual-{}", std::process::id()));
    std::fs::create_dir_all(&scratch).unwrap();
    let mut seen = 0;
    for page in pages() {
        let lines = page.examples().concat().replace("\\\n", " ");
        for line in lines.lines().filter_map(|line| line.strip_prefix("# ").or_else(|| line.strip_prefix("$ "))) {
            let command = line.split(['|', '>', '&', ';']).next().unwrap();
            let words: Vec<&str> = command.split_whitespace().collect();
            let words = words.strip_prefix(&["stas"]).unwrap_or(&words);
            let (name, arguments) = words.split_first().unwrap();
            let program = match *name {
                "run" => Some(Program::Run),
                "boot" => Some(Program::Boot),
                "stafd" => Some(Program::Stafd),
                "stacd" => Some(Program::Stacd),
                "stafctl" | "stacctl" | "stasadm" | "tree" | "nbft" => None,
                _ => continue,
            };
            seen += 1;
            if let Some(program) = program {
                let parsed = options::parse(program, arguments.iter().map(Into::into).collect());
                assert!(matches!(parsed, Ok(Request::Serve(_))), "{}: {line}: {parsed:?}", page.file);
            } else if *arguments != ["watch"] {
                // What it would write to, and what it would ask, is not there.
                let away = |word: &&str| word.replace("/etc/", &format!("{}/", scratch.display()));
                let mut called = Command::new(STAS);
                called.arg(name).args(arguments.iter().map(away));
                if *name == "stasadm" {
                    called.arg("-c").arg(scratch.join("sys.conf"));
                }
                let output = called.env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent").output().unwrap();
                let told = String::from_utf8_lossy(&output.stderr);
                assert!(matches!(output.status.code(), Some(0 | 1 | 3)), "{}: {line}: {told}", page.file);
            }
        }
    }
    std::fs::remove_dir_all(&scratch).unwrap();
    assert!(seen > 20, "{seen}");
}
