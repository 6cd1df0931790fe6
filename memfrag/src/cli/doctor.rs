//! `memfrag doctor`: what this kernel, user and machine allow, and what to do about the rest.

use super::args::DoctorArgs;
use anyhow::Result;
use memfrag::capture::ebpf::{self, Cost, EbpfCapture, Options};
use memfrag::probes::{self, Class, ProbePlan};
use memfrag_common::config::Scope;
use serde::Serialize;
use std::fs;
use std::io::{self, Write as _};

/// What was looked at, and what came out.
#[derive(Debug, Serialize)]
struct Finding {
    what: &'static str,
    ok: bool,
    found: String,
    /// What to do where it is not as it should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

#[derive(Debug, Serialize)]
struct Library {
    path: String,
    allocator: &'static str,
    version: Option<String>,
    build_id: String,
    probes: Vec<Probe>,
    left_out: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Probe {
    function: &'static str,
    names: Vec<&'static str>,
    /// Bytes from the function's start.
    offset: u32,
    instruction: String,
    emulated: bool,
    skips_null: bool,
    why: String,
}

/// Nanoseconds that a probe with an empty program adds to a call.
#[derive(Debug, Serialize)]
struct ProbeNanoseconds {
    emulated: f64,
    emulated_with_return: f64,
    single_stepped: f64,
}

#[derive(Debug, Serialize)]
struct Diagnosis {
    format: &'static str,
    version: u32,
    findings: Vec<Finding>,
    probe_ns: Option<ProbeNanoseconds>,
    libraries: Vec<Library>,
}

/// Runs the verb and returns the exit status.
pub(super) fn run(args: &DoctorArgs) -> Result<u8> {
    let cost = ebpf::has_capabilities().then(ebpf::calibrate);
    let mut findings = vec![kernel(), rights(), tracefs()];
    if ebpf::has_capabilities() {
        findings.extend(programs());
    }
    if let Some(Err(error)) = &cost {
        findings.push(bad("probes", format!("{error:#}"), "see whether another tool can place uprobes, such as perf"));
    }
    findings.push(shared_memory());
    let cost = cost.and_then(Result::ok);
    let mut libraries: Vec<Library> =
        ebpf::known_allocators().iter().filter_map(|path| probes::plan(path).ok()).map(library).collect();
    // The one that most programs use comes first.
    libraries.sort_by_key(|library| (library.allocator != "glibc", library.path.clone()));
    findings.push(stacks(&libraries));
    let diagnosis = Diagnosis {
        format: "memfrag-doctor",
        version: 1,
        findings,
        probe_ns: cost.map(|cost| ProbeNanoseconds {
            emulated: cost.emulated,
            emulated_with_return: cost.emulated_with_return,
            single_stepped: cost.single_stepped,
        }),
        libraries,
    };
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &diagnosis)?;
        writeln!(out)?;
    } else {
        out.write_all(text(&diagnosis, cost).as_bytes())?;
    }
    Ok(0)
}

fn good(what: &'static str, found: impl Into<String>) -> Finding {
    Finding { what, ok: true, found: found.into(), remedy: None }
}

fn bad(what: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { what, ok: false, found: found.into(), remedy: Some(remedy.into()) }
}

fn kernel() -> Finding {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    match ebpf::kernel_release() {
        Some(version) if version >= (6, 10) => {
            good("kernel", format!("{release}: all probes of a library in one link"))
        }
        Some(version) if version >= (5, 15) => {
            good("kernel", format!("{release}: one link a probe, so taking them off takes some seconds"))
        }
        _ => bad("kernel", release, "eBPF capture needs Linux 5.15; --backend preload works on any"),
    }
}

fn rights() -> Finding {
    let missing = ebpf::missing_capabilities();
    if missing.is_empty() {
        good("rights", "may load programs and probe any process")
    } else {
        bad("rights", format!("without {}", missing.join(", ")), "run with sudo; --backend preload needs no rights")
    }
}

fn tracefs() -> Finding {
    if ["/sys/kernel/tracing/events", "/sys/kernel/debug/tracing/events"].iter().any(|path| fs::metadata(path).is_ok())
    {
        good("tracefs", "mounted")
    } else {
        bad("tracefs", "not mounted, or not for this user", "sudo mount -t tracefs tracefs /sys/kernel/tracing")
    }
}

fn programs() -> Vec<Finding> {
    match EbpfCapture::new(Options { ring_bytes: 4096, ..Options::new(Scope::Link) }) {
        Ok(capture) => {
            let memory = match capture.without_memory_events() {
                None => good("mapping events", "mmap, munmap, mremap, brk, madvise are recorded"),
                Some(reason) => bad("mapping events", reason, "the kernel needs CONFIG_FTRACE_SYSCALLS"),
            };
            let sideband = match capture.without_sideband() {
                None => good("short processes", "what they map is known however soon they end"),
                Some(reason) => bad(
                    "short processes",
                    format!("perf_event_open: {reason}"),
                    "what they map is read from /proc, so call sites of those that end at once have no names",
                ),
            };
            vec![good("BPF programs", "load and attach"), memory, sideband]
        }
        Err(error) => {
            vec![bad("BPF programs", format!("{error:#}"), "the message above tells what the kernel refused")]
        }
    }
}

fn shared_memory() -> Finding {
    match tempfile_in("/dev/shm") {
        Ok(()) => good("shared memory", "/dev/shm can be used: --backend preload works"),
        Err(error) => bad(
            "shared memory",
            format!("/dev/shm: {error}"),
            "preload uses XDG_RUNTIME_DIR or the temporary folder instead",
        ),
    }
}

/// The first glibc in which a thread can find a file's call frame information without a lock.
const FINDS_OBJECTS: (u32, u32) = (2, 35);

fn stacks(libraries: &[Library]) -> Finding {
    if !cfg!(target_arch = "x86_64") {
        return bad("stacks", "whole ones are walked on x86-64 processors only", "--stacks caller works everywhere");
    }
    let glibc = libraries.iter().find(|library| library.allocator == "glibc");
    let version = glibc.and_then(|library| library.version.as_deref());
    let number = |text: &str| text.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok());
    let finds = version.is_some_and(|version| {
        let (major, minor) = version.split_once('.').unwrap_or((version, ""));
        number(major).zip(number(minor)).is_some_and(|version| version >= FINDS_OBJECTS)
    });
    walked(ebpf::has_capabilities(), finds, version)
}

/// What can be walked: by probes, and by the library in a glibc in which it finds call frame information.
fn walked(by_probes: bool, finds: bool, version: Option<&str>) -> Finding {
    const BOTH: &str = "--stacks dwarf, or --stacks fp where frame pointers are kept";
    match (by_probes, finds) {
        (true, true) => good("stacks", format!("whole ones under both backends: {BOTH}")),
        (true, false) => good("stacks", format!("whole ones with probes: {BOTH}; with --backend preload fp alone")),
        (false, true) => good("stacks", format!("whole ones of a launched command: {BOTH}")),
        (false, false) => bad(
            "stacks",
            match version {
                Some(version) => format!("--stacks dwarf with --backend preload needs glibc 2.35, here is {version}"),
                None => "no glibc of a known version, which --stacks dwarf with --backend preload needs".to_owned(),
            },
            "--stacks caller works everywhere, --stacks fp for programs that keep frame pointers, both with probes (sudo)",
        ),
    }
}

fn tempfile_in(folder: &str) -> io::Result<()> {
    let path = format!("{folder}/memfrag-doctor-{}", std::process::id());
    fs::OpenOptions::new().write(true).create_new(true).open(&path)?;
    fs::remove_file(path)
}

fn library(plan: ProbePlan) -> Library {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>();
    Library {
        path: plan.path.display().to_string(),
        allocator: plan.allocator.name(),
        version: plan.version.clone(),
        build_id: hex(&plan.build_id).concat(),
        left_out: plan.left_out.iter().map(|left| format!("{}: {}", left.names.join(", "), left.reason)).collect(),
        probes: plan
            .points
            .into_iter()
            .map(|point| Probe {
                function: point.function.name(),
                names: point.names,
                offset: point.placement.offset,
                instruction: hex(&point.placement.instruction).join(" "),
                emulated: point.placement.class == Class::Emulated,
                skips_null: point.placement.skips_null,
                why: point.placement.why,
            })
            .collect(),
    }
}

fn text(diagnosis: &Diagnosis, cost: Option<Cost>) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for finding in &diagnosis.findings {
        let mark = if finding.ok { "ok" } else { "!!" };
        let _ = writeln!(text, "{mark}  {:<15} {}", finding.what, finding.found);
        if let Some(remedy) = &finding.remedy {
            let _ = writeln!(text, "    {:<15} → {remedy}", "");
        }
    }
    if let Some(cost) = cost {
        let _ = writeln!(
            text,
            "\nWhat a probe costs here, in the traced program (nanoseconds a hit, empty program)\n    \
             {:>6.0}  on an instruction that the kernel emulates\n    {:>6.0}  the same with a probe on the return\n    \
             {:>6.0}  on an instruction that the kernel single-steps\n    \
             a malloc and its free then cost about {:.1} µs more",
            cost.emulated,
            cost.emulated_with_return,
            cost.single_stepped,
            cost.pair() / 1000.0
        );
    }
    for library in &diagnosis.libraries {
        let version = library.version.as_ref().map(|version| format!(" {version}")).unwrap_or_default();
        let _ = writeln!(text, "\n{}{version}  {}", library.allocator, library.path);
        for group in library.probes.chunk_by(Probe::looks_like) {
            let probe = &group[0];
            let class = if probe.emulated { "emulated" } else { "single-stepped" };
            let null = if probe.skips_null { ", free(NULL) passes by" } else { "" };
            let names = label(group);
            let _ = writeln!(text, "    {names:<32} +{:<4} {:<21} {class}{null}", probe.offset, probe.instruction);
        }
        let (covers, others): (Vec<&String>, Vec<&String>) =
            library.left_out.iter().partition(|left| left.contains("hands over"));
        if !covers.is_empty() {
            let _ = writeln!(text, "    {} others hand over to these and have no probe of their own", covers.len());
        }
        for left in others {
            let _ = writeln!(text, "    {left}");
        }
    }
    text
}

impl Probe {
    /// Whether a line can stand for both: forms of one operator, probed alike.
    fn looks_like(&self, other: &Self) -> bool {
        self.is_operator()
            && other.is_operator()
            && (self.function, &self.instruction, self.offset) == (other.function, &other.instruction, other.offset)
    }

    fn is_operator(&self) -> bool {
        self.names[0].starts_with("_Z")
    }
}

/// The names of a group; the many of a C++ operator are only counted.
fn label(group: &[Probe]) -> String {
    let forms: usize = group.iter().map(|probe| probe.names.len()).sum();
    if group[0].is_operator() {
        return if forms == 1 {
            group[0].function.to_owned()
        } else {
            format!("{} ({forms} forms)", group[0].function)
        };
    }
    let (mangled, names): (Vec<&str>, Vec<&str>) = group[0].names.iter().partition(|name| name.starts_with("_Z"));
    let operators = if mangled.is_empty() { String::new() } else { format!(" (and {} operators)", mangled.len()) };
    names.join(" = ") + &operators
}
