//! Tables for people: columns as wide as their widest cell, two spaces between them.

use super::output::{Mark, paint, printable, width_of};

/// The lines of a table; `mark` colours whole cells by row and column.
///
/// Cells are one line, with control characters taken out; but the last column's may hold line feeds,
/// and go on below themselves.
pub(super) fn render(
    colored: bool,
    headings: &[&str],
    rows: &[Vec<String>],
    mark: impl Fn(usize, usize) -> Option<Mark>,
) -> Vec<String> {
    let last = headings.len().saturating_sub(1);
    let clean = |(column, cell): (usize, &String)| {
        let cell = printable(cell).replace('\t', " ");
        if column == last {
            cell
        } else {
            cell.replace('\n', " ")
        }
    };
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| row.iter().enumerate().map(clean).collect())
        .collect();
    let width = |column: usize| {
        let cells = rows
            .iter()
            .filter_map(|row| row.get(column))
            .map(String::as_str);
        cells
            .chain(headings.get(column).copied())
            .map(width_of)
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..last).map(width).collect();
    let indent = " ".repeat(widths.iter().map(|width| width + 2).sum());
    let line = |cells: &[(&str, Option<Mark>)]| {
        let mut line = String::new();
        for (column, (cell, mark)) in cells.iter().enumerate() {
            line.push_str(&paint(colored, *mark, cell));
            if let Some(wide) = widths.get(column) {
                line.push_str(&" ".repeat(wide.saturating_sub(width_of(cell)) + 2));
            }
        }
        line.trim_end().replace('\n', &format!("\n{indent}"))
    };
    let heading: Vec<_> = headings
        .iter()
        .map(|heading| (*heading, Some(Mark::Dim)))
        .collect();
    let mut lines = vec![line(&heading)];
    for (number, row) in rows.iter().enumerate() {
        let cells: Vec<_> = row
            .iter()
            .enumerate()
            .map(|(column, cell)| (cell.as_str(), mark(number, column)))
            .collect();
        lines.push(line(&cells));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: [&str; 2]) -> Vec<String> {
        cells.map(str::to_owned).to_vec()
    }

    #[test]
    fn columns_line_up_and_the_last_may_go_on_below_itself() {
        let rows = [row(["a", "one"]), row(["längst", "two\n→ do"])];
        let lines = render(false, &["X", "WHAT"], &rows, |_, _| None);
        assert_eq!(
            lines,
            ["X       WHAT", "a       one", "längst  two\n        → do"]
        );
    }

    #[test]
    fn a_cell_from_elsewhere_can_neither_break_its_row_nor_drive_the_terminal() {
        let rows = [row(["a\nb\u{1b}[2J", "c"])];
        let lines = render(false, &["X", "Y"], &rows, |_, _| None);
        assert_eq!(lines[1], "a b[2J  c");
    }

    #[test]
    fn colours_do_not_disturb_the_columns() {
        let rows = [row(["ok", "fine"])];
        let lines = render(true, &["STATE", "D"], &rows, |_, column| {
            (column == 0).then_some(Mark::Green)
        });
        assert_eq!(lines[1], "\u{1b}[32mok\u{1b}[0m     fine");
    }
}
