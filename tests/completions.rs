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

#[test]
fn every_option_is_known_to_every_shell() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("completions");
    for name in ["run", "boot", "stafd", "stacd", "stafctl", "stacctl", "stasadm", "tree", "nbft"] {
        let help = Command::new(STAS).args([name, "--help"]).output().unwrap();
        let help = String::from_utf8(help.stdout).unwrap();
        // After "Examples" come the options of other programs.
        let options: Vec<&str> = help
            .lines()
            .take_while(|line| !line.starts_with("Examples"))
            .flat_map(|line| line.split([' ', ',', '[', ']', '=']))
            .filter_map(|word| word.strip_prefix("--"))
            .filter(|word| !word.is_empty())
            .collect();
        assert!(options.contains(&"help"), "{name}: {help}");
        for option in options {
            for (file, spelled) in [
                ("stas.bash", format!("--{option}")),
                ("_stas", format!("--{option}")),
                ("stas.fish", format!("-l {option}")),
            ] {
                let text = std::fs::read_to_string(directory.join(file)).unwrap();
                let spelled =
                    [&format!("{spelled} "), &format!("{spelled}'"), &format!("{spelled}}}"), &format!("{spelled}[")]
                        .iter()
                        .any(|spelled| text.contains(*spelled));
                assert!(spelled, "completions/{file} has no --{option} of {name}");
            }
        }
    }
}
