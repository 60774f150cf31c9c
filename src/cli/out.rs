//! Everything that is printed: results to standard output, complaints to standard error. A closed pipe
//! ends the program quietly.

use std::io::Write as _;

use serde::Serialize;

/// Prints a line of results.
pub fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    ended(writeln!(out, "{text}").and_then(|()| out.flush()));
}

/// Prints a piece of a result as it is.
pub fn bytes(piece: &[u8]) {
    let mut out = std::io::stdout().lock();
    ended(out.write_all(piece).and_then(|()| out.flush()));
}

/// Ends the program where results cannot be printed any more.
fn ended(printed: std::io::Result<()>) {
    match printed {
        Ok(()) => {}
        // `pmgate … | head` has what it wanted.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => {
            complain(&format!("the results are not whole: they cannot be written: {error}"));
            std::process::exit(1);
        }
    }
}

/// Prints a value as JSON.
pub fn json(value: &impl Serialize) -> Result<(), super::exit::Exit> {
    line(&serde_json::to_string_pretty(value).map_err(super::exit::Exit::failed)?);
    Ok(())
}

/// Whether somebody looks at the results on a terminal.
pub fn is_terminal() -> bool {
    use std::io::IsTerminal as _;
    std::io::stdout().is_terminal()
}

/// Prints over the line that was printed last, which stays open.
pub fn over(text: &str) {
    let mut out = std::io::stdout().lock();
    // Back to the first column; the rest of the old line is wiped.
    if write!(out, "\r\x1b[K{text}").and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Prints a complaint.
pub fn complain(text: &str) {
    // Where standard error is closed nobody can be told.
    writeln!(std::io::stderr().lock(), "pmgate: {text}").ok();
}

/// Prints a table with columns as wide as their longest cell.
pub fn table(head: &[&str], rows: &[Vec<String>]) {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([head[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let print = |cells: &[String]| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        line(padded.collect::<Vec<_>>().join("  ").trim_end());
    };
    print(&head.iter().map(|h| (*h).to_owned()).collect::<Vec<_>>());
    rows.iter().for_each(|row| print(row));
}

/// A number for a table: up to the four decimals that a power factor has, none that are zero.
pub fn number(value: f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
