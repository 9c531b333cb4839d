// SPDX-License-Identifier: Apache-2.0
//! Tables for other programs (RFC 4180), in which no cell is a formula.
//!
//! Spreadsheets take a cell for a formula by its first character, also inside quotes. Such a cell gets an apostrophe in
//! front, which they hide and treat as text. The writer is here and not a library's because that is all of it.

/// One line with its end. Every cell is quoted.
pub(crate) fn line(cells: &[&str]) -> String {
    let cells: Vec<String> = cells.iter().map(|cell| quoted(cell)).collect();
    format!("{}\r\n", cells.join(","))
}

fn quoted(cell: &str) -> String {
    let starts = cell.trim_start_matches([' ', '\u{a0}', '\u{feff}']);
    // The full-width signs are folded to the plain ones by some programs.
    let formula = starts.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠']);
    let apostrophe = if formula { "'" } else { "" };
    format!("\"{apostrophe}{}\"", cell.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    // SEC-184
    #[test]
    fn no_cell_is_a_formula_and_none_leaves_its_place() {
        for bad in
            ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "\u{feff}=1", "＝1", "=cmd|' /C calc'!A0"]
        {
            let cell = quoted(bad);
            assert!(cell.starts_with("\"'"), "{bad:?} {cell:?}");
        }
        for plain in ["ada", "lab/web-1", "", "a=b", "1-2", "console.view", "2026-11-28T12:00:00Z"] {
            assert_eq!(quoted(plain), format!("\"{plain}\""));
        }
        assert_eq!(line(&["a,b", "say \"hi\"", "two\r\nlines"]), "\"a,b\",\"say \"\"hi\"\"\",\"two\r\nlines\"\r\n");
    }
}
