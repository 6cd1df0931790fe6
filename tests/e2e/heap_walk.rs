//! The heap walked from outside, against programs that know their blocks, against what the allocator says of itself,
//! and against the blocks that a trace knows.

use anyhow::{Context, Result, ensure};
use memfrag::glibc::{ChunkKind, Confidence, Segment, Walk, Walker};
use memfrag::target::process as proc;
use memfrag_common::Op;
use memfrag_tests::known_heap::{KnownHeap, of_malloc_info};
use memfrag_tests::memfrag::{Backend, memfrag, trace};
use memfrag_tests::oracle::Oracle;
use memfrag_tests::process::{self, Running, until};
use memfrag_tests::{events, place, tests, tests_on_both};
use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

tests!(
    one_thread,
    many_threads,
    several_heaps_an_arena,
    a_break_that_others_move,
    a_break_that_cannot_be_moved,
    tunables,
    caches_in_chunks_that_are_larger,
    while_it_allocates,
    without_stopping,
    a_static_program,
    the_printed_heap,
);
tests_on_both!(python, perl, threads);

/// Chunks by the address of their block: what they are, and the bytes that a program may use.
fn blocks(walk: &Walk) -> HashMap<u64, (ChunkKind, u64)> {
    let segments = walk.layout.arenas.iter().flat_map(|arena| &arena.segments);
    let chunks = segments.flat_map(Segment::iter);
    let chunks = chunks.map(|(address, chunk)| (address + 16, (chunk.kind(), chunk.bytes() - 8)));
    let mapped = walk.layout.mapped.iter();
    chunks.chain(mapped.map(|chunk| (chunk.address + 16, (ChunkKind::Used, chunk.bytes - 16)))).collect()
}

/// Each of these blocks has a chunk in use that is large enough. Gives how many chunks in use are not among them.
fn all_in_use(walk: &Walk, live: impl IntoIterator<Item = (u64, u64)>) -> Result<usize> {
    let mut blocks = blocks(walk);
    for (address, size) in live {
        let (kind, room) = blocks.remove(&address).with_context(|| format!("no chunk at the block {address:#x}"))?;
        ensure!(kind == ChunkKind::Used, "the block {address:#x} of {size} bytes is {kind:?}");
        ensure!(room >= size, "the block {address:#x} of {size} bytes has room for {room}");
    }
    Ok(blocks.values().filter(|(kind, _)| *kind == ChunkKind::Used).count())
}

/// Everything that the program and its allocator say must be found.
fn check(heap: &KnownHeap, threads: usize, libcs_own: usize) -> Result<Walk> {
    let walk = Walk::take(heap.pid())?;
    ensure!(walk.confidence == Confidence::Exact, "{:?}", walk.discrepancies);
    of_malloc_info(&heap.info, &walk)?;
    let extra = all_in_use(&walk, heap.blocks.iter().copied())?;
    // libc's own blocks: the file, the threads' vectors. More would be free chunks taken for used ones.
    ensure!(extra <= libcs_own, "{extra} chunks in use of which the program knows nothing");
    ensure!(walk.caches.len() == threads, "{} caches of {threads} threads: {:?}", walk.caches.len(), walk.caches);
    Ok(walk)
}

fn one_thread() -> Result<()> {
    let heap = KnownHeap::start(&["1", "30000"])?;
    let walk = check(&heap, 1, 8)?;
    ensure!(walk.layout.arenas.len() == 1 && walk.layout.mapped.len() == 5, "{:?}", walk.layout.mapped);
    // It goes on as before: nobody traces it, and it sleeps in its pause.
    let status = std::fs::read_to_string(format!("/proc/{}/status", heap.pid()))?;
    ensure!(status.contains("TracerPid:\t0\n"), "{status}");
    until("it sleeps again", Duration::from_secs(5), || Ok(proc_state(heap.pid())? == b'S'))
}

fn proc_state(pid: u32) -> Result<u8> {
    Ok(proc::Stat::read(pid)?.state)
}

fn many_threads() -> Result<()> {
    let walk = check(&KnownHeap::start(&["12", "4000"])?, 12, 40)?;
    ensure!(walk.layout.arenas.len() > 8, "{} arenas", walk.layout.arenas.len());
    ensure!(walk.threads.iter().sum::<u64>() == 12, "{:?}", walk.threads);
    Ok(())
}

fn several_heaps_an_arena() -> Result<()> {
    let walk = check(&KnownHeap::start(&["2", "120000"])?, 2, 12)?;
    let segments: Vec<usize> = walk.layout.arenas.iter().map(|arena| arena.segments.len()).collect();
    ensure!(segments.iter().any(|&segments| segments > 1), "{segments:?}");
    Ok(())
}

fn a_break_that_others_move() -> Result<()> {
    let walk = check(&KnownHeap::start(&["1", "30000", "foreign"])?, 1, 8)?;
    ensure!(walk.layout.arenas[0].segments.len() > 1 && walk.foreign_bytes >= 15_000, "{}", walk.foreign_bytes);
    Ok(())
}

fn a_break_that_cannot_be_moved() -> Result<()> {
    let walk = check(&KnownHeap::start(&["2", "30000", "nobrk"])?, 2, 12)?;
    ensure!(walk.layout.arenas[0].segments.len() > 2, "{} segments", walk.layout.arenas[0].segments.len());
    Ok(())
}

fn tunables() -> Result<()> {
    let settings = [
        ("glibc.malloc.tcache_count=30:glibc.malloc.tcache_max=300", 3),
        ("glibc.malloc.arena_max=1", 3),
        ("glibc.malloc.mmap_threshold=20000:glibc.malloc.top_pad=1000000", 3),
        ("glibc.malloc.tcache_count=0", 0),
    ];
    for (setting, caches) in settings {
        let heap = KnownHeap::start_with(&["3", "5000"], |command| {
            command.env("GLIBC_TUNABLES", setting);
        })?;
        let walk = check(&heap, caches, 20).context(setting)?;
        match setting.split_once('=').map(|(name, _)| name) {
            Some("glibc.malloc.arena_max") => ensure!(walk.layout.arenas.len() == 1, "{setting}"),
            Some("glibc.malloc.mmap_threshold") => {
                ensure!(walk.parameters.mmap_threshold == 20_000 && !walk.parameters.dynamic_thresholds, "{setting}");
                ensure!(walk.layout.mapped.len() > 20, "{setting}: {} mapped chunks", walk.layout.mapped.len());
            }
            _ => {}
        }
    }
    Ok(())
}

/// Of a free chunk that is a little larger than a thread's cache glibc cuts nothing off.
fn caches_in_chunks_that_are_larger() -> Result<()> {
    let heap = KnownHeap::start_with(&["3", "5000", "snug"], |command| {
        command.env("GLIBC_TUNABLES", "glibc.malloc.arena_max=1");
    })?;
    // The blocks between the chunks besides.
    let walk = check(&heap, 3, 20 + 32)?;
    let segments = walk.layout.arenas.iter().flat_map(|arena| &arena.segments);
    let tables: Vec<u64> = segments
        .flat_map(|segment| &segment.chunks)
        .filter(|chunk| chunk.kind() == ChunkKind::TcacheTable)
        .map(|chunk| chunk.bytes())
        .collect();
    ensure!(tables.len() == 3 && tables.iter().filter(|&&bytes| bytes == 672).count() == 2, "{tables:?}");
    Ok(())
}

/// Threads that allocate all the time are caught at any point; the blocks that they let alone must be found.
fn while_it_allocates() -> Result<()> {
    let heap = KnownHeap::start(&["6", "3000", "busy"])?;
    let walker = Walker::new(heap.pid())?;
    for round in 0..20 {
        let walk = walker.stopped()?;
        ensure!(walk.confidence == Confidence::Exact, "round {round}: {:?}", walk.discrepancies);
        all_in_use(&walk, heap.blocks.iter().copied()).with_context(|| format!("round {round}"))?;
    }
    Ok(())
}

fn without_stopping() -> Result<()> {
    let heap = KnownHeap::start(&["3", "3000"])?;
    let walk = Walker::new(heap.pid())?.running()?;
    ensure!(walk.confidence == Confidence::Consistent && walk.stopped.is_zero(), "{:?}", walk.discrepancies);
    all_in_use(&walk, heap.blocks.iter().copied())?;
    Ok(())
}

fn a_static_program() -> Result<()> {
    let program = place::compile("known_heap", "known_heap-static", &["-static"])?;
    check(&KnownHeap::start_program(&program, &["4", "3000"], |_| {})?, 4, 20)?;
    Ok(())
}

fn the_printed_heap() -> Result<()> {
    let heap = KnownHeap::start(&["3", "5000"])?;
    let pid = heap.pid().to_string();
    let json = process::run(&mut memfrag(&["heap", "--pid", &pid, "--json"])?)?.success()?;
    let json: Value = serde_json::from_slice(&json.stdout).context("not one JSON document")?;
    let walk = Walk::take(heap.pid())?;
    ensure!(json["allocator"]["name"] == "glibc" && json["walk"]["confidence"] == "exact", "{json}");
    let number = |value: &Value, name: &str| value[name].as_u64().with_context(|| format!("no {name} in {value}"));
    let arenas = json["arenas"].as_array().context("no arenas")?;
    ensure!(arenas.len() == walk.layout.arenas.len() && arenas.len() > 1, "{} arenas", arenas.len());
    for (shown, arena) in arenas.iter().zip(&walk.layout.arenas) {
        let parts = ["used_bytes", "cached_bytes", "free_bytes", "top_bytes", "metadata_bytes"];
        let sum: u64 = parts.iter().map(|name| number(shown, name)).sum::<Result<u64>>()?;
        ensure!(sum == number(shown, "system_bytes")? && sum == arena.system_bytes, "{shown}");
        ensure!(number(shown, "used_chunks")? == arena.count_of(ChunkKind::Used) as u64, "{shown}");
        let cached = arena.count_of(ChunkKind::Tcache) + arena.count_of(ChunkKind::Fastbin);
        ensure!(number(shown, "cached_chunks")? == cached as u64, "{shown}");
        ensure!(number(shown, "free_bytes")? == arena.bytes_of(ChunkKind::Free), "{shown}");
        ensure!(number(shown, "top_bytes")? == arena.bytes_of(ChunkKind::Top), "{shown}");
    }
    let mapped = walk.layout.mapped.len() as u64;
    ensure!(mapped > 5 && number(&json["mmapped"], "chunks")? == mapped, "{mapped}: {}", json["mmapped"]);
    ensure!(number(&json["mmapped"], "bytes")? == walk.parameters.mapped_bytes, "{}", json["mmapped"]);
    ensure!(number(&json["walk"], "stopped_ns")? > 0, "{}", json["walk"]);
    let text = process::run(&mut memfrag(&["heap", "--pid", &pid])?)?.success()?.text();
    for said in ["known_heap", "glibc 2.", "3 arenas", "main", "tcache", "stood still for", "mapped by themselves"] {
        ensure!(text.contains(said), "nothing says {said:?}:\n{text}");
    }
    ensure!(!text.contains('\u{1b}'), "colours though it is no terminal");
    Ok(())
}

/// The one child of a process.
pub(crate) fn child(pid: u32) -> Result<u32> {
    let is_child = |&other: &u32| proc::Stat::read(other).is_ok_and(|stat| stat.ppid == pid);
    proc::all()?.into_iter().find(is_child).context("memfrag has no child")
}

/// Traces a command until `ready`, stops it, and compares the blocks that the trace then knows with the walked heap.
/// Gives how many chunks in use the trace does not know.
fn traced_blocks(
    backend: Backend,
    dir: &Path,
    target: &Command,
    ready: impl Fn(u32) -> Result<bool>,
) -> Result<(usize, usize)> {
    let recording = dir.join("r.mfrag");
    let mut tracer = Running::start(&mut trace(backend, &recording, target)?)?;
    let mut pid = 0;
    until("the program is ready", process::LIMIT, || {
        ensure!(tracer.alive()?, "memfrag ended at once: {}", tracer.stderr()?);
        pid = child(tracer.pid()).unwrap_or(0);
        Ok(pid != 0 && ready(pid)?)
    })?;
    let walk = stopped_and_walked(pid)?;
    process::send(pid, libc::SIGKILL)?;
    tracer.wait(process::LIMIT)?;
    let events = events::read(&recording)?;
    let lived: Vec<_> = events.into_iter().filter(|event| !matches!(event.op, Op::Exit { .. })).collect();
    let oracle = Oracle::new(&lived);
    let live = oracle.heap(pid).context("the trace knows nothing of the process")?;
    let extra = all_in_use(&walk, live.iter().map(|(&address, block)| (address, block.size)))?;
    Ok((live.len(), extra))
}

/// Stops the process for good and walks its heap. The signal may have caught a thread in the middle of a change; no
/// walk can end that, so the process goes on and is stopped anew.
fn stopped_and_walked(pid: u32) -> Result<Walk> {
    for attempt in 1.. {
        process::send(pid, libc::SIGSTOP)?;
        until("it is stopped", Duration::from_secs(5), || Ok(proc_state(pid)? == b'T'))?;
        let walk = Walk::take(pid);
        // Let go of, it is woken only to stop again by itself; one that was set going would sleep.
        let stays = until("it is stopped again", Duration::from_secs(1), || Ok(proc_state(pid)? == b'T'));
        stays.context("the walk has set a stopped process going")?;
        match walk {
            Ok(walk) if walk.confidence == Confidence::Exact => return Ok(walk),
            Ok(walk) => ensure!(attempt < 10, "{:?}", walk.discrepancies),
            Err(error) => ensure!(attempt < 10, "{error}"),
        }
        process::send(pid, libc::SIGCONT)?;
        std::thread::sleep(Duration::from_millis(5));
    }
    unreachable!("the last attempt returns")
}

/// The command writes this file when it is ready.
fn wrote(dir: &Path) -> impl Fn(u32) -> Result<bool> {
    let file = dir.join("ready");
    move |_| Ok(file.exists())
}

fn python(backend: Backend) -> Result<()> {
    let dir = place::scratch()?;
    let mut target = Command::new(place::tool("python3")?);
    let script = "import json, os, signal, sys, time\n\
        data = [{'id': i, 'tags': [str(j) * (j % 9) for j in range(i % 20)]} for i in range(3000)]\n\
        text = json.dumps(data); again = json.loads(text); del data[::2]\n\
        big = [bytearray(i * 1000) for i in range(100, 400, 7)]; del big[::3]\n\
        open(sys.argv[1], 'w').close()\n\
        time.sleep(1000)";
    target.args(["-c", script]).arg(dir.path().join("ready")).env("PYTHONMALLOC", "malloc");
    let (live, extra) = traced_blocks(backend, dir.path(), &target, wrote(dir.path()))?;
    eprintln!("python: {live} live blocks, {extra} more chunks in use");
    ensure!(live > 50_000 && extra < 100, "{live} live blocks, {extra} more chunks in use");
    Ok(())
}

fn perl(backend: Backend) -> Result<()> {
    let dir = place::scratch()?;
    let mut target = Command::new(place::tool("perl")?);
    let script = "my %h; for my $i (1..40000) { $h{$i} = 'x' x ($i % 700); delete $h{$i - 3} if $i % 2; } \
        open(my $f, '>', $ARGV[0]); close $f; sleep 1000;";
    target.args(["-e", script]).arg(dir.path().join("ready"));
    let (live, extra) = traced_blocks(backend, dir.path(), &target, wrote(dir.path()))?;
    eprintln!("perl: {live} live blocks, {extra} more chunks in use");
    ensure!(live > 20_000 && extra < 100, "{live} live blocks, {extra} more chunks in use");
    Ok(())
}

/// Sixteen threads that free each other's blocks, stopped in the middle of that.
fn threads(backend: Backend) -> Result<()> {
    let dir = place::scratch()?;
    let mut target = Command::new(place::program("stress16")?);
    target.arg("100000000");
    let ready = |pid| Ok(proc::threads(pid)?.len() == 17 && Walk::take(pid).is_ok_and(|walk| walk.caches.len() == 16));
    let (live, extra) = traced_blocks(backend, dir.path(), &target, ready)?;
    eprintln!("16 threads: {live} live blocks, {extra} more chunks in use");
    // Besides libc's own: calls under way, and those whose events were on their way.
    ensure!(live > 500 && extra < 200, "{live} live blocks, {extra} more chunks in use");
    Ok(())
}
