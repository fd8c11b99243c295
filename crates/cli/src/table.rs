//! Columns under headers, aligned as Go's `tabwriter` does it for docker: at least ten wide,
//! three spaces apart.

const LEAST_WIDTH: usize = 10;
const PADDING: usize = 3;

/// Aligns lines whose cells are separated by tabs. A column is as wide as its widest cell in a
/// run of lines that have it; what follows the last tab is not padded.
pub fn align(text: &str) -> String {
    let lines: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split('\t').collect())
        .collect();
    let mut widths: Vec<Vec<usize>> = lines.iter().map(|line| vec![0; line.len()]).collect();
    let deepest = lines.iter().map(Vec::len).max().unwrap_or(0);
    for column in 0..deepest.saturating_sub(1) {
        let mut start = 0;
        while start < lines.len() {
            let has = |line: usize| lines[line].len() > column + 1;
            if !has(start) {
                start += 1;
                continue;
            }
            let end = (start..lines.len())
                .find(|line| !has(*line))
                .unwrap_or(lines.len());
            let widest = (start..end)
                .map(|line| lines[line][column].chars().count())
                .max()
                .unwrap_or(0);
            for line in &mut widths[start..end] {
                line[column] = LEAST_WIDTH.max(widest + PADDING);
            }
            start = end;
        }
    }
    let mut out = String::with_capacity(text.len() * 2);
    for (cells, widths) in lines.iter().zip(&widths) {
        for (index, (cell, width)) in cells.iter().zip(widths).enumerate() {
            out.push_str(cell);
            if index + 1 < cells.len() {
                let used = cell.chars().count();
                out.extend(std::iter::repeat_n(' ', width.saturating_sub(used)));
            }
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_ten_wide_and_three_apart() {
        assert_eq!(
            align("ID\tIMAGE\tNAME\n1\tdebian:bookworm\tx\n"),
            "ID        IMAGE             NAME\n1         debian:bookworm   x\n"
        );
    }

    #[test]
    fn columns_end_where_a_line_has_no_cell() {
        assert_eq!(
            align("a\tb\nplain\nlonger-than-ten\tb"),
            "a         b\nplain\nlonger-than-ten   b\n"
        );
    }
}
