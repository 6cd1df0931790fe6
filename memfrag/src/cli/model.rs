//! `memfrag model`: a recording's events under allocation policies.

use super::args::ModelArgs;
use super::report::{read, show, style, version_of};
use anyhow::{Context as _, Result, bail};
use memfrag::glibc::Version;
use memfrag::model::{CHOICES, Choice, Factory, Lifetimes, Models, Recipe, Setting};
use memfrag::recording::{Item, Reader};
use memfrag::report::policies::{Document, MOST_FORETOLD, Outcome, render};
use memfrag::report::{Report, ReportBuilder};
use std::collections::HashMap;
use std::path::Path;
use std::thread::available_parallelism;
use std::time::Duration;

/// Runs the verb and returns the exit status.
pub(super) fn run(args: &ModelArgs) -> Result<u8> {
    let choices = choose(&args.policy)?;
    let (builder, meta) = read(&args.file, None)?;
    let (pid, version) = glibc_process(&builder, args)?;
    let info = builder.heaps().index_of(pid).and_then(|at| builder.heaps().info(at));
    let environment = info.map(|info| info.settings.clone()).unwrap_or_default();
    let comm = info.map(|info| info.comm.clone()).unwrap_or_default();
    let setting = Setting { version, arena_max: arena_max(), environment, lifetimes: Lifetimes::default() };
    let recipe = Recipe::new(builder.heaps(), pid, &setting, choices);
    if let Some(learner) = recipe.learner() {
        apply(&args.file, None, learner)?;
    }
    let until = args.at.map(|at| u64::try_from(at.as_nanos()).unwrap_or(u64::MAX));
    let models = apply(&args.file, until, recipe.factory())?;
    let Some(heap) = models.heap(pid) else {
        let until = if args.at.is_some() { " until then" } else { "" };
        bail!("{} has no event of process {pid}{until}", args.file.display());
    };
    let document = Document::new(meta.file, pid, comm, version.to_string(), setting.environment, heap);
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
    let mut outcomes =
        models.heap(pid).into_iter().flat_map(memfrag::model::ModelHeap::policies).map(|it| Outcome::new(it.as_ref()));
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

/// The process that was asked for, or the one with the most live bytes at once, with the version of its glibc.
fn glibc_process(builder: &ReportBuilder, args: &ModelArgs) -> Result<(u32, Version)> {
    let heaps = builder.heaps();
    let of_pid = |pid: u32| heaps.index_of(pid);
    let largest = || {
        let all = heaps.processes().iter().enumerate();
        all.max_by_key(|(_, process)| heaps.heap(process).peak().live.bytes).map(|(at, _)| at)
    };
    let file = args.file.display();
    let Some(at) = args.pid.map_or_else(largest, of_pid) else {
        match args.pid {
            Some(pid) => bail!("{file} holds no process {pid}; memfrag report lists those that it holds"),
            None => bail!("{file} holds no process: nothing was recorded"),
        }
    };
    let pid = heaps.processes()[at].pid();
    let Some(allocator) = builder.allocator(at) else {
        bail!("{file} does not tell which allocator process {pid} used: no mappings of it were recorded");
    };
    if allocator.name != "glibc" {
        bail!(
            "process {pid} used {} ({}), and these policies are about glibc; --pid chooses another process",
            allocator.name,
            allocator.path
        );
    }
    let told = allocator.version.or_else(|| version_of(&allocator.path, &allocator.name));
    let Some(version) = told.as_deref().and_then(Version::parse).filter(|version| version.offsets().is_some()) else {
        bail!(
            "the version of glibc in {} is {}; known are {} to {}",
            allocator.path,
            told.as_deref().unwrap_or("not to be learned"),
            Version::OLDEST,
            Version::NEWEST
        );
    };
    Ok((pid, version))
}

fn arena_max() -> usize {
    Setting::arenas_of(available_parallelism().map_or(1, usize::from))
}

/// The policies of those processes that are wanted.
fn policies(wanted: HashMap<u32, Setting>, choices: Vec<&'static Choice>) -> Factory {
    Box::new(move |pid| {
        let setting = wanted.get(&pid);
        setting.map_or_else(Vec::new, |setting| choices.iter().filter_map(|choice| choice.make(setting)).collect())
    })
}

/// Reads a recording again, with the policies that a factory makes.
fn apply(file: &Path, until: Option<u64>, factory: Factory) -> Result<Models> {
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

/// Enters into a report how far glibc's model foretold what glibc did.
pub(super) fn enter_agreement(report: &mut Report, file: &Path, at: Option<Duration>) -> Result<()> {
    let version = |process: &memfrag::report::model::Process| {
        let allocator = process.allocator.as_ref().filter(|allocator| allocator.name == "glibc")?;
        let version = Version::parse(allocator.version.as_deref()?)?;
        version.offsets().map(|_| {
            (
                process.pid,
                Setting {
                    version,
                    arena_max: arena_max(),
                    environment: process.settings.clone(),
                    lifetimes: Lifetimes::default(),
                },
            )
        })
    };
    let wanted: HashMap<u32, Setting> = report.processes.iter().filter_map(version).collect();
    if wanted.is_empty() || report.events.total > MOST_FORETOLD {
        return Ok(());
    }
    let until = at.map(|at| u64::try_from(at.as_nanos()).unwrap_or(u64::MAX));
    let models = apply(file, until, policies(wanted, CHOICES.iter().take(1).collect()))?;
    for process in report.processes.iter_mut().filter(|process| process.shares_heap_of.is_none()) {
        let counts = models.heap(process.pid).and_then(|heap| heap.policies().first()).map(|policy| policy.counts());
        let counts = counts.filter(|counts| counts.placements > 0);
        let share = counts.and_then(|counts| Some(counts.exact? as f64 / counts.placements as f64));
        if let Some(allocator) = &mut process.allocator {
            allocator.model_agreement = share;
        }
    }
    Ok(())
}
