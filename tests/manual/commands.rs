//! Options, commands, exit statuses, environment: what the help texts say, and the pages.

use std::collections::BTreeSet;

use stas::exit::Exit;

use crate::{code, page, pages, same, set};

/// Programs, their pages, and the subsection if the page has several of them.
const PROGRAMS: [(&str, &str, &str); 9] = [
    ("run", "stas.8", "The options of stas run"),
    ("tree", "stas.8", "The options of stas tree"),
    ("nbft", "stas.8", "The options of stas nbft"),
    ("boot", "stas-boot.8", ""),
    ("stafd", "stafd.8", ""),
    ("stacd", "stacd.8", ""),
    ("stafctl", "stafctl.1", ""),
    ("stacctl", "stacctl.1", ""),
    ("stasadm", "stasadm.1", ""),
];

fn as_options(fl: BTreeSet<String>) -> BTreeSet<String> {
    fl.into_iter().map(|word| format!("-{word}")).collect()
}

#[test]
fn every_option_has_its_place() {
    let mut told = BTreeSet::new();
    for (program, file, subsection) in PROGRAMS {
        let page = page(file);
        let options = code::options(&code::help(program));
        let documented = as_options(page.heads("DESCRIPTION", subsection, "Fl"));
        same("options", &options, &format!("{program} --help"), &documented, file);
        let synopsis = as_options(page.anywhere("SYNOPSIS", "", "Fl"));
        let of_page: BTreeSet<String> = as_options(page.heads("DESCRIPTION", "", "Fl"));
        assert!(synopsis.is_subset(&of_page), "{file}: SYNOPSIS has {:?}", synopsis.difference(&of_page));
        told.extend(options);
    }
    told.extend(code::options(&code::help("")));
    same("options", &code::options_read(), "the sources of the command lines", &told, "the help texts");
}

#[test]
fn every_command_has_its_place() {
    for (program, file) in
        [("", "stas.8"), ("stafctl", "stafctl.1"), ("stacctl", "stacctl.1"), ("stasadm", "stasadm.1")]
    {
        let commands = code::commands(&code::help(program));
        assert!(!commands.is_empty(), "{program}");
        same(
            "commands",
            &commands,
            &format!("stas {program} --help"),
            &page(file).heads("DESCRIPTION", "", "Ic"),
            file,
        );
    }
    let names = code::commands(&code::help(""));
    let known = PROGRAMS.iter().map(|(program, ..)| *program);
    assert_eq!(names, set(known), "a name without a page, or a page without a name");
}

#[test]
fn every_exit_status_has_its_place() {
    let mut all = BTreeSet::new();
    for file in set(PROGRAMS.map(|(_, file, _)| file)) {
        let programs = PROGRAMS.iter().filter(|(_, its, _)| *its == file);
        let statuses: BTreeSet<String> =
            programs.flat_map(|(name, ..)| code::exit_statuses(&code::help(name))).collect();
        let page = page(&file);
        let documented = set(page.items_of("EXIT STATUS", "").map(|item| item.head.clone()));
        same("exit statuses", &statuses, "the help texts", &documented, &file);
        all.extend(documented);
    }
    same("exit statuses", &set(Exit::ALL.map(|exit| exit as u8)), "src/exit.rs", &all, "the pages");
}

#[test]
fn every_variable_of_the_environment_has_its_place() {
    let source = code::source("src");
    let read = ["env::var(\"", "env::var_os(\""].iter().flat_map(|call| code::between(&source, call, "\""));
    let mut read = set(read);
    // Read in one go, in src/ctl/tree.rs.
    let list = code::between(&source, "let locale = [", "]");
    read.extend(set(list.iter().flat_map(|list| list.split(", ")).map(|name| name.trim_matches('"'))));
    let documented = pages().iter().flat_map(|page| page.heads("ENVIRONMENT", "", "Ev")).collect();
    same("variables", &read, "src", &documented, "the pages");
}
