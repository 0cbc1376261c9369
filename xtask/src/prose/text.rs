//! Paragraphs of a document, and what of a paragraph is prose: code spans are blanked out.

/// Lines that belong together.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Paragraph {
    /// Number of the first line, from 1.
    pub(super) line: usize,
    /// The prose, with the breaks of its lines.
    pub(super) text: String,
    /// In a doc comment.
    pub(super) is_doc: bool,
}

/// Collects lines into paragraphs; a blank line and a code block end one.
#[derive(Default)]
pub(super) struct Collector {
    paragraphs: Vec<Paragraph>,
    lines: Vec<String>,
    first: usize,
    is_doc: bool,
    in_block: bool,
}

impl Collector {
    /// A line of text; `is_doc` for a doc comment.
    pub(super) fn line(&mut self, number: usize, line: &str, is_doc: bool) {
        let trimmed = line.trim();
        if is_doc != self.is_doc || number != self.first + self.lines.len() {
            self.end();
        }
        if trimmed.starts_with("```") {
            self.end();
            self.in_block = !self.in_block;
            return;
        }
        let is_item = trimmed.starts_with("- ") || trimmed.starts_with('|') || trimmed.starts_with('#');
        if self.in_block || trimmed.is_empty() || is_item {
            self.end();
        }
        if !self.in_block && !trimmed.is_empty() {
            if self.lines.is_empty() {
                (self.first, self.is_doc) = (number, is_doc);
            }
            self.lines.push(trimmed.to_owned());
        }
    }

    /// Ends the paragraph.
    pub(super) fn end(&mut self) {
        if !self.lines.is_empty() {
            let text = without_code(&std::mem::take(&mut self.lines).join("\n"));
            self.paragraphs.push(Paragraph { line: self.first, text, is_doc: self.is_doc });
        }
    }

    /// Ends a comment: a code block does not reach beyond it.
    pub(super) fn end_comment(&mut self) {
        self.end();
        self.in_block = false;
    }

    pub(super) fn into_paragraphs(mut self) -> Vec<Paragraph> {
        self.end();
        self.paragraphs
    }
}

/// The paragraphs of a Markdown document.
pub(super) fn markdown(text: &str) -> Vec<Paragraph> {
    let mut collector = Collector::default();
    for (number, line) in (1..).zip(text.lines()) {
        collector.line(number, line, false);
    }
    collector.into_paragraphs()
}

/// The text with each code span and link target replaced, its line breaks kept.
fn without_code(text: &str) -> String {
    let mut prose = String::with_capacity(text.len());
    for (at, part) in text.split('`').enumerate() {
        match at % 2 {
            0 => prose.push_str(part),
            _ => {
                prose.push('§');
                prose.extend(part.chars().filter(|c| *c == '\n'));
            }
        }
    }
    prose
}
