//! The fuzz targets' corpora, without a fuzzer: every committed file goes through its target.
//!
//! The seeds among them are made here, so that each can be understood. `STAS_WRITE_SEEDS=1 cargo test --test corpus` writes them.
#![allow(clippy::unwrap_used)]

#[path = "../fuzz/entry.rs"]
mod entry;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

type Seeds = BTreeMap<&'static str, Vec<u8>>;

fn corpus(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

/// Runs a target on its committed files, after checking that each seed is among them as it is made here.
fn run(target: &str, seeds: Seeds, entry: fn(&[u8])) {
    let directory = corpus(target);
    if std::env::var_os("STAS_WRITE_SEEDS").is_some() {
        fs::create_dir_all(&directory).unwrap();
        seeds.iter().for_each(|(name, bytes)| fs::write(directory.join(name), bytes).unwrap());
    }
    for (name, bytes) in &seeds {
        assert!(fs::read(directory.join(name)).unwrap() == *bytes, "{target}/{name} is not what is made here");
    }
    for file in fs::read_dir(&directory).unwrap() {
        entry(&fs::read(file.unwrap().path()).unwrap());
    }
}

#[test]
fn log_page() {
    run("log_page", log_page_seeds(), entry::log_page);
}

#[test]
fn uevent() {
    run("uevent", uevent_seeds(), entry::uevent);
}

#[test]
fn avahi() {
    run("avahi", avahi_seeds(), entry::avahi);
    for (name, announced) in
        [("found", 1), ("link-local", 1), ("nonsense", 0), ("removed", 1), ("restarted", 1), ("early", early.into_bytes()),
        ("raw", b"made|0\nowner|1\nraw|l\x04\0\x01\0\0\0\0\x01\0\0\0\0\0\0\0".to_vec()),
    ])
}
