//! The result: latencies, the table, the JSON.

use std::time::Duration;

use serde_json::{Map, Value, json};

/// Median, 99th percentile and maximum of a set of latencies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Latencies {
    pub(crate) median_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
}

impl Latencies {
    pub(crate) fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |share: f64| {
            let index = ((times.len() - 1) as f64 * share) as usize;
            times[index].as_secs_f64() * 1e3
        };
        Self {
            median_ms: at(0.5),
            p99_ms: at(0.99),
            max_ms: at(1.0),
        }
    }

    /// The median run, ordered by the maximum latency.
    pub(crate) fn median(mut runs: Vec<Self>) -> Self {
        runs.sort_by(|a, b| a.max_ms.total_cmp(&b.max_ms));
        runs[runs.len() / 2]
    }

    pub(crate) fn json(self) -> Value {
        json!({ "half": self.median_ms, "most": self.p99_ms, "last": self.max_ms })
    }
}

impl std::fmt::Display for Latencies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            median_ms,
            p99_ms,
            max_ms,
        } = self;
        write!(f, "{median_ms:.0}; {p99_ms:.0}; {max_ms:.0} ms")
    }
}

/// Collects rows for the table and values for the JSON.
#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<String>,
    values: Map<String, Value>,
}

impl Report {
    /// A row without a target.
    pub(crate) fn row(&mut self, label: &str, value: &str) {
        self.rows.push(format!("| {label} | {value} | | |"));
    }

    /// A row with an upper target. The last column is the value divided by the target: 1 or less is good.
    pub(crate) fn at_most(&mut self, label: &str, value: f64, max: f64, unit: &str) {
        self.row_with_target(label, value, max, "≤", value / max, unit);
    }

    /// A row with a lower target.
    pub(crate) fn at_least(&mut self, label: &str, value: f64, min: f64, unit: &str) {
        self.row_with_target(label, value, min, "≥", min / value, unit);
    }

    fn row_with_target(
        &mut self,
        label: &str,
        value: f64,
        target: f64,
        sign: &str,
        ratio: f64,
        unit: &str,
    ) {
        let (value, target) = (number(value), number(target));
        let unit = if unit.is_empty() {
            String::new()
        } else {
            format!(" {unit}")
        };
        let missed = if ratio > 1.0 { " **missed**" } else { "" };
        self.rows.push(format!(
            "| {label} | {value}{unit} | {sign} {target}{unit} | {ratio:.2}{missed} |"
        ));
    }

    /// Records a value for the JSON and the chart.
    pub(crate) fn record(&mut self, name: &str, value: Value) {
        self.values.insert(name.to_owned(), value);
    }

    /// A recorded number by its path.
    pub(crate) fn value(&self, path: &str) -> Option<f64> {
        self.values
            .get(path.split('/').next()?)
            .and_then(|value| match path.split_once('/') {
                Some((_, rest)) => value.pointer(&format!("/{rest}"))?.as_f64(),
                None => value.as_f64(),
            })
    }

    pub(crate) fn table(&self) -> String {
        let head = "| | measured | target | ratio to target (1 or less is good) |\n| --- | --- | --- | --- |";
        format!("{head}\n{}\n", self.rows.join("\n"))
    }

    pub(crate) fn json(&self) -> String {
        format!("{:#}\n", Value::Object(self.values.clone()))
    }
}

/// Formats a number with three significant digits, or all digits before the point.
pub(crate) fn number(value: f64) -> String {
    let digits = match value.abs() {
        large if large >= 100.0 => 0,
        medium if medium >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{value:.digits$}");
    let (whole, rest) = text.split_once('.').unwrap_or((&text, ""));
    let rest = rest.trim_end_matches('0');
    // Groups of three digits, from the right.
    let mut grouped = String::new();
    for (n, digit) in whole.chars().enumerate() {
        let left = whole.len() - n;
        if n > 0 && left.is_multiple_of(3) && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if rest.is_empty() {
        grouped
    } else {
        format!("{grouped}.{rest}")
    }
}

pub(crate) fn mib(bytes: usize) -> String {
    format!("{:.0}", bytes as f64 / f64::from(1 << 20))
}

/// Prints a progress line to standard error.
pub(crate) fn progress(line: impl std::fmt::Display) {
    eprintln!("{line}");
}
