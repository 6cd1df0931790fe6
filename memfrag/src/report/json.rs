//! Reports as JSON documents.

use serde::Serialize;
use std::io::{self, Write};

/// Writes a report as one JSON document, indented, with a line feed at its end.
///
/// # Errors
/// When `out` cannot be written to.
pub fn write(report: &impl Serialize, mut out: impl Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut out, report)?;
    out.write_all(b"\n")
}
