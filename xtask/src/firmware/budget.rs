//! `signer/firmware/budgets.tsv`: what each figure may be, and what it was last.
//!
//! A row per figure and chip: its name, the chip, the budget (`-` for none), the baseline; tab-separated. A figure
//! over its budget fails. One over its baseline fails too, so that growth is a decision: `--rebase` writes what
//! was measured, and the diff shows it to the reviewer. One below says so, and passes.

use std::fmt::Write;
use std::fs;

use anyhow::{Context, Result, bail};

use super::c::PREFIX;
use super::image::CHIPS;
use crate::run::root;

const FILE: &str = "signer/firmware/budgets.tsv";

/// Something measured on a chip.
#[derive(Debug, PartialEq)]
pub(super) struct Figure {
    name: String,
    chip: String,
    value: u64,
}

/// A row of the file.
#[derive(Debug, PartialEq)]
struct Row {
    name: String,
    chip: String,
    budget: Option<u64>,
    baseline: u64,
}

impl Figure {
    pub(super) fn new(name: impl Into<String>, chip: &str, value: u64) -> Self {
        Self { name: name.into(), chip: chip.to_owned(), value }
    }
}

/// Prints the table of what was measured and compares it; with `rebase`, records it first.
///
/// # Errors
/// When a figure is over its budget or baseline, or a row has no figure or a figure no row.
pub(super) fn settle(figures: &[Figure], rebase: bool) -> Result<()> {
    let file = root().join(FILE);
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {FILE}"))?;
    let (head, mut rows) = read(&text)?;
    if rebase {
        rows = rebased(&rows, figures);
        fs::write(&file, write(&head, &rows)).with_context(|| format!("cannot write {FILE}"))?;
    }
    let (in_c, in_rust): (Vec<_>, Vec<_>) =
        figures.iter().partition(|figure| figure.name.starts_with(PREFIX));
    print!("\n{}\n{}", table("Rust, z, small", &rows, &in_rust), table("C library, z, small", &rows, &in_c));
    let faults = faults(&rows, figures);
    if !faults.is_empty() {
        bail!("{}", faults.join("\n"));
    }
    Ok(())
}

/// The comment at the file's head, and its rows.
fn read(text: &str) -> Result<(String, Vec<Row>)> {
    let (comments, lines): (Vec<_>, Vec<_>) = text.lines().partition(|line| line.starts_with('#'));
    let rows = lines.into_iter().map(|line| {
        let columns: Vec<_> = line.split('\t').collect();
        let [name, chip, budget, baseline] = columns[..] else { bail!("{FILE}: not four columns: {line}") };
        let number = |text: &str| text.parse().with_context(|| format!("{FILE}: {text} is no number"));
        let budget = if budget == "-" { None } else { Some(number(budget)?) };
        Ok(Row { name: name.to_owned(), chip: chip.to_owned(), budget, baseline: number(baseline)? })
    });
    Ok((comments.join("\n"), rows.collect::<Result<_>>()?))
}

fn write(head: &str, rows: &[Row]) -> String {
    let mut text = format!("{head}\n");
    for Row { name, chip, budget, baseline } in rows {
        let budget = budget.map_or("-".to_owned(), |budget| budget.to_string());
        writeln!(text, "{name}\t{chip}\t{budget}\t{baseline}").expect("writing to a String does not fail");
    }
    text
}

/// A row per figure, with the earlier budgets.
fn rebased(rows: &[Row], figures: &[Figure]) -> Vec<Row> {
    let mut rows: Vec<_> = figures
        .iter()
        .map(|figure| Row {
            name: figure.name.clone(),
            chip: figure.chip.clone(),
            budget: row(rows, figure).and_then(|row| row.budget),
            baseline: figure.value,
        })
        .collect();
    // The chips of a figure side by side, in the order of their first appearance.
    let order: Vec<_> = rows.iter().map(|row| row.name.clone()).collect();
    rows.sort_by_key(|row| order.iter().position(|name| *name == row.name));
    rows
}

/// Problems, one per line.
fn faults(rows: &[Row], figures: &[Figure]) -> Vec<String> {
    let mut faults = Vec::new();
    for figure in figures {
        let Figure { name, chip, value } = figure;
        match row(rows, figure) {
            Some(Row { budget: Some(budget), .. }) if value > budget => {
                faults.push(format!("{chip}: {name}: {value} is over the budget of {budget}"));
            }
            Some(Row { baseline, .. }) if value > baseline => faults.push(format!(
                "{chip}: {name}: {value} is over the baseline of {baseline}: \
                 win it back, or `cargo xtask firmware --rebase` and say why in the commit"
            )),
            Some(_) => {}
            None => {
                faults.push(format!("{chip}: {name}: has no row in {FILE}: `cargo xtask firmware --rebase`"));
            }
        }
    }
    for Row { name, chip, .. } in rows {
        if !figures.iter().any(|figure| figure.name == *name && figure.chip == *chip) {
            faults.push(format!("{chip}: {name}: is a row of {FILE} but was not measured"));
        }
    }
    faults
}

/// `figure  M3 (budget, against the baseline)  M0 …`
fn table(title: &str, rows: &[Row], figures: &[&Figure]) -> String {
    let mut table = format!("{title:<34}");
    for chip in CHIPS {
        write!(table, "{:>8}{:>9}{:>7}", chip.name, "budget", "+/-")
            .expect("writing to a String does not fail");
    }
    table.push('\n');
    let mut names: Vec<&str> = Vec::new();
    for figure in figures {
        if !names.contains(&figure.name.as_str()) {
            names.push(&figure.name);
        }
    }
    for name in names {
        write!(table, "{name:<34}").expect("writing to a String does not fail");
        for chip in CHIPS {
            let Some(figure) = figures.iter().find(|figure| figure.name == name && figure.chip == chip.name)
            else {
                continue;
            };
            let row = row(rows, figure);
            let budget = row.and_then(|row| row.budget).map_or("-".to_owned(), |budget| budget.to_string());
            let change = row.map_or(0, |row| figure.value.cast_signed() - row.baseline.cast_signed());
            let change = if change == 0 { "=".to_owned() } else { format!("{change:+}") };
            write!(table, "{:>8}{budget:>9}{change:>7}", figure.value)
                .expect("writing to a String does not fail");
        }
        table.push('\n');
    }
    table
}

fn row<'r>(rows: &'r [Row], figure: &Figure) -> Option<&'r Row> {
    rows.iter().find(|row| row.name == figure.name && row.chip == figure.chip)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Row> {
        read("# head\nflash\tM3\t3000\t2990\nflash\tM0\t-\t3100\n").unwrap().1
    }

    fn verdict(m3: u64, m0: u64) -> String {
        faults(&rows(), &[Figure::new("flash", "M3", m3), Figure::new("flash", "M0", m0)]).join("\n")
    }

    #[test]
    fn growth_fails_and_shrinking_does_not() {
        assert_eq!(verdict(2990, 3100), "");
        assert_eq!(verdict(10, 10), "");
        assert!(verdict(2991, 3100).contains("over the baseline of 2990"));
        assert!(verdict(3001, 3100).contains("over the budget of 3000"));
        assert!(verdict(2990, 3101).starts_with("M0: flash: 3101 is over the baseline"));
    }

    #[test]
    fn figures_and_rows_must_match() {
        let faults = faults(&rows(), &[Figure::new("flash", "M3", 1), Figure::new("stack", "M3", 1)]);
        assert!(faults[0].contains("stack: has no row"), "{faults:?}");
        assert!(faults[1].contains("M0: flash: is a row"), "{faults:?}");
    }

    #[test]
    fn a_new_baseline_keeps_head_and_budgets() {
        let (head, rows) = read("# head\nflash\tM3\t3000\t2990\n").unwrap();
        let figures = [
            Figure::new("flash", "M3", 2900),
            Figure::new("stack", "M3", 700),
            Figure::new("flash", "M0", 3200),
        ];
        let text = write(&head, &rebased(&rows, &figures));
        assert_eq!(text, "# head\nflash\tM3\t3000\t2900\nflash\tM0\t-\t3200\nstack\tM3\t-\t700\n");
    }

    #[test]
    fn the_file_in_the_tree_is_readable_and_gates_the_c_library() {
        let (_, rows) = read(&fs::read_to_string(root().join(FILE)).unwrap()).unwrap();
        // The C library is gated on every chip.
        for chip in CHIPS {
            let mut of_c = rows.iter().filter(|row| row.name.starts_with(PREFIX) && row.chip == chip.name);
            assert!(of_c.clone().count() > 0 && of_c.all(|row| row.budget.is_some()), "{}", chip.name);
        }
    }
}
