//! The chart of a soak as SVG: p99 and resident memory per minute, one above the other.
//!
//! It has no background, and its colours are readable on a light and on a dark page; a browser with a preference uses
//! those of its theme.

use super::super::load::Window;
use super::samples::Sample;

/// Results of a minute.
#[derive(Clone, Copy, Debug)]
pub(super) struct Minute {
    pub(super) lookups: Window,
    /// The last sample in it.
    pub(super) last: Sample,
}

/// Size of a panel's drawing area and its margins, in units of the viewBox.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 140.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 52.0;
/// Distance of the two panels' upper edges.
const PANEL: f64 = 200.0;
/// Height of the whole.
const TOTAL: f64 = TOP + PANEL + HEIGHT + 44.0;

/// The theme: middle greys and two colours, each with a variant for dark pages.
const STYLE: &str = "    text { font: 12px system-ui, sans-serif; fill: #57606a }
    .title { font-weight: 600; font-size: 13px }
    .grid { stroke: #8c959f; stroke-opacity: 0.4 }
    .line { fill: none; stroke-width: 2; stroke-linejoin: round }
    .time { stroke: #0969da }
    .memory { stroke: #bc4c00 }
    @media (prefers-color-scheme: dark) {
      text { fill: #9da7b1 }
      .time { stroke: #58a6ff }
      .memory { stroke: #f0883e }
    }";

/// Draws the minutes of a soak.
pub(super) fn draw(title: &str, minutes: &[Minute]) -> String {
    let width = LEFT + WIDTH + RIGHT;
    let milliseconds = |minute: &Minute| minute.lookups.times[1] as f64 / 1e3;
    let mebibytes = |minute: &Minute| minute.last.memory as f64 / f64::from(1 << 20);
    let panels = [
        panel(0.0, "time", "p99 of a lookup, ms", &minutes.iter().map(milliseconds).collect::<Vec<_>>()),
        panel(PANEL, "memory", "resident memory, MiB", &minutes.iter().map(mebibytes).collect::<Vec<_>>()),
    ];
    let title = escape(title);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {TOTAL}\" role=\"img\">\n  \
         <title>{title}</title>\n  <style>\n{STYLE}\n  </style>\n  \
         <text class=\"title\" x=\"{LEFT}\" y=\"18\">{title}</text>\n{}{}  \
         <text x=\"{}\" y=\"{}\" text-anchor=\"end\">minute</text>\n</svg>\n",
        panels[0],
        panels[1],
        LEFT + WIDTH,
        TOTAL - 6.0
    )
}

/// A line with its axes; the panel begins this far below the first one.
fn panel(below: f64, class: &str, name: &str, values: &[f64]) -> String {
    let top = TOP + below;
    let highest = round_up(values.iter().copied().fold(0.0, f64::max));
    let y = |value: f64| top + HEIGHT - HEIGHT * value / highest;
    let width = WIDTH / values.len().max(1) as f64;
    let x = |index: usize| LEFT + (index as f64 + 0.5) * width;
    let mut drawn = format!("  <text x=\"{LEFT}\" y=\"{}\">{}</text>\n", top - 10.0, escape(name));
    for part in [0.0, 0.5, 1.0] {
        let value = part * highest;
        drawn += &format!(
            "  <line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{1:.1}\" y2=\"{1:.1}\"/>\n  \
             <text x=\"{2}\" y=\"{3:.1}\" text-anchor=\"end\">{value}</text>\n",
            LEFT + WIDTH,
            y(value),
            LEFT - 8.0,
            y(value) + 4.0,
        );
    }
    for minute in labels(values.len()) {
        drawn += &format!(
            "  <text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{minute}</text>\n",
            x(minute - 1),
            top + HEIGHT + 18.0
        );
    }
    let points: Vec<String> =
        values.iter().enumerate().map(|(index, value)| format!("{:.1},{:.1}", x(index), y(*value))).collect();
    // A round end: a single point is drawn too.
    drawn
        + &format!(
            "  <polyline class=\"line {class}\" stroke-linecap=\"round\" points=\"{}\"/>\n",
            points.join(" ")
        )
}

/// The numbers of the minutes that have a label: the first, and multiples so that there are twelve at most.
fn labels(minutes: usize) -> impl Iterator<Item = usize> {
    let steps = [1, 2, 5, 10, 15, 30, 60, 120];
    let step = steps.into_iter().find(|step| minutes / step <= 12).unwrap_or(240);
    (1..=minutes).filter(move |minute| *minute == 1 || minute.is_multiple_of(step))
}

/// The next of 1, 2, 5, 10, 20, ... that is not below a value; 1 for nothing.
fn round_up(value: f64) -> f64 {
    let mut power = 1.0;
    while power * 10.0 < value {
        power *= 10.0;
    }
    let rounds = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
    rounds.into_iter().find(|round| *round >= value).unwrap_or(power)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minute(p99: u64, memory: u64) -> Minute {
        let last = Sample { memory, ..Sample::default() };
        Minute { lookups: Window { times: [0, p99, 0], ..Window::default() }, last }
    }

    #[test]
    fn each_panel_has_a_point_per_minute_below_a_round_number() {
        let svg = draw("60 & more", &[minute(1_500, 30 << 20), minute(3_000, 50 << 20)]);
        // The upper edges are 52 and 252; the axes end at 5 ms and 50 MiB.
        assert!(
            svg.contains("class=\"line time\" stroke-linecap=\"round\" points=\"236.0,150.0 596.0,108.0\"")
        );
        assert!(
            svg.contains("class=\"line memory\" stroke-linecap=\"round\" points=\"236.0,308.0 596.0,252.0\"")
        );
        assert!(svg.contains("<title>60 &amp; more</title>"), "{svg}");
        assert!(!svg.contains("script"), "{svg}");
    }

    #[test]
    fn a_chart_without_minutes_and_one_of_a_day_are_drawn() {
        assert!(draw("none", &[]).contains("points=\"\""));
        assert_eq!(labels(3).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(labels(60).collect::<Vec<_>>(), [1, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60]);
        assert_eq!(labels(1_440).last(), Some(1_440));
        assert!(labels(1_440).count() <= 13);
    }
}
