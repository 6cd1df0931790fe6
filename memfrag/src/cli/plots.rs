//! `memfrag report --html` and `--plots`: a recording's pictures.

use super::args::ReportArgs;
use super::report::{about, complete, nanoseconds, reading_bar};
use anyhow::{Context as _, Result};
use memfrag::recording::{Item, Reader};
use memfrag::report::plots::png::Rasteriser;
use memfrag::report::plots::{Looks, Plot, draw, html};
use memfrag::report::{Names, ReportBuilder, units};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Arc;

/// Reads the recording from its beginning, since the pictures show all of its time, and writes what was asked for.
/// Returns what to say about it.
pub(super) fn write(args: &ReportArgs) -> Result<String> {
    let reader = Reader::open(&args.file)?;
    let until = args.at.map(nanoseconds);
    let meta = about(&reader, &args.file, until);
    let end = meta.duration_ns.min(reader.last_time());
    let mut builder = ReportBuilder::new(until);
    builder.name_by(Arc::new(Names::of(&reader)));
    builder.count_lifetimes();
    let mut looks = Looks::new(end);
    let bar = reading_bar(reader.events());
    let mut items = until.map_or_else(|| reader.items(), |until| reader.items_until(until));
    while let Some(item) = items.next_item() {
        let Item::Events(mut events) = item else {
            builder.take(item);
            continue;
        };
        bar.inc(events.len() as u64);
        while !events.is_empty() {
            let at = events.iter().position(|event| event.time >= looks.next()).unwrap_or(events.len());
            builder.take(Item::Events(&events[..at]));
            events = &events[at..];
            if let Some(next) = events.first() {
                looks.pass(next.time, &builder);
            }
        }
    }
    bar.finish_and_clear();
    looks.pass(end, &builder);
    let drawn = draw(&builder, &looks, end);
    let mut said = String::new();
    if let Some(dir) = &args.plots {
        let rasteriser = args.png.map(|theme| Rasteriser::new(theme.into())).transpose()?;
        let saved =
            drawn.iter().map(|process| save(dir, &process.pid.to_string(), &process.plots, rasteriser.as_ref()));
        let count: u64 = saved.sum::<Result<u64>>()?;
        let _ = writeln!(said, "{} in {}", units::plural(count, "picture", "pictures"), dir.display());
    }
    if let Some(file) = &args.html {
        let report = complete(&builder, meta, &args.file, args.at)?;
        let page = html::page(&report, &drawn);
        fs::write(file, &page).with_context(|| format!("cannot write the page to {}", file.display()))?;
        let _ = writeln!(said, "{} in {}; open it in a browser", units::bytes(page.len() as u64), file.display());
    }
    Ok(said)
}

/// Writes each picture to a file of its own, `STEM-NAME.svg`, and to one of pixels beside it where these are wanted.
/// Returns how many pictures there are.
pub(super) fn save(dir: &Path, stem: &str, plots: &[Plot], rasteriser: Option<&Rasteriser>) -> Result<u64> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make the directory {}", dir.display()))?;
    for plot in plots {
        let write = |kind: &str, bytes: &[u8]| {
            let file = dir.join(format!("{stem}-{}.{kind}", plot.name));
            fs::write(&file, bytes).with_context(|| format!("cannot write a picture to {}", file.display()))
        };
        write("svg", plot.svg.as_bytes())?;
        if let Some(rasteriser) = rasteriser {
            write("png", &rasteriser.png(&plot.svg)?)?;
        }
    }
    Ok(plots.len() as u64)
}
