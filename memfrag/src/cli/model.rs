//! `memfrag model`: a recording's events under allocation policies.

use super::args::ModelArgs;
use super::report::{nanoseconds, read, show, style, version_of};
use anyhow::{Context as _, Result, bail};
use memfrag::glibc::Version;
use memfrag::model::{CHOICES, Choice, Factory, Lifetimes, Models, Recipe, Setting};
use memfrag::recording::{Item, Reader};
use memfrag::report::ReportBuilder;
use memfrag::report::policies::{Document, MOST_FORETOLD, Outcome, Real, outcomes, render};
use std::path::Path;
use std::thread::available_parallelism;

/// Runs the verb and returns the exit status.
pub(super) fn run(args: &ModelArgs) -> Result<u8> {
    let mut choices = choose(&args.policy)?;
    let (builder, meta) = read(&args.file, args.at)?;
    let heaps = builder.heaps();
    let at = process_of(&builder, args)?;
    let pid = heaps.processes()[at].pid();
    let mut left_out = None;
    let version = match glibc_of(&builder, at, &args.file) {
        Ok(version) => Some(version),
        // Whoever asks for all of them has those that are none of glibc's.
        Err(reason) if args.policy.is_empty() => {
            choices.retain(|choice| !choice.needs_version());
            left_out = Some(reason.to_string());
            None
        }
        Err(reason) if choices.iter().any(|choice| choice.needs_version()) => return Err(reason),
        Err(_) => None,
    };
    let info = heaps.info(at);
    let environment = info.map(|info| info.settings.clone()).unwrap_or_default();
    let comm = info.map(|info| info.comm.clone()).unwrap_or_default();
    let setting = Setting {
        version: version.unwrap_or(Version::NEWEST),
        arena_max: arena_max(),
        environment,
        lifetimes: Lifetimes::default(),
    };
    let recipe = Recipe::new(heaps, pid, &setting, choices);
    if let Some(learner) = recipe.learner() {
        apply(&args.file, None, learner)?;
    }
    let until = args.at.map(nanoseconds);
    let models = apply(&args.file, until, recipe.factory())?;
    let Some(heap) = models.heap(pid) else {
        let until = if args.at.is_some() { " until then" } else { "" };
        bail!("{} has no event of process {pid}{until}", args.file.display());
    };
    let real = Real::new(heaps.heap(&heaps.processes()[at]), builder.last_residency(at), meta.duration_ns);
    let version = version.map(|version| version.to_string());
    let mut document = Document::new(meta.file, pid, comm, version, setting.environment, real, heap);
    document.left_out = left_out;
    show(&document, args.json, || render(&document, style()))?;
    Ok(0)
}

/// What glibc's model makes of a process's calls until a moment: as glibc was set, and with each of its settings. `None` where the process's allocator is another one or of a version that is not known, or where there are too
/// many events to ask for each.
pub(super) fn tunables(
    file: &Path,
    builder: &ReportBuilder,
    pid: u32,
    until: u64,
) -> Result<Option<(Outcome, Vec<Outcome>)>> {
    let heaps = builder.heaps();
    let allocator = heaps.index_of(pid).and_then(|at| builder.allocator(at)).filter(|found| found.name == "glibc");
    let version = allocator.and_then(|found| found.version.or_else(|| version_of(&found.path, &found.name)));
    let version = version.as_deref().and_then(Version::parse).filter(|version| version.offsets().is_some());
    let Some(version) = version.filter(|_| builder.event_count() <= MOST_FORETOLD) else { return Ok(None) };
    let info = heaps.index_of(pid).and_then(|at| heaps.info(at));
    let environment = info.map(|info| info.settings.clone()).unwrap_or_default();
    let setting = Setting { version, arena_max: arena_max(), environment, lifetimes: Lifetimes::default() };
    // With settings of its own, glibc as it was; else what differs from the others in nothing but its settings.
    let baseline = if setting.environment.is_empty() { "default" } else { "ptmalloc" };
    let wanted = CHOICES.iter().filter(|choice| choice.name == baseline || choice.environment.is_some());
    let recipe = Recipe::new(heaps, pid, &setting, wanted.collect());
    let models = apply(file, Some(until), recipe.factory())?;
    let mut outcomes = models.heap(pid).into_iter().flat_map(outcomes);
    Ok(outcomes.next().map(|default| (default, outcomes.collect())))
}

/// The policies of these names, all of them when there is none.
fn choose(names: &[String]) -> Result<Vec<&'static Choice>> {
    if names.is_empty() {
        return Ok(CHOICES.iter().collect());
    }
    let known = || CHOICES.iter().map(|choice| choice.name).collect::<Vec<_>>().join(", ");
    let find = |name: &String| {
        Choice::find(name).with_context(|| format!("no policy is called {name}; there are: {}", known()))
    };
    names.iter().map(find).collect()
}

/// The process that was asked for, or the one with the most live bytes at once.
fn process_of(builder: &ReportBuilder, args: &ModelArgs) -> Result<usize> {
    let heaps = builder.heaps();
    let of_pid = |pid: u32| heaps.index_of(pid);
    let largest = || {
        let all = heaps.processes().iter().enumerate();
        all.max_by_key(|(_, process)| heaps.heap(process).peak().live.bytes).map(|(at, _)| at)
    };
    let file = args.file.display();
    args.pid.map_or_else(largest, of_pid).with_context(|| match args.pid {
        Some(pid) => format!("{file} holds no process {pid}; memfrag report lists those that it holds"),
        None => format!("{file} holds no process: nothing was recorded"),
    })
}

/// The version of a process's glibc.
fn glibc_of(builder: &ReportBuilder, at: usize, file: &Path) -> Result<Version> {
    let pid = builder.heaps().processes()[at].pid();
    let Some(allocator) = builder.allocator(at) else {
        let file = file.display();
        bail!("{file} does not tell which allocator process {pid} used: no mappings of it were recorded");
    };
    if allocator.name != "glibc" {
        bail!("process {pid} used {} ({}), not glibc; --pid chooses another process", allocator.name, allocator.path);
    }
    let told = allocator.version.or_else(|| version_of(&allocator.path, &allocator.name));
    let version = told.as_deref().and_then(Version::parse).filter(|version| version.offsets().is_some());
    version.with_context(|| {
        format!(
            "the version of glibc in {} is {}; known are {} to {}",
            allocator.path,
            told.as_deref().unwrap_or("not to be learned"),
            Version::OLDEST,
            Version::NEWEST
        )
    })
}

pub(super) fn arena_max() -> usize {
    Setting::arenas_of(available_parallelism().map_or(1, usize::from))
}

/// Reads a recording again, with the policies that a factory makes.
pub(super) fn apply(file: &Path, until: Option<u64>, factory: Factory) -> Result<Models> {
    let reader = Reader::open(file)?;
    let mut models = Models::new(factory);
    let last = until.unwrap_or(u64::MAX);
    let mut items = until.map_or_else(|| reader.items(), |until| reader.items_until(until));
    while let Some(item) = items.next_item() {
        match item {
            Item::Events(events) => {
                events.split(|event| event.time > last).for_each(|events| models.apply_all(events));
            }
            Item::Layout { time, pid, layout } if time <= last => models.layout(time, pid, &layout),
            _ => {}
        }
    }
    Ok(models)
}
