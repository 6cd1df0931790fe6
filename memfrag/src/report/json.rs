//! The report as a JSON document.

use super::model::Report;
use std::io::{self, Write};

/// Writes the report as one JSON document, indented, with a line feed at its end.
///
/// # Errors
/// When `out` cannot be written to.
pub fn write(report: &Report, mut out: impl Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut out, report)?;
    out.write_all(b"\n")
}
