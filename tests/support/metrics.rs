//! Parser for the text of `/metrics`, in the format of Prometheus or of OpenMetrics.

use super::{Clocked, Proxy, Response};

/// The samples of one response.
#[derive(Debug)]
pub(crate) struct Metrics(Vec<Sample>);

/// A line of the exposition that is no comment.
#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) value: f64,
}

impl Metrics {
    /// Parses a whole exposition; panics on a malformed line or a repeated sample.
    pub(crate) fn parse(text: &str) -> Self {
        assert!(text.ends_with('\n'), "cut off: {text}");
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let samples: Vec<Sample> =
            lines.map(|line| Sample::parse(line).unwrap_or_else(|| panic!("no sample: {line}"))).collect();
        for (n, sample) in samples.iter().enumerate() {
            let same = |other: &Sample| other.name == sample.name && other.labels == sample.labels;
            assert!(!samples[..n].iter().any(same), "repeated: {sample:?}");
        }
        Self(samples)
    }

    /// All samples of this name.
    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = &Sample> {
        self.0.iter().filter(move |sample| sample.name == name)
    }

    /// The value of the sample with exactly these labels, in any order.
    pub(crate) fn value<const N: usize>(&self, name: &str, labels: [(&str, &str); N]) -> Option<f64> {
        let has = |sample: &&Sample| {
            sample.labels.len() == N
                && labels.iter().all(|(key, value)| sample.label(key).is_some_and(|found| found == *value))
        };
        self.all(name).find(has).map(|sample| sample.value)
    }
}

impl Sample {
    /// The value of a label.
    pub(crate) fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// `name value` or `name{key="value",...} value`.
    fn parse(line: &str) -> Option<Self> {
        let end = line.find(['{', ' '])?;
        let (name, mut rest) = line.split_at(end);
        let mut labels = Vec::new();
        if let Some(listed) = rest.strip_prefix('{') {
            rest = listed;
            while !rest.starts_with('}') {
                let (key, quoted) = rest.split_once("=\"")?;
                let (value, after) = unquote(quoted)?;
                labels.push((key.to_owned(), value));
                rest = after.strip_prefix(',').unwrap_or(after);
            }
            rest = &rest[1..];
        }
        let value = rest.strip_prefix(' ')?.parse().ok()?;
        let valid = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        valid.then(|| Self { name: name.to_owned(), labels, value })
    }
}

/// Splits after the closing quote, and undoes the escapes before it.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            other => value.push(other),
        }
    }
    None
}

impl Response {
    /// The metrics in this response.
    pub(crate) fn metrics(&self) -> Metrics {
        assert_eq!(self.status, 200, "{}", self.text());
        Metrics::parse(self.text())
    }
}

impl Proxy {
    /// The current metrics.
    pub(crate) async fn metrics(&self) -> Metrics {
        self.admin("/metrics", "").await.metrics()
    }
}

impl Clocked {
    /// The current metrics.
    pub(crate) async fn metrics(&self) -> Metrics {
        self.admin("/metrics").await.metrics()
    }
}
