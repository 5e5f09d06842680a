//! How far long work is: a bar with rate and time left on a terminal, a line every ten seconds elsewhere.
//!
//! Any thread may count; one thread calls [`Progress::tick`] a few times a second. All of it goes to
//! standard error, and nobody being there to read it is no error.

use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{BinaryBytes, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How progress is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Display {
    /// For a person at a terminal.
    Bar,
    /// For a log that a person reads.
    Lines,
    /// For a log that a machine reads: a JSON object in a line.
    Json,
    #[default]
    Silent,
}

/// Between two lines.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// One piece of work that is measured in bytes.
pub struct Progress {
    display: Display,
    /// What is being done: "copying".
    verb: &'static str,
    done: AtomicU64,
    /// 0 as long as it is not known.
    total: AtomicU64,
    started: Instant,
    last_line: Mutex<Instant>,
    /// Where the work is, in words.
    place: Mutex<String>,
    bar: ProgressBar,
}

impl Progress {
    pub fn start(display: Display, verb: &'static str) -> Self {
        let bar = match display {
            Display::Bar => ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()),
            _ => ProgressBar::hidden(),
        };
        let started = Instant::now();
        bar.set_message(verb);
        set_style(&bar, "{msg} {binary_bytes} {binary_bytes_per_sec}");
        Self {
            display,
            verb,
            done: AtomicU64::new(0),
            total: AtomicU64::new(0),
            started,
            last_line: Mutex::new(started),
            place: Mutex::new(String::new()),
            bar,
        }
    }

    /// Counts bytes that are done. A part of the total that turned out not to be there counts too.
    pub fn add(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn set_total(&self, bytes: u64) {
        self.total.store(bytes, Ordering::Relaxed);
        self.bar.set_length(bytes.max(1));
        let share = "{wide_bar} {binary_bytes}/{binary_total_bytes}";
        set_style(&self.bar, &format!("{{msg}} {share} {{binary_bytes_per_sec}} {{eta}} left"));
    }

    /// Says where the work is: "at LSN 0/3000148".
    pub fn describe(&self, place: String) {
        self.bar.set_message(format!("{} {place}", self.verb));
        if let Ok(mut described) = self.place.lock() {
            *described = place;
        }
    }

    /// What is being done, and where it is.
    fn words(&self) -> String {
        let place = self.place.lock().map(|place| place.clone()).unwrap_or_default();
        if place.is_empty() { self.verb.to_string() } else { format!("{} {place}", self.verb) }
    }

    /// Draws the bar, or writes a line if it is time for one.
    pub fn tick(&self) {
        let done = self.done.load(Ordering::Relaxed);
        match self.display {
            Display::Silent => {}
            Display::Bar => self.bar.set_position(done),
            Display::Lines | Display::Json if self.line_is_due() => self.write_line(done),
            Display::Lines | Display::Json => {}
        }
    }

    /// Runs something that writes to standard error, with the bar out of its way.
    pub fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        self.bar.suspend(write)
    }

    /// Removes the bar. What was reached is in the result.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn line_is_due(&self) -> bool {
        let now = Instant::now();
        let Ok(mut last) = self.last_line.lock() else { return false };
        let due = now.saturating_duration_since(*last) >= LINE_EVERY;
        if due {
            *last = now;
        }
        due
    }

    fn write_line(&self, done: u64) {
        let total = self.total.load(Ordering::Relaxed);
        let elapsed = self.started.elapsed();
        let line = match self.display {
            Display::Json => json_line(&self.words(), done, total, elapsed),
            _ => line(&self.words(), done, total, elapsed),
        };
        drop(writeln!(std::io::stderr(), "{line}"));
    }
}

/// A template that does not parse is a bug that leaves the bar as it was.
fn set_style(bar: &ProgressBar, template: &str) {
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
}

/// A line about something that is waited for, in the form that the display wants.
pub fn notice(display: Display, text: &str) {
    let line = match display {
        Display::Silent => return,
        Display::Bar | Display::Lines => text.to_string(),
        Display::Json => serde_json::json!({ "level": "INFO", "message": text }).to_string(),
    };
    drop(writeln!(std::io::stderr(), "{line}"));
}

/// How long the rest takes at the rate so far. None when that can't be said.
fn time_left(done: u64, total: u64, elapsed: Duration) -> Option<Duration> {
    let left = total.checked_sub(done).filter(|_| done > 0)?;
    let seconds = elapsed.as_secs_f64() * left as f64 / done as f64;
    Duration::try_from_secs_f64(seconds).ok()
}

fn rate(done: u64, elapsed: Duration) -> u64 {
    (done as f64 / elapsed.as_secs_f64().max(0.001)) as u64
}

fn line(verb: &str, done: u64, total: u64, elapsed: Duration) -> String {
    let speed = BinaryBytes(rate(done, elapsed));
    let so_far = BinaryBytes(done);
    if total == 0 {
        return format!("{verb}: {so_far}, {speed}/s");
    }
    let percent = (u128::from(done) * 100 / u128::from(total)).min(100);
    let of = BinaryBytes(total);
    let left = time_left(done, total, elapsed).map_or(String::new(), |left| {
        format!(", about {} left", HumanDuration(Duration::from_secs(left.as_secs())))
    });
    format!("{verb}: {so_far} of {of} ({percent}%), {speed}/s{left}")
}

fn json_line(verb: &str, done: u64, total: u64, elapsed: Duration) -> String {
    let left = time_left(done, total, elapsed).map(|left| left.as_secs());
    let total = (total > 0).then_some(total);
    serde_json::json!({
        "level": "INFO",
        "message": verb,
        "bytes_done": done,
        "bytes_total": total,
        "bytes_per_second": rate(done, elapsed),
        "seconds_left": left,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_line_tells_share_rate_and_time_left() {
        let text = line("copying", 100 * MIB, 400 * MIB, Duration::from_secs(10));
        assert_eq!(text, "copying: 100.00 MiB of 400.00 MiB (25%), 10.00 MiB/s, about 30 seconds left");
    }

    #[test]
    fn what_is_not_known_is_not_claimed() {
        assert_eq!(line("copying", 20 * MIB, 0, Duration::from_secs(10)), "copying: 20.00 MiB, 2.00 MiB/s");
        assert_eq!(line("copying", 0, MIB, Duration::ZERO), "copying: 0 B of 1.00 MiB (0%), 0 B/s");
        let grown = line("copying", 3 * MIB, 2 * MIB, Duration::from_secs(1));
        assert_eq!(grown, "copying: 3.00 MiB of 2.00 MiB (100%), 3.00 MiB/s");
    }

    #[test]
    fn machines_read_numbers() {
        let line = json_line("copying", 5, 0, Duration::from_secs(1));
        let value: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(value["bytes_done"], 5);
        assert!(value["bytes_total"].is_null() && value["seconds_left"].is_null());
        let line = json_line("copying", 5, 10, Duration::from_secs(1));
        let value: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!((&value["bytes_total"], &value["seconds_left"]), (&10.into(), &1.into()));
    }

    #[test]
    fn a_silent_one_counts_too() {
        let progress = Progress::start(Display::Silent, "copying");
        progress.set_total(10);
        progress.add(4);
        progress.add(5);
        progress.tick();
        assert_eq!(progress.done.load(Ordering::Relaxed), 9);
    }
}
