//! What was found out: times and their spread, the table, the JSON.

use std::time::Duration;

use serde_json::{Map, Value, json};

/// How long it took until half, nearly all, and all were told, or answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    pub(crate) half_ms: f64,
    pub(crate) most_ms: f64,
    pub(crate) last_ms: f64,
}

impl Spread {
    pub(crate) fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |share: f64| {
            let place = ((times.len() - 1) as f64 * share) as usize;
            times[place].as_secs_f64() * 1e3
        };
        Self {
            half_ms: at(0.5),
            most_ms: at(0.99),
            last_ms: at(1.0),
        }
    }

    /// The run in the middle, by its last.
    pub(crate) fn median(mut runs: Vec<Self>) -> Self {
        runs.sort_by(|a, b| a.last_ms.total_cmp(&b.last_ms));
        runs[runs.len() / 2]
    }

    pub(crate) fn json(self) -> Value {
        json!({ "half": self.half_ms, "most": self.most_ms, "last": self.last_ms })
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            half_ms,
            most_ms,
            last_ms,
        } = self;
        write!(f, "{half_ms:.0}; {most_ms:.0}; {last_ms:.0} ms")
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
    pub(crate) fn row(&mut self, what: &str, found: &str) {
        self.rows.push(format!("| {what} | {found} | | |"));
    }

    /// A row whose value is to be no more than `most`, in `unit`. The last column is what was found, divided
    /// by that: up to 1 is good.
    pub(crate) fn at_most(&mut self, what: &str, found: f64, most: f64, unit: &str) {
        self.against(what, found, most, "≤", found / most, unit);
    }

    /// A row whose value is to be no less than `least`.
    pub(crate) fn at_least(&mut self, what: &str, found: f64, least: f64, unit: &str) {
        self.against(what, found, least, "≥", least / found, unit);
    }

    fn against(&mut self, what: &str, found: f64, bound: f64, sign: &str, ratio: f64, unit: &str) {
        let (found, bound) = (number(found), number(bound));
        let unit = if unit.is_empty() {
            String::new()
        } else {
            format!(" {unit}")
        };
        let missed = if ratio > 1.0 { " **missed**" } else { "" };
        self.rows.push(format!(
            "| {what} | {found}{unit} | {sign} {bound}{unit} | {ratio:.2}{missed} |"
        ));
    }

    /// Keeps something for the JSON, and for the chart.
    pub(crate) fn keep(&mut self, name: &str, value: Value) {
        self.values.insert(name.to_owned(), value);
    }

    /// A number that was kept, by its place.
    pub(crate) fn value(&self, path: &str) -> Option<f64> {
        self.values
            .get(path.split('/').next()?)
            .and_then(|value| match path.split_once('/') {
                Some((_, rest)) => value.pointer(&format!("/{rest}"))?.as_f64(),
                None => value.as_f64(),
            })
    }

    pub(crate) fn table(&self) -> String {
        let head =
            "| | measured | target | to target, 1 or less is good |\n| --- | --- | --- | --- |";
        format!("{head}\n{}\n", self.rows.join("\n"))
    }

    pub(crate) fn json(&self) -> String {
        format!("{:#}\n", Value::Object(self.values.clone()))
    }
}

/// Three digits, or all before the point.
pub(crate) fn number(value: f64) -> String {
    let digits = match value.abs() {
        large if large >= 100.0 => 0,
        medium if medium >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{value:.digits$}");
    let (whole, rest) = text.split_once('.').unwrap_or((&text, ""));
    let rest = rest.trim_end_matches('0');
    // Thousands apart, from the right.
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

/// Tells what goes on, to whoever waits for it.
pub(crate) fn progress(what: impl std::fmt::Display) {
    eprintln!("{what}");
}
