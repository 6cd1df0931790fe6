//! Programs that people run give the same results under memfrag, and nothing of what they do is lost.

use anyhow::{Context, Result, ensure};
use memfrag_tests::memfrag::{Backend, Report, trace, traced};
use memfrag_tests::process::{self, Ended, Running};
use memfrag_tests::redis::Redis;
use memfrag_tests::{place, tests_on_both};
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

tests_on_both!(redis, python, python_with_malloc, gcc, git, node, stress16, memcached);

/// Runs the command bare and traced: output and status must be equal.
fn same(backend: Backend, dir: &Path, target: &mut Command) -> Result<(Ended, Report)> {
    let bare = process::run(target)?.success().context("without memfrag")?;
    let (ended, report) = traced(backend, &dir.join("same.mfrag"), target)?;
    ensure!(ended.code() == 0, "status {} instead of 0; it wrote:\n{}", ended.code(), ended.stderr);
    ensure!(ended.stdout == bare.stdout, "other output: {} bytes and {}", ended.stdout.len(), bare.stdout.len());
    report.every_free_matched()?;
    Ok((ended, report))
}

fn redis(backend: Backend) -> Result<()> {
    let dir = place::scratch()?;
    let redis = Redis::new(dir.path())?;
    let expected = {
        let mut server = Running::start(&mut redis.server()?)?;
        redis.ready(&mut server)?;
        let digest = redis.known_digest()?;
        redis.shutdown()?;
        ensure!(server.wait(process::LIMIT)?.code() == 0, "redis fails without memfrag");
        digest
    };
    let recording = dir.path().join("redis.mfrag");
    let mut server = Running::start(&mut trace(backend, &recording, &redis.server()?)?)?;
    redis.ready(&mut server)?;
    process::run(&mut redis.benchmark(20_000)?)?.success().context("redis-benchmark")?;
    ensure!(redis.known_digest()? == expected, "redis holds other data under memfrag");
    redis.shutdown()?;
    let ended = server.wait(process::LIMIT)?;
    ensure!(ended.code() == 0, "status {}; it wrote:\n{}", ended.code(), ended.stderr);
    let report = Report::of(&recording)?;
    report.nothing_lost()?;
    report.every_free_matched()?;
    // Its allocator is jemalloc: a trace that only knows libc's malloc would see next to nothing.
    ensure!(report.number("/events/alloc")? > 50_000, "{}", report.0["events"]);
    Ok(())
}

const PYTHON: &str = r"
import hashlib, json, re, zlib
data = [{'id': i, 'name': 'n%d' % i, 'tags': [str(j) * (j % 9) for j in range(i % 20)]} for i in range(3000)]
text = json.dumps(data, sort_keys=True)
again = json.loads(text)
assert again == data
words = re.findall(r'[0-9]+', text)
counts = {}
for word in words: counts[word] = counts.get(word, 0) + 1
packed = zlib.compress(text.encode())
assert zlib.decompress(packed).decode() == text
print(hashlib.sha256(text.encode()).hexdigest(), len(words), len(counts), sum(map(len, words)))
";

fn python_in(backend: Backend, allocator: Option<&str>) -> Result<u64> {
    let dir = place::scratch()?;
    let mut target = Command::new(place::tool("python3")?);
    target.args(["-c", PYTHON]).env("PYTHONHASHSEED", "1").env_remove("PYTHONMALLOC");
    if let Some(allocator) = allocator {
        target.env("PYTHONMALLOC", allocator);
    }
    same(backend, dir.path(), &mut target)?.1.number("/events/alloc")
}

fn python(backend: Backend) -> Result<()> {
    python_in(backend, None)?;
    Ok(())
}

fn python_with_malloc(backend: Backend) -> Result<()> {
    let calls = python_in(backend, Some("malloc"))?;
    ensure!(calls > 200_000, "only {calls} allocations, though every object is one");
    Ok(())
}

/// A C file of many functions, the same each time.
fn large_source(functions: usize) -> Result<String> {
    let mut text = String::from("#include <stdlib.h>\n#include <string.h>\n");
    for n in 0..functions {
        writeln!(
            text,
            "struct s{n} {{ int a[{}]; struct s{n} *next; }};\n\
             int f{n}(struct s{n} *p, int x) {{\n  int sum = x;\n  for (; p; p = p->next)\n    \
             for (int i = 0; i < {}; i++) {{\n      sum += p->a[i] * (x ^ {n});\n      \
             switch (sum & 7) {{ case {}: sum ^= {n}; break; case {}: sum += i; break; default: sum--; }}\n    }}\n  \
             return {};\n}}",
            n % 30 + 1,
            n % 30 + 1,
            n % 4,
            n % 4 + 4,
            if n == 0 { "sum".to_owned() } else { format!("sum + (x > 9 ? 0 : f{}(0, x + 1))", n - 1) },
        )?;
    }
    Ok(text)
}

fn gcc(backend: Backend) -> Result<()> {
    let dir = place::scratch()?;
    std::fs::write(dir.path().join("large.c"), large_source(400)?)?;
    let mut target = Command::new(place::tool("gcc")?);
    target.args(["-O2", "-c", "large.c", "-o", "large.o"]).current_dir(dir.path());
    process::run(&mut target)?.success()?;
    let bare = std::fs::read(dir.path().join("large.o"))?;
    std::fs::remove_file(dir.path().join("large.o"))?;
    let (_, report) = same_but_for_file(backend, dir.path(), &target)?;
    ensure!(std::fs::read(dir.path().join("large.o"))? == bare, "gcc wrote another object");
    // The driver, the compiler and the assembler.
    let processes = report.0["processes"].as_array().map_or(0, Vec::len);
    ensure!(processes >= 3, "{processes} processes in the report");
    Ok(())
}

fn same_but_for_file(backend: Backend, dir: &Path, target: &Command) -> Result<(Ended, Report)> {
    let (ended, report) = traced(backend, &dir.join("same.mfrag"), target)?;
    ensure!(ended.code() == 0, "status {}; it wrote:\n{}", ended.code(), ended.stderr);
    report.every_free_matched()?;
    Ok((ended, report))
}

/// A repository with some history, the same each time.
fn repository(dir: &Path) -> Result<()> {
    let git = |words: &[&str]| -> Result<()> {
        let mut command = Command::new(place::tool("git")?);
        command.args(["-c", "user.name=t", "-c", "user.email=t@example.org"]).args(words).current_dir(dir);
        command.env("GIT_AUTHOR_DATE", "2020-01-01T00:00:00Z").env("GIT_COMMITTER_DATE", "2020-01-01T00:00:00Z");
        process::run(command.env("GIT_CONFIG_NOSYSTEM", "1").env("HOME", dir))?.success().context("git")?;
        Ok(())
    };
    git(&["init", "-q", "."])?;
    for commit in 0..40 {
        for file in 0..8 {
            let mut lines = String::new();
            for line in 0..200 {
                writeln!(lines, "{line} {}", (line * 7 + file) % (commit + 3))?;
            }
            std::fs::write(dir.join(format!("file{file}")), lines)?;
        }
        git(&["add", "."])?;
        git(&["commit", "-q", "-m", &format!("Change number {commit}")])?;
    }
    Ok(())
}

fn git(backend: Backend) -> Result<()> {
    let dir = place::scratch()?;
    let tree = dir.path().join("tree");
    std::fs::create_dir(&tree)?;
    repository(&tree)?;
    let mut target = Command::new(place::tool("git")?);
    target.args(["--no-pager", "log", "-p", "--stat"]).current_dir(&tree).env("HOME", dir.path());
    let (ended, _) = same(backend, dir.path(), &mut target)?;
    ensure!(ended.stdout.len() > 500_000, "git wrote only {} bytes", ended.stdout.len());
    Ok(())
}

const NODE: &str = r"
const crypto = require('crypto'), zlib = require('zlib');
let rows = [];
for (let i = 0; i < 20000; i++) rows.push({ id: i, text: 'row ' + i, list: Array.from({ length: i % 10 }, (_, k) => k * i) });
const text = JSON.stringify(rows);
const packed = zlib.gzipSync(text);
if (zlib.gunzipSync(packed).toString() !== text) process.exit(9);
const buffers = [];
for (let i = 0; i < 2000; i++) buffers.push(Buffer.alloc(1000 + i, i));
console.log(crypto.createHash('sha256').update(text).update(Buffer.concat(buffers)).digest('hex'));
";

fn node(backend: Backend) -> Result<()> {
    let dir = place::scratch()?;
    let mut target = Command::new(place::tool("node")?);
    target.args(["-e", NODE]);
    same(backend, dir.path(), &mut target)?;
    Ok(())
}

fn stress16(backend: Backend) -> Result<()> {
    let dir = place::scratch()?;
    let mut target = Command::new(place::program("stress16")?);
    target.arg("20000");
    let (_, report) = same(backend, dir.path(), &mut target)?;
    // 320 000 blocks and, for a quarter of them, another one that realloc took over.
    ensure!(report.number("/events/alloc")? >= 320_000, "{}", report.0["events"]);
    Ok(())
}

/// Stores and fetches through its text protocol, on a Unix socket.
fn memcached(backend: Backend) -> Result<()> {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixStream;

    let dir = place::scratch()?;
    let socket = dir.path().join("memcached.sock");
    let mut target = Command::new(place::tool("memcached")?);
    target.arg("-s").arg(&socket).args(["-m", "64", "-t", "2", "-u", "nobody"]);
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
    let recording = dir.path().join("memcached.mfrag");
    let mut server = Running::start(&mut trace(backend, &recording, &target)?)?;
    process::until("memcached listens", std::time::Duration::from_mins(1), || {
        ensure!(server.alive()?, "it ended at once: {}", server.stderr()?);
        Ok(UnixStream::connect(&socket).is_ok())
    })?;
    let mut stream = UnixStream::connect(&socket)?;
    let mut answers = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    for key in 0..5000 {
        let value = format!("value {key} ").repeat(key % 50 + 1);
        write!(stream, "set k{key} 0 0 {}\r\n{value}\r\nget k{key}\r\n", value.len())?;
        for expected in ["STORED", &format!("VALUE k{key} 0 {}", value.len()), &value, "END"] {
            line.clear();
            answers.read_line(&mut line)?;
            ensure!(line.trim_end_matches("\r\n") == expected, "{line:?} instead of {expected:?}");
        }
    }
    write!(stream, "stats\r\n")?;
    let mut pid = None;
    while line.trim_end() != "END" || pid.is_none() {
        line.clear();
        ensure!(answers.read_line(&mut line)? > 0, "no statistics");
        pid = pid.or(line.strip_prefix("STAT pid ").and_then(|pid| pid.trim().parse().ok()));
    }
    drop((stream, answers));
    process::send(pid.context("memcached did not say who it is")?, libc::SIGTERM)?;
    let ended = server.wait(process::LIMIT)?;
    ensure!(ended.code() == 0, "status {}: {}", ended.code(), ended.stderr);
    Report::of(&recording)?.nothing_lost()
}
