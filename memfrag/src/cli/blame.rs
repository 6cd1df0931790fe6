//! `memfrag blame`: whose blocks keep free memory.

use super::args::BlameArgs;
use super::report::{print, read, style};
use anyhow::{Result, bail};
use memfrag::report::blame::Document;
use memfrag::report::{json, text};
use std::io::{self, BufWriter, Write as _};

/// Runs the verb and returns the exit status.
pub(super) fn run(args: &BlameArgs) -> Result<u8> {
    let (builder, meta) = read(&args.file, args.at)?;
    let Some((pid, blame)) = builder.blame(args.pid, args.by.into()) else {
        let file = args.file.display();
        let process = args.pid.map_or_else(|| "any process".to_owned(), |pid| format!("process {pid}"));
        let until = if args.at.is_some() { " until then" } else { "" };
        bail!(
            "{file} does not tell which pages of {process} were resident{until}, and blame is about these: record with \
             the right to read /proc/PID/pagemap, and longer than a moment"
        );
    };
    let process = builder.heaps().find(pid);
    let comm = process.and_then(|process| process.info()).map(|info| info.comm.clone()).unwrap_or_default();
    let document = Document { format: "memfrag-blame", version: 1, file: meta.file, pid, comm, blame };
    if args.json {
        let mut out = BufWriter::new(io::stdout().lock());
        json::write(&document, &mut out)?;
        out.flush()?;
    } else {
        let title = format!("{}  {} · pid {pid}", document.file, document.comm);
        print(&text::render_blame(&title, &document.blame, style()))?;
    }
    Ok(0)
}
