//! The messages that the pages explain are messages of the programs.

use crate::{code, mdoc, pages};

/// `...` stands for what is put in.
#[test]
fn every_diagnostic_is_a_message() {
    let source = code::source("src").replace("{FABRICS}", "/dev/nvme-fabrics");
    let mut unknown = Vec::new();
    for page in pages() {
        for item in page.items_of("DIAGNOSTICS", "") {
            let message = mdoc::plain(&item.head);
            for piece in message.split("...").map(|piece| piece.trim_matches([' ', ';'])) {
                if piece.len() > 3 && !source.contains(piece) {
                    unknown.push(format!("{}: {piece:?}", page.file));
                }
            }
        }
    }
    assert!(unknown.is_empty(), "no message has {unknown:#?}");
}
