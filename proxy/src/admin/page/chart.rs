//! Charts as SVG, drawn here: columns that lead to the rows behind them, and lines. Styles are classes, since the page's policy
//! allows no style in an element.

/// Size of a chart's drawing area and its margins, in units of the viewBox.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 150.0;
const LEFT: f64 = 44.0;
const TOP: f64 = 8.0;

/// A chart, for its template.
pub(super) struct Chart {
    pub(super) title: String,
    pub(super) columns: Vec<Column>,
    pub(super) lines: Vec<Line>,
    pub(super) ticks: Vec<Tick>,
    pub(super) legend: Vec<(&'static str, String)>,
}

/// One hour or day.
pub(super) struct Column {
    pub(super) x: String,
    pub(super) width: String,
    /// The text below the axis; empty for most.
    pub(super) label: String,
    pub(super) label_x: String,
    /// The values, in words.
    pub(super) title: String,
    pub(super) link: String,
    pub(super) is_incomplete: bool,
    pub(super) bars: Vec<Bar>,
}

/// A part of a column.
pub(super) struct Bar {
    pub(super) class: &'static str,
    pub(super) y: String,
    pub(super) height: String,
}

/// A line through the middles of the columns, as the points of a polyline.
pub(super) struct Line {
    pub(super) class: &'static str,
    pub(super) points: String,
}

/// A line of the grid with its value.
pub(super) struct Tick {
    pub(super) y: String,
    pub(super) value: String,
}

/// The values of an hour or a day.
pub(super) struct Sample {
    pub(super) label: String,
    pub(super) title: String,
    pub(super) link: String,
    pub(super) is_incomplete: bool,
    /// Stacked from below, each with its class.
    pub(super) bars: Vec<(&'static str, f64)>,
    /// One per line; none where there is no value.
    pub(super) points: Vec<Option<f64>>,
}

/// The classes of lines.
pub(super) const LINES: [&str; 3] = ["one", "two", "three"];
const KEYS: [&str; 3] = ["key-one", "key-two", "key-three"];

/// The legend's entries of lines.
pub(super) fn legend_of_lines(names: &[String]) -> Vec<(&'static str, String)> {
    KEYS.into_iter().zip(names.iter().cloned()).collect()
}

impl Chart {
    /// A chart whose axis ends at a round number above every value.
    pub(super) fn new(title: String, samples: Vec<Sample>, legend: Vec<(&'static str, String)>) -> Self {
        let stacked = samples.iter().map(|sample| sample.bars.iter().map(|(_, value)| value).sum::<f64>());
        let points = samples.iter().flat_map(|sample| sample.points.iter().flatten().copied());
        let top = round_up(stacked.chain(points).fold(0.0, f64::max));
        let y = |value: f64| TOP + HEIGHT - HEIGHT * value / top;
        let width = (WIDTH - LEFT) / samples.len().max(1) as f64;
        let ticks =
            [0.0, 0.5, 1.0].map(|part| Tick { y: number(y(part * top)), value: short(part * top) }).into();
        let lines = samples.iter().map(|sample| sample.points.len()).max().unwrap_or(0);
        let middle = |index: usize| LEFT + (index as f64 + 0.5) * width;
        let lines = (0..lines.min(LINES.len())).map(|line| {
            let points = samples.iter().enumerate().filter_map(|(index, sample)| {
                let value = (*sample.points.get(line)?)?;
                Some(format!("{},{}", number(middle(index)), number(y(value))))
            });
            Line { class: LINES[line], points: points.collect::<Vec<_>>().join(" ") }
        });
        let lines = lines.collect();
        let columns = samples.into_iter().enumerate().map(|(index, sample)| {
            let mut below = 0.0;
            let bars = sample.bars.into_iter().filter(|(_, value)| *value > 0.0).map(|(class, value)| {
                let height = HEIGHT * value / top;
                below += height;
                Bar { class, y: number(TOP + HEIGHT - below), height: number(height) }
            });
            Column {
                bars: bars.collect(),
                x: number(LEFT + index as f64 * width + width * 0.1),
                width: number(width * 0.8),
                label: sample.label,
                label_x: number(middle(index)),
                title: sample.title,
                link: sample.link,
                is_incomplete: sample.is_incomplete,
            }
        });
        Self { title, columns: columns.collect(), lines, ticks, legend }
    }
}

/// The next of 1, 2, 5, 10, 20, ... that is not below a value; 1 for nothing.
fn round_up(value: f64) -> f64 {
    let mut power = 1.0;
    while power * 10.0 < value {
        power *= 10.0;
    }
    [1.0, 2.0, 5.0, 10.0]
        .map(|factor| factor * power)
        .into_iter()
        .find(|round| *round >= value)
        .unwrap_or(1.0)
}

fn number(value: f64) -> String {
    format!("{value:.1}")
}

/// A value at the axis.
fn short(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{} M", value / 1e6),
        value if value >= 1e4 => format!("{} k", value / 1e3),
        value => format!("{value}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_ends_at_a_round_number() {
        for (value, top) in
            [(0.0, 1.0), (0.3, 1.0), (1.0, 1.0), (1.5, 2.0), (7.0, 10.0), (10.0, 10.0), (1_234.0, 2_000.0)]
        {
            assert_eq!(round_up(value), top, "{value}");
        }
    }

    #[test]
    fn columns_are_stacked_from_below_and_lines_leave_gaps_out() {
        let sample = |bars, points| Sample {
            label: String::new(),
            title: String::new(),
            link: String::new(),
            is_incomplete: false,
            bars,
            points,
        };
        let samples = vec![
            sample(vec![("hit", 3.0), ("miss", 0.0), ("failed", 2.0)], vec![Some(5.0)]),
            sample(vec![], vec![None]),
        ];
        let chart = Chart::new("t".into(), samples, Vec::new());
        let bars: Vec<_> =
            chart.columns[0].bars.iter().map(|bar| (bar.class, &*bar.y, &*bar.height)).collect();
        assert_eq!(bars, [("hit", "68.0", "90.0"), ("failed", "8.0", "60.0")]);
        assert_eq!(chart.lines[0].points, "193.0,8.0");
        assert!(chart.columns[1].bars.is_empty());
    }
}
