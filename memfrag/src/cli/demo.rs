//! `memfrag demo`: blocks come and go in an arena, and the dashboard shows it as it does any heap.

mod camera;
mod patterns;
mod phases;
mod stage;

use super::args::{DemoArgs, PatternChoice};
use super::dashboard::Dashboard;
use anyhow::{Context, Result};
use camera::Camera;
use memfrag::arena::Arena;
use memfrag::recording::{Header, Writer};
use memfrag::report::units;
use memfrag::server::import;
use stage::Stage;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Runs the verb and returns the exit status.
pub(super) fn run(args: &DemoArgs) -> Result<u8> {
    let stop = super::trace::on_signals()?;
    let capacity = usize::try_from(args.arena_size).context("the arena is larger than the address space")?;
    let arena = Arena::new(capacity)?;
    let (writer, dashboard) = record(args)?;
    // Somebody who looks wants to see it happen.
    let speed = args.speed.unwrap_or(if args.serving.serve.is_some() { 1.0 } else { f64::INFINITY });
    let camera = Camera::new(&arena, writer, dashboard);
    let mut stage = Stage::new(&arena, camera, args.seed, speed, &stop);
    let ended = match args.pattern {
        PatternChoice::Phases => phases::run(&mut stage),
        PatternChoice::RandomBurst => patterns::random_burst(&mut stage),
        PatternChoice::FragStorm => patterns::frag_storm(&mut stage),
        PatternChoice::LargeBlocks => patterns::large_blocks(&mut stage),
        PatternChoice::Steady => patterns::steady(&mut stage),
        PatternChoice::Ramp => patterns::ramp(&mut stage),
        PatternChoice::Mixed => patterns::mixed(&mut stage),
    };
    let (latencies, camera) = stage.finish();
    // Ctrl-C ends the show, not the recording.
    let summary = camera.finish()?;
    super::report::print(&latencies.render())?;
    if let Some(path) = &args.output {
        let path = path.display();
        let size = units::bytes(summary.bytes);
        super::report::print(&format!("recorded in {path} ({size}); see it with: memfrag serve {path}\n"))?;
    }
    if let Some(reason) = summary.stopped {
        anyhow::bail!("{reason}; {} events are not in the recording", summary.missing);
    }
    if let Some(dashboard) = summary.dashboard {
        dashboard.stay("demonstration", &stop, &|text| eprintln!("memfrag: {text}"));
    }
    match ended {
        Err(stage::Halt::Spoilt(address)) => {
            anyhow::bail!("the block at {address:#x} held something else than was written into it")
        }
        Ok(()) | Err(stage::Halt::Asked) if arena.figures().misuses > 0 => {
            anyhow::bail!("the arena refused to take back blocks that it had given out")
        }
        Ok(()) | Err(stage::Halt::Asked) => Ok(0),
    }
}

/// Begins the recording, and the dashboard that follows it if one is wanted.
fn record(args: &DemoArgs) -> Result<(Writer, Option<Dashboard>)> {
    let header = header();
    let (writer, read, name) = if let Some(path) = &args.output {
        let writer = Writer::create(path, &header)?;
        let read = File::open(path).with_context(|| format!("opening {} again", path.display()))?;
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        (writer, read, name)
    } else {
        let file = import::nameless().context("making a file for the recording")?;
        // Opened anew, since who follows it must not be able to write.
        let read = File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).context("opening that file again")?;
        (Writer::on(file, Path::new("a file without a name"), &header)?, read, "demo".to_owned())
    };
    let dashboard = match args.serving.serve {
        Some(wanted) => {
            // Nothing is in it, and nothing will be.
            let started = Dashboard::start(wanted, &args.serving, &read, name);
            Some(started.inspect_err(|_| args.output.iter().for_each(|path| drop(std::fs::remove_file(path))))?)
        }
        None => None,
    };
    Ok((writer, dashboard))
}

fn header() -> Header {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Header {
        backend: "arena".to_owned(),
        started_unix_ns: u64::try_from(now.as_nanos()).unwrap_or(u64::MAX),
        clock: "CLOCK_MONOTONIC".to_owned(),
        memfrag_version: env!("CARGO_PKG_VERSION").to_owned(),
        machine: std::env::consts::ARCH.to_owned(),
        page_size: 4096,
        ..Header::default()
    }
}
