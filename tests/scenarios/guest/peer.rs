//! The other machine of a pair: see vm/pair.rs.

use super::{Guest, must, report};
use std::fs::File;
use std::io::{BufRead, BufReader};

impl Guest {
    /// Says a line that the other machine hears.
    pub fn tell_peer(&self, line: &str) {
        report(&format!("peer {line}"));
    }

    /// The lines that this machine hears, as they come.
    #[track_caller]
    pub fn heard(&self) -> impl Iterator<Item = String> + use<> {
        let console = must(File::open("/dev/ttyS0"), "open the console");
        BufReader::new(console).lines().map_while(Result::ok)
    }
}
