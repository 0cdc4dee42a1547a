//! `core/` in a simulated world: a virtual clock, and a kernel, a network, Avahi, a disk and an administrator that do
//! whatever a seed makes them do. What must hold is checked at every step, and once the world is quiet the kernel's
//! connections must be those that the policy wants.
//!
//!     tests/simulate            20,000 seeds
//!     tests/simulate SEED       one seed, with all that happens in it
//!     tests/simulate +COUNT     so many seeds, others each time
//!
//! A seed that fails is shrunk: deeds are left out of its script as long as it still fails. That all of this finds what is wrong
//! is tested in turn: `sabotage` has patches that break `core/` in ten ways, and `tests/simulate --bite` tells which seed finds
//! each. It takes a minute or two, most of it for compiling, and is run by hand when the simulation or the rules change.

mod chance;
mod daemon;
mod kernel;
mod oracle;
mod script;
mod words;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use script::Step;
use world::World;

const SEEDS: u64 = 20_000;

#[test]
fn seeds() {
    let variable = |name| std::env::var(name).ok().and_then(|value| value.parse().ok());
    if let Some(seed) = variable("STAS_SEED") {
        return replay(seed);
    }
    let first: u64 = variable("STAS_FIRST_SEED").unwrap_or(1);
    let end = first + variable("STAS_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(first);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return None;
            }
            if run(seed, &script::write(seed), false).0.is_err() {
                next.store(end, Ordering::Relaxed);
                return Some(seed);
            }
        }
    };
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let failed: Option<u64> = thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        workers.into_iter().filter_map(|worker| worker.join().unwrap()).min()
    });
    if let Some(seed) = failed {
        replay(seed);
        panic!("seed {seed} failed, but not again: the simulation is not deterministic");
    }
}

/// Runs one seed; when it fails, the shortest script of it that fails is shown.
fn replay(seed: u64) {
    let script = script::write(seed);
    let (outcome, trace) = run(seed, &script, true);
    let Err(why) = outcome else {
        println!("{}", trace.join("\n"));
        println!("seed {seed} passes");
        return;
    };
    let shrunk = shrink(seed, script, &why);
    let (shorter, trace) = run(seed, &shrunk, true);
    println!("{}", trace.join("\n"));
    println!("\nthe deeds, shrunk:");
    for (gap, deed) in &shrunk {
        println!("  {gap:?} {deed:?}");
    }
    panic!("seed {seed}: {why}\n  shrunk: {}\n  again: tests/simulate {seed}", shorter.unwrap_err());
}

/// Leaves out what it can, and lets nothing pass between deeds where it can, as long as it fails in the same way.
fn shrink(seed: u64, mut script: Vec<Step>, why: &str) -> Vec<Step> {
    let without_details =
        |why: &str| why.split(['(', ' ']).filter(|word| !word.contains(char::is_numeric)).collect::<String>();
    let way = without_details(why);
    let fails = |script: &[Step]| run(seed, script, false).0.is_err_and(|why| without_details(&why) == way);
    loop {
        let before = script.len();
        for index in (0..script.len()).rev() {
            let mut shorter = script.clone();
            let (gap, _) = shorter.remove(index);
            if fails(&shorter) {
                script = shorter;
            } else if let Some(next) = shorter.get_mut(index) {
                next.0 += gap;
                if fails(&shorter) {
                    script = shorter;
                }
            }
        }
        if script.len() == before {
            return script;
        }
    }
}

/// What became of a script, and what happened in it.
fn run(seed: u64, script: &[Step], tracing: bool) -> (Result<(), String>, Vec<String>) {
    let mut world = World::new(seed, tracing);
    let outcome = catch_unwind(AssertUnwindSafe(|| world.live(script)));
    let outcome = outcome.unwrap_or_else(|_| Err("it panicked".into()));
    (outcome, world.trace().to_vec())
}
