//! What was measured, for the table and for whoever wants to look closer.

use crate::guest::Guest;
use std::time::Duration;

/// The measurements of one thing.
#[derive(Debug, Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    pub fn add(&mut self, took: Duration) {
        self.0.push(took.as_secs_f64() * 1e3);
    }

    /// In milliseconds.
    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match sorted.len() % 2 {
            0 => (sorted[middle - 1] + sorted[middle]) / 2.0,
            _ => sorted[middle],
        }
    }

    pub fn text(&self) -> String {
        milliseconds(self.median())
    }

    /// Tells them all.
    pub fn tell(&self, guest: &Guest, what: &str) {
        let all: Vec<String> = self.0.iter().map(|sample| format!("{sample:.1}")).collect();
        guest.tell(&format!("samples: {what} (ms): {}", all.join(" ")));
    }
}

pub fn milliseconds(time: f64) -> String {
    match time {
        ..10.0 => format!("{time:.1} ms"),
        10.0..10_000.0 => format!("{time:.0} ms"),
        _ => format!("{:.1} s", time / 1e3),
    }
}

/// A line of the table: what, how much, what it is compared to and how much that is; what of the ratio is the goal.
pub fn ratio(guest: &Guest, figure: &str, ours: &Samples, other: (&str, &Samples), goal: Option<f64>) {
    let (name, samples) = other;
    ours.tell(guest, figure);
    samples.tell(guest, &format!("{figure}: {name}"));
    let ratio = ours.median() / samples.median();
    let (goal, met) = match goal {
        Some(goal) => (format!("≤ {goal:.2} ×"), if ratio <= goal { "yes" } else { "no" }),
        None => ("report".to_owned(), ""),
    };
    guest.tell(&format!("| {figure} | {} | {name}, {} | {ratio:.2} × | {goal} | {met} |", ours.text(), samples.text()));
}

/// A line of the table without a ratio.
pub fn plain(guest: &Guest, figure: &str, value: &str, other: &str, goal: &str, met: Option<bool>) {
    let met = met.map_or("", |met| if met { "yes" } else { "no" });
    guest.tell(&format!("| {figure} | {value} | {other} | | {goal} | {met} |"));
}
