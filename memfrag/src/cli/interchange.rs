//! `memfrag export` and `memfrag import`: other tools' formats, and recordings that may be given away.

use super::args::{ExportArgs, FormatChoice, ImportArgs};
use super::report::reading_bar;
use anyhow::{Context as _, Result, bail};
use memfrag::interchange::memfragx::{Export, Exported, Import, Imported, LOG};
use memfrag::recording::{Header, Item, Reader, Redactor, Writer};
use memfrag::report::units;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, BufWriter};
use std::path::Path;

/// Runs `export` and returns the exit status.
pub(super) fn export(args: &ExportArgs) -> Result<u8> {
    match args.format {
        FormatChoice::Memfragx => memfragx(args),
        FormatChoice::Mfrag => mfrag(args),
    }
}

fn redactor() -> Result<Redactor> {
    Redactor::new().context("addresses cannot be moved: the kernel has no random numbers")
}

fn mfrag(args: &ExportArgs) -> Result<u8> {
    if !args.redact {
        bail!("a recording as it is can be copied as any file; give --redact for one that may leave the machine");
    }
    let reader = Reader::open(&args.file)?;
    let to = args.output.display();
    // The recording itself is not to be replaced by its copy.
    let out = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&args.output)
        .with_context(|| format!("cannot create {to}, which must not exist yet"))?;
    redactor()?.write(&reader, out, &args.output)?;
    let copy = Reader::open(&args.output)?;
    let (events, bytes) = (units::plural(copy.events(), "event", "events"), units::bytes(copy.bytes()));
    super::report::print(&format!(
        "{events} in {to} ({bytes}); see them with: memfrag report {to}\n\
         moved: addresses, by a multiple of 64 MiB that is not kept\n\
         left out: paths but for the system's libraries, names of programs and of the machine, command lines\n\
         kept: sizes, times, numbers of threads and processes, where blocks lie to each other\n",
    ))?;
    Ok(0)
}

fn memfragx(args: &ExportArgs) -> Result<u8> {
    let reader = Reader::open(&args.file)?;
    let (pid, others) = choose(&reader, args.pid)?;
    let dir = &args.output;
    fs::create_dir_all(dir).with_context(|| format!("cannot make the directory {}", dir.display()))?;
    let path = dir.join(LOG);
    let writing = || format!("cannot write the log to {}", path.display());
    let out = BufWriter::new(File::create(&path).with_context(writing)?);
    let mut log = Export::new(out, pid, reader.header().started_unix_ns).with_context(writing)?;
    let bar = reading_bar(reader.events());
    let mut redactor = args.redact.then(redactor).transpose()?;
    let mut items = reader.items();
    while let Some(item) = items.next_item() {
        match item {
            Item::Events(events) => {
                bar.inc(events.len() as u64);
                let events = redactor.as_mut().map_or(events, |redactor| redactor.events(events));
                log.events(events).with_context(writing)?;
            }
            Item::Memory(sample) => log.memory(&sample),
            _ => {}
        }
    }
    bar.finish_and_clear();
    let done = log.finish(path.display().to_string()).with_context(writing)?;
    let write = |name: &str, text: &str| {
        let path = dir.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    write("summary.json", &(serde_json::to_string_pretty(&done.summary)? + "\n"))?;
    if let Some(smaps) = done.smaps() {
        write("smaps", &smaps)?;
    }
    super::report::print(&exported(&done, pid, others, dir))?;
    Ok(0)
}

/// The process to be exported, and how many others there are.
fn choose(reader: &Reader, wanted: Option<u32>) -> Result<(u32, usize)> {
    let mut counts: BTreeMap<u32, u64> = BTreeMap::new();
    let mut items = reader.items();
    while let Some(item) = items.next_item() {
        if let Item::Events(events) = item {
            for event in events {
                *counts.entry(event.pid).or_default() += 1;
            }
        }
    }
    let most = counts.iter().max_by_key(|(_, count)| **count).map(|(&pid, _)| pid);
    let Some(most) = most else { bail!("the recording has no events") };
    let pid = wanted.unwrap_or(most);
    if !counts.contains_key(&pid) {
        bail!("the recording has no events of a process {pid}; most are of {most}");
    }
    Ok((pid, counts.len() - 1))
}

fn exported(done: &Exported, pid: u32, others: usize, dir: &Path) -> String {
    let rows = units::plural(done.summary.records, "row", "rows");
    let mut text = format!("{rows} of process {pid} in {}\n", dir.join(LOG).display());
    if others > 0 {
        let others = units::plural(others as u64, "other process", "other processes");
        let _ = writeln!(text, "{others} left out; --pid chooses another one");
    }
    if done.of_unknown_size > 0 {
        let frees = units::plural(done.of_unknown_size, "free", "frees");
        let _ = writeln!(text, "{frees} of blocks from before, whose size is not known and stays empty");
    }
    text
}

/// Runs `import` and returns the exit status.
pub(super) fn import(args: &ImportArgs) -> Result<u8> {
    let file = File::open(&args.file).with_context(|| format!("cannot open {}", args.file.display()))?;
    let reading = || format!("reading {}", args.file.display());
    let log = Import::new(BufReader::new(file)).with_context(reading)?;
    let header = Header {
        backend: "memfragx".to_owned(),
        started_unix_ns: log.started_unix_ns(),
        clock: "CLOCK_REALTIME".to_owned(),
        memfrag_version: env!("CARGO_PKG_VERSION").to_owned(),
        page_size: 4096,
        ..Header::default()
    };
    let mut writer = Writer::create(&args.output, &header)?;
    let name = args.file.file_stem().unwrap_or_default().to_string_lossy();
    let done = log.run(&name, &mut writer).with_context(reading)?;
    let summary = writer.finish(done.duration_ns, None)?;
    super::report::print(&imported(&done, summary.bytes, &args.output))?;
    if let Some(reason) = summary.stopped {
        bail!("{reason}; {} events are not in the recording", summary.not_recorded);
    }
    Ok(0)
}

fn imported(done: &Imported, bytes: u64, output: &Path) -> String {
    let mut text = format!(
        "{} of {} in {} ({}); see them with: memfrag report {2}\n",
        units::plural(done.rows, "row", "rows"),
        units::plural(done.threads, "thread", "threads"),
        output.display(),
        units::bytes(bytes)
    );
    let counted = [
        (
            done.late_frees,
            "free",
            "frees",
            "stood behind the allocation that uses the address again, and went before it",
        ),
        (
            done.moved,
            "reallocation",
            "reallocations",
            "moved or began a block; an old one is not named, and seems to live on",
        ),
        (done.set_back, "row", "rows", "came with an earlier time than the row before, and got that one's"),
        (done.null_frees, "row", "rows", "freed nothing"),
    ];
    for (count, one, many, what) in counted.into_iter().filter(|counted| counted.0 > 0) {
        let _ = writeln!(text, "{} {what}", units::plural(count, one, many));
    }
    if let Some((line, wrong)) = done.first_bad {
        let lines = units::plural(done.bad, "line was", "lines were");
        let _ = writeln!(text, "{lines} left out, the first is line {line}: {wrong}");
    }
    text
}
