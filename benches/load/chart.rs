//! The result as an SVG chart: bars for usher and for other servers on logarithmic scales, in colours that are
//! readable on white and on black.

use super::report::{Report, number};

const WIDTH: f64 = 760.0;
const LEFT: f64 = 190.0;
/// Space for the text behind a bar.
const RIGHT: f64 = 150.0;
const BAR: f64 = 18.0;
const STEP: f64 = 26.0;
const TEXT: &str = "#808891";
const USHER: &str = "#2f81f7";
const OTHERS: &str = "#8b949e";

/// One measured quantity: its title, its unit, and its paths in the report for usher and for the others.
struct Panel {
    title: &'static str,
    unit: &'static str,
    usher: &'static str,
    others: &'static str,
}

const PANELS: [Panel; 4] = [
    Panel {
        title: "Memory per waiting visitor",
        unit: "bytes",
        usher: "crowd/bytes_per_visitor",
        others: "bytes_per_visitor",
    },
    Panel {
        title: "Going live: last delivery ÷ limit of the machine",
        unit: "× the limit",
        usher: "crowd/last_over_limit",
        others: "last_over_limit",
    },
    Panel {
        title: "Server CPU per visitor who connects (only usher verifies a token)",
        unit: "µs",
        usher: "crowd/cpu_us_per_set_up",
        others: "cpu_us_per_set_up",
    },
    Panel {
        title: "Server CPU per minute with heart-beats only",
        unit: "s",
        usher: "idle/cpu_s_per_minute",
        others: "cpu_s_per_minute",
    },
];

const OTHER_NAMES: [(&str, &str); 3] = [
    ("tungstenite", "tokio-tungstenite"),
    ("stomp-broker-js", "stomp-broker-js"),
    ("rabbitmq", "RabbitMQ web-stomp"),
];

/// Draws the measured values. Missing values are skipped.
pub(crate) fn draw(report: &Report) -> String {
    let visitors = report.value("visitors").unwrap_or_default();
    let mut body = String::new();
    let mut y = 28.0;
    text(
        &mut body,
        0.0,
        y,
        16,
        "start",
        &format!(
            "{} visitors, one process; logarithmic scales",
            number(visitors)
        ),
    );
    for panel in &PANELS {
        let mut bars: Vec<(&str, f64)> = report
            .value(panel.usher)
            .map(|value| ("usher", value))
            .into_iter()
            .collect();
        bars.extend(OTHER_NAMES.iter().filter_map(|(key, name)| {
            let value = report.value(&format!("{key}/{}", panel.others))?;
            Some((*name, value))
        }));
        if bars.is_empty() {
            continue;
        }
        y += 40.0;
        text(&mut body, 0.0, y, 14, "start", panel.title);
        y += 12.0;
        let min = bars
            .iter()
            .map(|(_, value)| *value)
            .fold(f64::MAX, f64::min);
        let max = bars.iter().map(|(_, value)| *value).fold(0.0, f64::max);
        // A ratio starts at 1, every other scale at the power of ten below the minimum.
        let from = if panel.unit == "× the limit" {
            0.0
        } else {
            (min.max(1e-3) / 2.0).log10().floor()
        };
        let decades = (max.log10().ceil() - from).max(1.0);
        let scale = (WIDTH - LEFT - RIGHT) / decades;
        let end = y + STEP * bars.len() as f64;
        for decade in 0..=decades as usize {
            let x = LEFT + scale * decade as f64;
            body.push_str(&format!(
                "<path d=\"M{x:.0} {y:.0}V{end:.0}\" stroke=\"{OTHERS}\" stroke-opacity=\".3\"/>\n"
            ));
            let power = 10_f64.powf(from + decade as f64);
            text(&mut body, x, end + 12.0, 10, "middle", &number(power));
        }
        for (name, value) in &bars {
            let length = ((value.max(1e-3).log10() - from) * scale).max(2.0);
            let colour = if *name == "usher" { USHER } else { OTHERS };
            text(&mut body, LEFT - 8.0, y + 15.0, 13, "end", name);
            body.push_str(&format!(
                "<rect x=\"{LEFT}\" y=\"{:.0}\" width=\"{length:.0}\" height=\"{BAR}\" rx=\"2\" fill=\"{colour}\"/>\n",
                y + 2.0
            ));
            let mut label = format!("{} {}", number(*value), panel.unit);
            if *name != "usher" && bars[0].0 == "usher" && panel.unit != "× the limit" {
                label.push_str(&format!(" (× {})", number(value / bars[0].1)));
            }
            text(
                &mut body,
                LEFT + length + 6.0,
                y + 15.0,
                12,
                "start",
                &label,
            );
            y += STEP;
        }
        y += 12.0;
    }
    let height = y + 12.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height:.0}\" viewBox=\"0 0 {WIDTH} {height:.0}\" \
         font-family=\"sans-serif\">\n{body}</svg>\n"
    )
}

fn text(body: &mut String, x: f64, y: f64, size: u32, anchor: &str, content: &str) {
    body.push_str(&format!(
        "<text x=\"{x:.0}\" y=\"{y:.0}\" font-size=\"{size}\" text-anchor=\"{anchor}\" fill=\"{TEXT}\">{content}</text>\n"
    ));
}
