//! A manual page as far as its markup tells what is what. Source: mdoc(7).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The macros that end the arguments of another one on the same line, of those that the pages use.
const MACROS: [&str; 24] = [
    "Ar", "Bq", "Cm", "Dv", "Em", "Ev", "Fl", "Fn", "Ic", "It", "Li", "Nm", "Ns", "Op", "Pa", "Pc", "Po", "Pq", "Ql",
    "Sx", "Sy", "Va", "Xr", "Nd",
];

#[derive(Debug)]
pub struct Page {
    pub path: PathBuf,
    /// `stafd.conf.5`.
    pub file: String,
    /// Name and section.
    pub title: (String, String),
    pub items: Vec<Item>,
    /// Section, subsection, line.
    lines: Vec<(String, String, String)>,
}

/// An entry of a list.
#[derive(Debug, Clone, Default)]
pub struct Item {
    pub section: String,
    pub subsection: String,
    /// What follows `.It`.
    pub head: String,
    pub body: Vec<String>,
}

impl Page {
    pub fn read(path: &Path) -> Page {
        let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let file = path.file_name().unwrap().to_str().unwrap().to_owned();
        let (mut section, mut subsection) = (String::new(), String::new());
        let (mut items, mut lines, mut title) = (Vec::new(), Vec::new(), Default::default());
        // Lists within lists: each has the item that is being read.
        let mut open: Vec<Option<Item>> = Vec::new();
        for line in text.lines() {
            let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
            match name {
                ".Dt" => title = rest.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap(),
                ".Sh" => (section, subsection) = (rest.to_owned(), String::new()),
                ".Ss" => subsection = rest.to_owned(),
                ".Bl" => open.push(None),
                ".El" => items.extend(open.pop().unwrap_or_else(|| panic!("{file}: too many .El"))),
                ".It" => {
                    let (section, subsection) = (section.clone(), subsection.clone());
                    let item = Item { section, subsection, head: rest.to_owned(), body: Vec::new() };
                    items.extend(open.last_mut().unwrap().replace(item));
                }
                _ => open.iter_mut().flatten().for_each(|item| item.body.push(line.to_owned())),
            }
            lines.push((section.clone(), subsection.clone(), line.to_owned()));
        }
        Page { path: path.to_owned(), file, title, items, lines }
    }

    /// The arguments of a macro in the heads of the items of a section; of all its subsections if that is empty.
    pub fn heads<'a>(&'a self, section: &'a str, subsection: &'a str, name: &'a str) -> BTreeSet<String> {
        self.items_of(section, subsection).flat_map(|item| arguments(&item.head, name)).collect()
    }

    pub fn items_of<'a>(&'a self, section: &'a str, subsection: &'a str) -> impl Iterator<Item = &'a Item> {
        let is_there =
            move |item: &&Item| item.section == section && (subsection.is_empty() || item.subsection == subsection);
        self.items.iter().filter(is_there)
    }

    /// The arguments of a macro anywhere in a section.
    pub fn anywhere(&self, section: &str, subsection: &str, name: &str) -> BTreeSet<String> {
        let lines =
            self.lines.iter().filter(|(sh, ss, _)| sh == section && (subsection.is_empty() || ss == subsection));
        lines.filter_map(|(_, _, line)| line.strip_prefix('.')).flat_map(|line| arguments(line, name)).collect()
    }

    /// The subsections of a section.
    pub fn subsections(&self, section: &str) -> BTreeSet<String> {
        let of_it = self.lines.iter().filter(|(sh, ss, _)| sh == section && !ss.is_empty());
        of_it.map(|(_, subsection, _)| subsection.clone()).collect()
    }

    /// Of sections and subsections, as they are written.
    pub fn headings(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().filter_map(|(_, _, line)| line.strip_prefix(".Sh ").or_else(|| line.strip_prefix(".Ss ")))
    }

    /// `.Xr name section`.
    pub fn references(&self) -> Vec<(String, String)> {
        let lines = self.lines.iter().filter_map(|(_, _, line)| line.strip_prefix(".Xr "));
        let reference = |line: &str| {
            let words: Vec<String> = words(line).into_iter().filter(|word| word != "(").collect();
            (words[0].clone(), words[1].clone())
        };
        lines.map(reference).collect()
    }

    /// What stands between `.Bd` and `.Ed` in the examples.
    pub fn examples(&self) -> Vec<String> {
        let mut examples: Vec<String> = Vec::new();
        let mut inside = false;
        for (_, _, line) in self.lines.iter().filter(|(section, _, _)| section == "EXAMPLES") {
            match line.split(' ').next().unwrap() {
                ".Bd" => {
                    inside = true;
                    examples.push(String::new());
                }
                ".Ed" => inside = false,
                _ if inside => *examples.last_mut().unwrap() += &format!("{}\n", plain(line)),
                _ => {}
            }
        }
        examples
    }
}

impl Item {
    /// What stands after `Default:`; the flag says that it is a value, and no prose.
    pub fn default(&self) -> Option<(bool, String)> {
        let at = self.body.iter().rposition(|line| line.trim_start().starts_with("Default:"))?;
        let prose = self.body[at].trim_start().strip_prefix("Default:").unwrap().trim();
        match self.body.get(at + 1).and_then(|line| line.strip_prefix(".Cm ")) {
            Some(value) if prose.is_empty() => {
                let value: Vec<String> = words(value).into_iter().filter(|word| !is_punctuation(word)).collect();
                Some((true, value.join(" ")))
            }
            _ => Some((false, plain(prose))),
        }
    }

    /// The arguments of a macro in the body.
    pub fn body_arguments(&self, name: &str) -> BTreeSet<String> {
        self.body.iter().filter_map(|line| line.strip_prefix('.')).flat_map(|line| arguments(line, name)).collect()
    }
}

/// What follows a macro on a line, up to the next one, without punctuation. With `Fn` and `Bq` all that follows.
pub fn arguments(line: &str, name: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut current = String::new();
    for word in words(line) {
        let swallows = current == name && matches!(name, "Fn" | "Bq");
        if MACROS.contains(&word.as_str()) && !swallows {
            current = word;
        } else if current == name && !is_punctuation(&word) {
            found.push(word);
        }
    }
    found
}

/// Words, those in quotation marks whole.
pub fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        let (word, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap(),
            None => rest.split_at(rest.find(' ').unwrap_or(rest.len())),
        };
        words.push(plain(word));
        rest = after.trim_start();
    }
    words
}

fn is_punctuation(word: &str) -> bool {
    matches!(word, "," | "." | ";" | ":" | "=" | "|" | "(" | ")" | "[" | "]")
}

/// Without escapes.
pub fn plain(text: &str) -> String {
    text.replace("\\(dq", "\"").replace("\\-", "-").replace("\\e", "\\").replace("\\&", "")
}
