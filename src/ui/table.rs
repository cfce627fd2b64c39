//! Plain tables: no lines between cells, never cut when piped.

use comfy_table::presets::NOTHING;
use comfy_table::{Cell, CellAlignment, ContentArrangement};

/// A table with upper-case headings and two spaces between columns, like `kubectl get`.
#[derive(Debug)]
pub struct Table(comfy_table::Table);

impl Table {
    /// A table with these columns.
    pub fn new<const N: usize>(columns: [&str; N]) -> Self {
        let mut table = comfy_table::Table::new();
        table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(columns.map(|c| Cell::new(c.to_uppercase())));
        Table(table)
    }

    /// Aligns a column of numbers to the right.
    #[must_use]
    pub fn right(mut self, column: usize) -> Self {
        if let Some(column) = self.0.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        self
    }

    /// Adds a row; an empty cell is shown as `-`.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.0.add_row(cells.map(|c| if c.is_empty() { "-".to_owned() } else { c }));
    }

    /// The table as text, without trailing blanks.
    pub fn render(&self) -> String {
        let text = self.0.to_string();
        let lines: Vec<&str> = text.lines().map(|l| l.strip_prefix(' ').unwrap_or(l).trim_end()).collect();
        lines.join("\n")
    }
}

/// So many of something, in words.
pub fn counted(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_cells_show_as_a_dash_and_lines_have_no_trailing_blanks() {
        let mut table = Table::new(["name", "size"]).right(1);
        table.row(["h1".into(), "12".into()]);
        table.row([String::new(), "1234567".into()]);
        insta::assert_snapshot!(table.render(), @r"
        NAME     SIZE
        h1         12
        -     1234567
        ");
    }
}
