//! `memfrag report`: what a recording holds.

use super::args::ReportArgs;
use anyhow::Result;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use memfrag::recording::{Item, Mark, Reader};
use memfrag::report::{Names, RecordingMeta, Report, ReportBuilder, Style, checkpoint, json, text};
use memfrag::target::allocator::Facts;
use memfrag::target::file::MappedFile;
use std::io::{self, BufWriter, IsTerminal as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Columns where the terminal does not tell.
const WIDTH: usize = 96;

/// Runs the verb and returns the exit status.
pub(super) fn run(args: &ReportArgs) -> Result<u8> {
    if args.html.is_some() || args.plots.is_some() {
        let plots = super::plots::write(args)?;
        // What was asked for is written; a document on top of it only when that was asked for as well.
        if !args.json {
            return print(&plots).map(|()| 0);
        }
    }
    if args.json {
        print_json(&args.file, args.at)?;
        return Ok(0);
    }
    let report = gather(&args.file, args.at)?;
    print(&text::render(&report, style()))?;
    Ok(0)
}

/// How this terminal is written to.
pub(super) fn style() -> Style {
    let color = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let width = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok()).unwrap_or(WIDTH);
    Style { color, width }
}

/// Prints a text that ends with a line feed.
pub(super) fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Prints what a verb found: as one JSON document, or as text.
pub(super) fn show(found: &impl serde::Serialize, json: bool, text: impl FnOnce() -> String) -> Result<()> {
    if !json {
        return print(&text());
    }
    let mut out = BufWriter::new(io::stdout().lock());
    serde_json::to_writer_pretty(&mut out, found)?;
    writeln!(out)?;
    out.flush()?;
    Ok(())
}

/// Prints the report of a recording as one JSON document.
pub(super) fn print_json(file: &Path, at: Option<Duration>) -> Result<()> {
    let report = gather(file, at)?;
    let mut out = BufWriter::new(io::stdout().lock());
    json::write(&report, &mut out)?;
    out.flush()?;
    Ok(())
}

fn gather(file: &Path, at: Option<Duration>) -> Result<Report> {
    let (builder, meta) = read(file, at)?;
    complete(&builder, meta, file, at)
}

/// A report with what files other than the recording tell, and what models do.
pub(super) fn complete(
    builder: &ReportBuilder,
    meta: RecordingMeta,
    file: &Path,
    at: Option<Duration>,
) -> Result<Report> {
    let mut report = builder.report(meta);
    for allocator in report.processes.iter_mut().filter_map(|process| process.allocator.as_mut()) {
        allocator.version = allocator.version.take().or_else(|| version_of(&allocator.path, &allocator.name));
    }
    super::modelled::enter(&mut report, builder, file, at)?;
    Ok(report)
}

/// A moment in nanoseconds since the trace began.
pub(super) fn nanoseconds(at: Duration) -> u64 {
    u64::try_from(at.as_nanos()).unwrap_or(u64::MAX)
}

/// Reads a recording, or what it has until a moment.
pub(super) fn read(file: &Path, at: Option<Duration>) -> Result<(ReportBuilder, RecordingMeta)> {
    let reader = Reader::open(file)?;
    let until = at.map(nanoseconds);
    let found = checkpoint::last_before(&reader, until.unwrap_or(u64::MAX), u64::MAX);
    let (mark, mut builder) =
        found.map_or_else(|| (None, ReportBuilder::new(until)), |(mark, state)| (Some(mark), state));
    builder.keep_until(until);
    builder.name_by(Arc::new(Names::of(&reader)));
    let bar = reading_bar(reader.events());
    let mut read = mark.as_ref().map_or(0, Mark::event);
    let mut items = match &mark {
        Some(mark) => reader.items_from(mark, until),
        None => until.map_or_else(|| reader.items(), |until| reader.items_until(until)),
    };
    while let Some(item) = items.next_item() {
        if let Item::Events(events) = &item {
            read += events.len() as u64;
            bar.set_position(read);
        }
        builder.take(item);
    }
    bar.finish_and_clear();
    Ok((builder, about(&reader, file, until)))
}

/// What is known of a recording that was read until a moment.
pub(super) fn about(reader: &Reader, file: &Path, until: Option<u64>) -> RecordingMeta {
    let end = reader.end();
    RecordingMeta {
        file: file.display().to_string(),
        duration_ns: until.unwrap_or_else(|| end.as_ref().map_or(reader.last_time(), |end| end.time)),
        backend: reader.header().backend.clone(),
        complete: reader.complete() && end.is_none_or(|end| end.stopped.is_empty()),
        bytes_on_disk: reader.bytes(),
    }
}

/// The version of an allocator, from its file, if that is still there and still holds it.
pub(super) fn version_of(path: &str, name: &str) -> Option<String> {
    let file = MappedFile::open(Path::new(path)).ok()?;
    let (kind, version) = Facts::parse(&file, Path::new(path)).ok()?.allocator?;
    version.filter(|_| kind.name() == name)
}

/// A bar for recordings that take a while to read.
pub(super) fn reading_bar(events: u64) -> ProgressBar {
    /// Read in less than a blink.
    const SHORT: u64 = 5_000_000;
    if events < SHORT {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(events), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("reading  {wide_bar}  {human_pos} of {human_len} events  {eta}") {
        bar.set_style(style);
    }
    bar
}
