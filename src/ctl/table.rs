//! Aligned columns for people.

/// Columns with headings. A column that is empty in every row is left out; nothing ends in spaces.
#[derive(Debug)]
pub struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(headings: &[&'static str]) -> Table {
        Table { headings: headings.to_vec(), rows: Vec::new() }
    }

    /// Adds a row, a cell for each heading.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells.iter().map(|cell| printable(cell)).collect());
    }

    /// The table, each line after `indent` spaces.
    pub fn text(&self, indent: usize) -> String {
        let cell = |row: &Vec<String>, column: usize| row.get(column).cloned().unwrap_or_default();
        let width = |column: usize| self.rows.iter().map(|row| cell(row, column).chars().count()).max().unwrap_or(0);
        let columns: Vec<(usize, &str, usize)> = (0..)
            .zip(&self.headings)
            .map(|(column, heading)| (column, *heading, width(column)))
            .filter(|(_, _, width)| *width > 0)
            .map(|(column, heading, width)| (column, heading, width.max(heading.len())))
            .collect();
        let line = |content: &dyn Fn(usize, &str) -> String| {
            let cells = columns.iter().map(|(column, heading, width)| format!("{:width$}", content(*column, heading)));
            let joined = cells.collect::<Vec<_>>().join("  ");
            format!("{:indent$}{}\n", "", joined.trim_end())
        };
        let mut text = line(&|_, heading| heading.to_owned());
        for row in &self.rows {
            text.push_str(&line(&|column, _| cell(row, column)));
        }
        text
    }
}

/// Text from the network, without what a terminal would obey.
pub fn printable(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '?' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_and_empty_ones_vanish() {
        let mut table = Table::new(&["A", "EMPTY", "LONG", "Z"]);
        table.row(vec!["1".into(), String::new(), "x".into(), "end".into()]);
        table.row(vec!["22".into(), String::new(), "\u{1b}[2J".into(), String::new()]);
        assert_eq!(table.text(1), " A   LONG  Z\n 1   x     end\n 22  ?[2J\n");
    }
}
