//! Metrics on their way to text: names, what they mean, and values with labels. OpenMetrics 1.0, which the node
//! exporter's textfile collector and Prometheus both read.

use std::sync::atomic::AtomicU64;

use jiff::Timestamp;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::error::{Error, Result};

/// Names and values, such as ("cluster", "main").
pub type Labels = Vec<(&'static str, String)>;

/// A set of metrics, in the order in which they were added.
#[derive(Default)]
pub struct Sheet {
    registry: Registry,
}

impl Sheet {
    /// Adds a gauge. One without values is left out: of what does not exist there is no number.
    pub fn gauge(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, f64)>) {
        let family = Family::<Labels, Gauge<f64, AtomicU64>>::default();
        let mut any = false;
        for (labels, value) in values {
            family.get_or_create(&labels).set(value);
            any = true;
        }
        if any {
            self.registry.register(name, help, family);
        }
    }

    pub fn text(&self) -> Result<String> {
        let mut text = String::new();
        encode(&mut text, &self.registry)
            .map_err(|cause| Error::bug(format!("could not write the metrics: {cause}")))?;
        Ok(text)
    }
}

/// A moment as a metric: a Unix time.
pub fn seconds(time: Timestamp) -> f64 {
    time.as_microsecond() as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_what_the_specification_says() {
        let mut sheet = Sheet::default();
        let labels = |name: &str| vec![("cluster", name.to_string())];
        sheet.gauge("pgark_backups", "Backups", [(labels("a\"b\\c\nd"), 3.0)]);
        sheet.gauge("pgark_nothing", "Left out", []);
        let expected = "# HELP pgark_backups Backups.\n# TYPE pgark_backups gauge\n\
                        pgark_backups{cluster=\"a\\\"b\\\\c\\nd\"} 3.0\n# EOF\n";
        assert_eq!(sheet.text().expect("text"), expected);
    }
}
