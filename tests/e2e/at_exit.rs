//! Real programs held as they exit: their heap walked from outside, the blocks that the trace knows, the ledger, what
//! malloc says of itself and what the kernel counts all describe one and the same moment.

use crate::heap_walk::child;
use crate::resident::{of_mappings, rollup};
use anyhow::{Context, Result, ensure};
use memfrag::glibc::{ChunkKind, Confidence, Segment, Walk};
use memfrag_tests::known_heap::of_malloc_info;
use memfrag_tests::memfrag::{Backend, Report, trace};
use memfrag_tests::process::{self, Running, until};
use memfrag_tests::{place, tests_on_both};
use serde_json::Value;
use std::fmt::Write as _;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

tests_on_both!(git, python, perl, behind_a_wall, cc1, node, sixteen_threads);

/// The history of a repository made for this, with its changes.
fn git(backend: Backend) -> Result<()> {
    let dir = place::scratch()?;
    let program = place::tool("git")?;
    let repository = dir.path().join("repository");
    let run = |words: &[&str]| {
        let mut git = Command::new(&program);
        let identity = ["-c", "user.name=a", "-c", "user.email=a@localhost", "-c", "commit.gpgsign=false"];
        git.arg("-C").arg(&repository).args(identity).args(words).env("GIT_CONFIG_NOSYSTEM", "1");
        process::run(&mut git)?.success()
    };
    std::fs::create_dir(&repository)?;
    run(&["init", "-q"])?;
    for round in 0..40 {
        for file in 0..5 {
            let mut text = String::new();
            for line in 0..600 {
                writeln!(text, "line {line} of {file}, as round {} left it", round / (1 + line % 7))?;
            }
            std::fs::write(repository.join(format!("file{file}")), text)?;
        }
        run(&["add", "."])?;
        run(&["commit", "-q", "-m", &format!("round {round}")])?;
    }
    let mut target = Command::new(&program);
    target.arg("-C").arg(&repository).args(["--no-pager", "log", "-p"]);
    agrees(backend, &mut target)
}

fn python(backend: Backend) -> Result<()> {
    let script = "import json, threading\n\
        data = [{'id': i, 'tags': [str(j) * (j % 9) for j in range(i % 20)]} for i in range(3000)]\n\
        big = [bytearray(i * 1000) for i in range(100, 400, 7)]; del big[::3]\n\
        def work(): data.append(json.loads(json.dumps(data[:500])))\n\
        threads = [threading.Thread(target=work) for i in range(4)]\n\
        for thread in threads: thread.start()\n\
        for thread in threads: thread.join()\n";
    let mut target = Command::new(place::tool("python3")?);
    agrees(backend, target.args(["-c", script]).env("PYTHONMALLOC", "malloc"))
}

fn perl(backend: Backend) -> Result<()> {
    agrees(backend, &mut hash_of_perl()?)
}

/// The break meets a mapping a mebibyte on, so that the main arena goes on elsewhere. Of node this is one run of a
/// hundred, when a page of V8's code comes to lie there.
fn behind_a_wall(backend: Backend) -> Result<()> {
    let mebibyte = (1 << 20).to_string();
    let pieces = pieces_of_agreeing(backend, hash_of_perl()?.env("AT_EXIT_WALL", mebibyte))?;
    ensure!(pieces > 1, "the main arena is one piece");
    Ok(())
}

fn hash_of_perl() -> Result<Command> {
    let script = "my %h; for my $i (1..40000) { $h{$i} = 'x' x ($i % 700); delete $h{$i - 3} if $i % 2; }";
    let mut perl = Command::new(place::tool("perl")?);
    perl.args(["-e", script]);
    Ok(perl)
}

fn cc1(backend: Backend) -> Result<()> {
    let dir = place::scratch()?;
    let source = dir.path().join("some.c");
    let mut text = String::new();
    for n in 0..300 {
        writeln!(
            text,
            "int f{n}(int *p, int x) {{ for (int i = 0; i < x; i++) p[i] = p[i ^ {n}] * x; return p[{n}]; }}"
        )?;
    }
    std::fs::write(&source, text)?;
    let found = process::run(Command::new(place::tool("gcc")?).arg("-print-prog-name=cc1"))?.success()?.text();
    agrees(backend, Command::new(found.trim()).args(["-quiet", "-O2"]).arg(source).args(["-o", "/dev/null"]))
}

fn node(backend: Backend) -> Result<()> {
    let script = "let kept = []; for (let i = 0; i < 20000; i++) { \
        const b = Buffer.allocUnsafeSlow(500 + i % 3000).fill(i % 251); if (i % 9 === 0) kept.push(b); }";
    agrees(backend, Command::new(place::tool("node")?).args(["-e", script]))
}

/// Every tenth block is freed by another thread than the one that allocated it.
fn sixteen_threads(backend: Backend) -> Result<()> {
    agrees(backend, Command::new(place::program("threads")?).args(["16", "20000", "1"]))
}

/// What `at_exit.c` wrote: `malloc_info`'s document, and `mallinfo2`'s numbers by their names.
struct Said {
    info: String,
    sums: String,
}

impl Said {
    fn read(path: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(path).ok()?;
        let (info, sums) = text.split_once("</malloc>\n")?;
        sums.ends_with("\nend\n").then(|| Self { info: info.to_owned(), sums: sums.to_owned() })
    }

    fn number(&self, name: &str) -> Result<u64> {
        let line = self.sums.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.with_context(|| format!("no {name} in {}", self.sums))?.parse().context("no number")
    }
}

/// Traces the program until it exits, where it is held, and compares everything that is known of it then.
fn agrees(backend: Backend, target: &mut Command) -> Result<()> {
    pieces_of_agreeing(backend, target).map(drop)
}

/// [`agrees`], and of how many pieces the main arena is then.
fn pieces_of_agreeing(backend: Backend, target: &mut Command) -> Result<usize> {
    let dir = place::scratch()?;
    let (recording, file) = (dir.path().join("r.mfrag"), dir.path().join("said"));
    let name = Path::new(target.get_program()).file_name().context("no name")?.to_owned();
    let helper = place::compile("at_exit", "at_exit.so", &["-shared", "-fPIC"])?;
    target.env("LD_PRELOAD", helper).env("AT_EXIT_PROGRAM", &name).env("AT_EXIT_FILE", &file);
    let mut memfrag = Running::start(&mut trace(backend, &recording, target)?)?;
    let (mut pid, mut said) = (0, None);
    until("the program stands still at its end", process::LIMIT, || {
        ensure!(memfrag.alive()?, "memfrag ended: {}", memfrag.stderr()?);
        pid = child(memfrag.pid()).unwrap_or(0);
        said = Said::read(&file);
        let stopped =
            |pid| std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") T "));
        Ok(pid != 0 && said.is_some() && stopped(pid))
    })?;
    let said = said.context("nothing was said")?;
    let walk = Walk::take(pid)?;
    ensure!(walk.confidence == Confidence::Exact, "{:?}", walk.discrepancies);
    of_malloc_info(&said.info, &walk)?;
    of_mallinfo(&said, &walk)?;
    // Before the probes are taken out, for which the kernel copied pages of the libraries.
    let resident = rollup(pid, "Rss:")?;
    let pieces = &walk.layout.arenas[0].segments;
    let in_main = in_pieces(pid, pieces)?;
    let of_session = |line: &str| line.contains("/memfrag-") && line.contains("/data/");
    let own = of_mappings(pid, |line| {
        line.contains("/libmemfrag_preload.so") || of_session(line) || line.contains("/dev/zero")
    })?;
    memfrag.signal(libc::SIGINT)?;
    until("the trace has ended", Duration::from_mins(1), || {
        Ok(Report::of(&recording).is_ok_and(|report| report.nothing_lost().is_ok()))
    })?;
    let report = Report::of(&recording)?;
    process::send(pid, libc::SIGKILL)?;
    memfrag.wait(process::LIMIT)?;
    let process = report.0["processes"].as_array().into_iter().flatten().find(|process| process["pid"] == pid);
    let process = process.context("the process is not in the report")?;
    let used = knows_every_chunk(process, &walk)?;
    let ledger = &process["end"]["ledger"];
    of_ledger(ledger, &walk, resident)?;
    ensure!(ledger["not_malloc_memfrag"] == own, "{own} bytes are memfrag's own: {ledger}");
    ensure!((own > 0) == (backend == Backend::Preload), "{own} bytes are memfrag's own");
    let main = &ledger["places"]["main_arena"]["resident"];
    ensure!(*main == in_main, "{in_main} bytes of the main arena's {} pieces are resident: {ledger}", pieces.len());
    eprintln!(
        "{}: {used} chunks in use of {} arenas, {resident} bytes resident",
        name.display(),
        walk.layout.arenas.len()
    );
    Ok(pieces.len())
}

fn count(walk: &Walk, kind: ChunkKind) -> u64 {
    walk.layout.arenas.iter().map(|arena| arena.count_of(kind) as u64).sum()
}

fn bytes(walk: &Walk, kind: ChunkKind) -> u64 {
    walk.layout.arenas.iter().map(|arena| arena.bytes_of(kind)).sum()
}

fn system(walk: &Walk) -> u64 {
    walk.layout.arenas.iter().map(|arena| arena.system_bytes).sum()
}

/// `mallinfo2`'s sums over all arenas. To it chunks in threads' caches are in use, and those in fastbins free.
fn of_mallinfo(said: &Said, walk: &Walk) -> Result<()> {
    let free = bytes(walk, ChunkKind::Free) + bytes(walk, ChunkKind::Top) + bytes(walk, ChunkKind::Fastbin);
    let found = [
        ("arena", system(walk)),
        ("ordblks", count(walk, ChunkKind::Free) + count(walk, ChunkKind::Top)),
        ("hblks", walk.layout.mapped.len() as u64),
        ("hblkhd", walk.mapped_bytes),
        ("fsmblks", bytes(walk, ChunkKind::Fastbin)),
        ("fordblks", free),
        ("uordblks", system(walk) - free),
        ("keepcost", walk.layout.arenas[0].bytes_of(ChunkKind::Top)),
    ];
    for (name, found) in found {
        let said = said.number(name)?;
        ensure!(said == found, "{name}: mallinfo2 says {said}, found {found}");
    }
    Ok(())
}

/// Every chunk in use is a block whose allocation the trace saw, or one from before it, of which a launched command
/// has only those of libc and the loader. Gives how many that are.
fn knows_every_chunk(process: &Value, walk: &Walk) -> Result<u64> {
    let used = count(walk, ChunkKind::Used) + walk.layout.mapped.len() as u64;
    let number =
        |path: &str| process.pointer(path).and_then(Value::as_u64).with_context(|| format!("{path}: {process}"));
    let (live, older) = (number("/end/live_blocks")?, number("/older/blocks")?);
    ensure!(live + older == used, "{live} live and {older} older blocks, but {used} chunks are in use");
    ensure!(older <= 64 && live > 100, "{live} live and {older} older blocks");
    let anomalies = &process["anomalies"];
    ensure!(anomalies["missed_frees"].is_null() && anomalies["missed_allocations"].is_null(), "{anomalies}");
    Ok(used)
}

/// The ledger is made of the same walk, and of the pages that the kernel counts.
fn of_ledger(ledger: &Value, walk: &Walk, resident: u64) -> Result<()> {
    let number = |name: &str| ledger[name].as_u64().with_context(|| format!("{name} in {ledger}"));
    let lines =
        ["free_pages", "requested", "rounding", "cached", "free_in_pages", "metadata", "untracked", "not_malloc"];
    let sum = lines.iter().map(|name| number(name)).sum::<Result<u64>>()?;
    ensure!(number("rss")? == resident && sum == resident, "the lines add up to {sum} of {resident}: {ledger}");
    ensure!(ledger["unexplained"] == 0 && number("contradicted_blocks")? == 0, "{ledger}");
    let cached = bytes(walk, ChunkKind::Tcache) + bytes(walk, ChunkKind::Fastbin);
    ensure!(number("cached")? <= cached, "{cached} bytes are cached: {ledger}");
    Ok(())
}

/// Resident bytes of the main arena: those that the kernel counts for the heap segment, and the pages of what the arena
/// had to map where the break could not grow.
fn in_pieces(pid: u32, pieces: &[Segment]) -> Result<u64> {
    let resident = of_mappings(pid, |line| line.ends_with("[heap]"))?;
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let heap = maps.lines().find(|line| line.ends_with("[heap]")).context("no heap segment")?;
    let (start, end) = heap.split_once(' ').and_then(|(range, _)| range.split_once('-')).context("no addresses")?;
    let heap = u64::from_str_radix(start, 16)?..u64::from_str_radix(end, 16)?;
    let mapped = pieces.iter().filter(|piece| !heap.contains(&piece.range.start));
    Ok(resident + mapped.map(|piece| own_pages(pid, &piece.range)).sum::<Result<u64>>()?)
}

/// Bytes of the pages there that `/proc/PID/pagemap` says are in memory and mapped here only: bits 63 and 56 of
/// `Documentation/admin-guide/mm/pagemap.rst`. The page of zeros, which a read of a page never written gets and the
/// kernel does not count, has the first of them alone.
fn own_pages(pid: u32, range: &Range<u64>) -> Result<u64> {
    const PAGE: u64 = 4096;
    let first = range.start / PAGE;
    let mut entries = vec![0; ((range.end.div_ceil(PAGE) - first) * 8) as usize];
    File::open(format!("/proc/{pid}/pagemap"))?.read_exact_at(&mut entries, first * 8)?;
    let own = |entry: &&[u8]| entry[7] & 0x81 == 0x81;
    Ok(entries.chunks_exact(8).filter(own).count() as u64 * PAGE)
}
