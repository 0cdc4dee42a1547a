//! The shell completions: what bash offers, and that no shell misses an option that the programs tell of.

use std::path::Path;
use std::process::Command;

const STAS: &str = env!("CARGO_BIN_EXE_stas");

/// What bash offers for a command line; its last word, which may be empty, is the one under way.
fn offered(line: &str) -> Vec<String> {
    let script = r#"
        source completions/stas.bash
        IFS='|' read -ra COMP_WORDS <<<"$1"
        COMP_WORDS+=("$2")
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        _stas
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let (before, last) = line.rsplit_once(' ').unwrap();
    let output = Command::new("bash")
        .args(["--norc", "-uc", script, "bash", &before.replace(' ', "|"), last])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn bash_offers_what_fits() {
    assert_eq!(offered("stafctl sta"), ["status"]);
    assert_eq!(offered("stas stafctl ad"), ["adlp"]);
    assert_eq!(offered("stacctl ad"), [""]);
    assert_eq!(offered("stafctl dlp -t t"), ["tcp"]);
    assert_eq!(offered("stafctl dlp -a 192.0.2.1 --transport r"), ["rdma"]);
    assert_eq!(offered("/usr/bin/stacctl -o "), ["json"]);
    assert_eq!(offered("stas tr"), ["tree"]);
    assert_eq!(offered("stas tree --o"), ["--output"]);
    assert_eq!(offered("stas boot --u"), ["--until"]);
    assert_eq!(offered("stas nbft --f"), ["--file"]);
    assert_eq!(offered("stas nbft -f etc/stas/sys"), ["etc/stas/sys.conf"]);
    assert_eq!(offered("stasadm hostnqn -f etc/stas/sys"), ["etc/stas/sys.conf"]);
    assert_eq!(offered("stasadm check --stac"), ["--stacd-conf"]);
    assert_eq!(offered("stafctl dlp -f l"), ["lo"]);
    assert_eq!(offered("stafd --no"), ["--no-wait"]);
}

const NAMES: [&str; 9] = ["run", "boot", "stafd", "stacd", "stafctl", "stacctl", "stasadm", "tree", "nbft"];

fn help(name: &str) -> String {
    let help = Command::new(STAS).args([name, "--help"]).output().unwrap();
    String::from_utf8(help.stdout).unwrap()
}

/// The long options that a help text tells of. After "Examples" come those of other programs.
fn options(help: &str) -> Vec<String> {
    let lines = help.lines().take_while(|line| !line.starts_with("Examples"));
    let words = lines.flat_map(|line| line.split([' ', ',', '[', ']', '=']));
    words.filter_map(|word| word.strip_prefix("--")).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// The words that begin the lines below "Commands:".
fn commands(help: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let words = lines.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn completions(file: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("completions").join(file)).unwrap()
}

#[test]
fn every_option_and_command_is_known_to_every_shell() {
    for name in NAMES {
        let help = help(name);
        let options = options(&help);
        assert!(options.contains(&"help".to_owned()), "{name}: {help}");
        for option in options {
            for (file, spelled) in [
                ("stas.bash", format!("--{option}")),
                ("_stas", format!("--{option}")),
                ("stas.fish", format!("-l {option}")),
            ] {
                let text = completions(file);
                let spelled =
                    [&format!("{spelled} "), &format!("{spelled}'"), &format!("{spelled}}}"), &format!("{spelled}[")]
                        .iter()
                        .any(|spelled| text.contains(*spelled));
                assert!(spelled, "completions/{file} has no --{option} of {name}");
            }
        }
        for command in commands(&help) {
            for file in ["stas.bash", "_stas", "stas.fish"] {
                let text = completions(file);
                let mut words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
                assert!(words.any(|word| word == command), "completions/{file} has no {command} of {name}");
            }
        }
    }
}

#[test]
fn no_shell_knows_an_option_that_there_is_not() {
    let known: Vec<String> = NAMES.iter().flat_map(|name| options(&help(name))).collect();
    for (file, sign) in [("stas.bash", " --"), ("stas.bash", "'--"), ("_stas", "--"), ("stas.fish", " -l ")] {
        // `set -l` is fish's own.
        let text = completions(file).replace("set -l ", "");
        for rest in text.split(sign).skip(1) {
            let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).unwrap_or(rest.len());
            let option = &rest[..end];
            let is_word = option.starts_with(|c: char| c.is_ascii_alphabetic());
            assert!(
                !is_word || known.iter().any(|name| name == option),
                "completions/{file}: no program has --{option}"
            );
        }
    }
}
