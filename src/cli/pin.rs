//! The flags of `pgark pin` and `pgark unpin`, and what they print.

use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;

use super::present::{self, Style, lines, moment};
use super::{Output, print};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::ident::Name;
use crate::ops::pin::{self, Pinned, Request, Unpinned};
use crate::ops::restore::target::absolute;
use crate::pg::lsn::SystemId;

/// The version of the JSON shapes in docs/schema/pin.v1.json and docs/schema/unpin.v1.json.
const VERSION: u32 = 1;

#[derive(Args)]
pub struct PinArgs {
    /// The backup; without one, all pins are listed
    #[arg(value_name = "LABEL")]
    label: Option<Name>,

    /// When the pin runs out: a time with its zone, or a span from now on, such as "90 days"; without, never
    #[arg(long, value_name = "TIME", value_parser = until, requires = "label")]
    until: Option<Timestamp>,

    /// Why, for those who come across the pin
    #[arg(long, value_name = "TEXT", requires = "label")]
    note: Option<String>,

    #[command(flatten)]
    place: Place,
}

#[derive(Args)]
pub struct UnpinArgs {
    /// The backup
    #[arg(value_name = "LABEL")]
    label: Name,

    #[command(flatten)]
    place: Place,
}

#[derive(Args)]
struct Place {
    /// Which incarnation of the cluster, where pg_upgrade or initdb has made several
    #[arg(long, value_name = "NUMBER")]
    system_id: Option<SystemId>,

    /// How the result looks on standard output
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    output: Output,
}

impl PinArgs {
    pub fn run(self, config: &Config) -> Result<ExitCode> {
        let system_id = self.place.system_id;
        let pinned = match self.label {
            Some(label) => {
                pin::pin(config, &Request { label, until: self.until, note: self.note, system_id })?
            }
            None => pin::list(config, system_id)?,
        };
        match self.place.output {
            Output::Json => print(&present::json(&pinned, "pin", VERSION)?),
            Output::Text => print(&text(&pinned, Timestamp::now())),
        }
    }
}

impl UnpinArgs {
    pub fn run(self, config: &Config) -> Result<ExitCode> {
        let unpinned = pin::unpin(config, &self.label, self.place.system_id)?;
        match self.place.output {
            Output::Json => print(&present::json(&unpinned, "unpin", VERSION)?),
            Output::Text => print(&unpinned_text(&unpinned)),
        }
    }
}

fn text(pinned: &Pinned, now: Timestamp) -> String {
    if pinned.pins.is_empty() {
        return format!("no backup of {} is pinned", pinned.cluster);
    }
    let style = Style::of_stdout();
    let mut table = style.table(&["backup", "until", "pinned", "on", "why"]);
    for pin in &pinned.pins {
        let until = pin.until.map_or_else(|| "unpinned".to_string(), moment);
        let until = if pin.holds { until } else { style.warn(format!("{until}, has run out")) };
        table.add_row([
            pin.label.to_string(),
            until,
            present::age(pin.created, now),
            pin.host.clone(),
            pin.note.clone().unwrap_or_default(),
        ]);
    }
    lines(&table, "")
}

fn unpinned_text(unpinned: &Unpinned) -> String {
    match unpinned.removed {
        1 => format!("backup {} is not pinned any more", unpinned.label),
        several => format!("backup {} is not pinned any more: it had {several} pins", unpinned.label),
    }
}

/// A time with its zone, or a span from now on; in the future.
fn until(text: &str) -> Result<Timestamp> {
    let now = Timestamp::now();
    let until = match absolute(text.trim())? {
        Some(time) => time,
        None => later(now, text).ok_or_else(|| {
            Error::configuration(format!("\"{text}\" is neither a time nor a span"))
                .with_hint("write for example \"2027-01-31 00:00:00+00\" or \"90 days\"")
        })?,
    };
    if until <= now {
        return Err(Error::configuration(format!("\"{text}\" has passed: such a pin would keep nothing")));
    }
    Ok(until)
}

/// With days, months and years as the calendar has them (UTC).
fn later(now: Timestamp, text: &str) -> Option<Timestamp> {
    let span: jiff::Span = text.parse().ok()?;
    now.to_zoned(jiff::tz::TimeZone::UTC).checked_add(span).ok().map(|later| later.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_runs_out_in_the_future() {
        let now = Timestamp::now();
        let days = |text: &str| until(text).map(|until| (until.duration_since(now).as_hours() + 1) / 24);
        assert_eq!(days("90 days"), Ok(90));
        assert_eq!(days("90d"), Ok(90));
        assert!(until("2999-01-31 00:00:00+00").is_ok());
        for (bad, expected) in [
            ("2001-01-01 00:00:00+00", "has passed"),
            ("2999-01-31 00:00:00", "names no zone"),
            ("soon", "neither a time nor a span"),
            ("0 s", "has passed"),
        ] {
            let error = until(bad).expect_err(bad);
            assert!(error.message().contains(expected), "{bad}: {error}");
        }
    }
}
