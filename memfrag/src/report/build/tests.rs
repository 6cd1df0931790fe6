//! What a report says about given events.

use super::*;
use crate::report::json;
use crate::target::residency::{Region, RegionKind};
use memfrag_common::Function as Call;
use serde_json::{Value, json};

fn alloc(time: u64, pid: u32, addr: u64, size: u64) -> Event {
    let op = Op::Alloc { function: Call::Malloc, align_log2: 0, addr, size, site: 0x1010, stack: 0 };
    Event { time, pid, tid: pid, op }
}

fn free(time: u64, pid: u32, addr: u64) -> Event {
    Event { time, pid, tid: pid, op: Op::Free { function: Call::Free, addr, size: 0, site: 0 } }
}

fn as_json(builder: ReportBuilder, meta: RecordingMeta) -> Value {
    let mut bytes = Vec::new();
    json::write(&builder.finish(meta), &mut bytes).expect("written");
    assert_eq!(bytes.last(), Some(&b'\n'));
    serde_json::from_slice(&bytes).expect("JSON")
}

/// Fills a builder with a program's life of ten nanoseconds.
fn fill(builder: &mut ReportBuilder) {
    builder.process(&ProcessInfo {
        pid: 7,
        ppid: 1,
        comm: "prog".to_owned(),
        exe: "/bin/prog".into(),
        cmdline: vec!["prog".to_owned(), "-x".to_owned()],
        ..ProcessInfo::default()
    });
    let mapping = Mapping {
        start: 0x1000,
        end: 0x2000,
        offset: 0x300,
        path: "/lib/libc.so.6".into(),
        executable: true,
        ..Mapping::default()
    };
    builder.mappings(0, 7, &[mapping]);
    builder.events(&[alloc(1, 7, 0x10, 100), alloc(2, 7, 0x20, 50)]);
    builder.memory(&MemorySample { time: 3, pid: 7, rss: 600, rss_anon: 450, ..MemorySample::default() });
    builder.events(&[free(4, 7, 0x10), free(5, 7, 0x99)]);
    builder.events(&[Event { time: 9, pid: 7, tid: 7, op: Op::Exit { status: Some(3 << 8) } }]);
}

#[test]
fn the_document_carries_the_names_that_others_build_on() {
    let mut builder = ReportBuilder::new(None);
    fill(&mut builder);
    let meta = RecordingMeta {
        file: "x.mfrag".to_owned(),
        duration_ns: 10,
        backend: "ebpf".to_owned(),
        complete: true,
        bytes_on_disk: 77,
    };
    let report = as_json(builder, meta);
    assert_eq!(report["format"], "memfrag-report");
    assert_eq!(report["version"], 1);
    let recording = json!({"file": "x.mfrag", "duration_ns": 10, "backend": "ebpf", "complete": true, "at_ns": null});
    assert_eq!(report["recording"], recording);
    let events = json!({
        "total": 5, "alloc": 2, "free": 2, "realloc": 0, "lost": 0, "unmatched_free": 1, "bytes_on_disk": 77
    });
    assert_eq!(report["events"], events);
    let process = &report["processes"][0];
    assert_eq!(process["pid"], 7);
    assert_eq!(process["ppid"], 1);
    assert_eq!(process["comm"], "prog");
    assert_eq!(process["exe"], "/bin/prog");
    assert_eq!(process["cmdline"], json!(["prog", "-x"]));
    assert_eq!(process["exit"], json!({"at_ns": 9, "code": 3, "signal": null}));
    assert_eq!(process["threads"], 1);
    let totals = json!({
        "allocations": 2, "frees": 2, "reallocations": 0, "requested_bytes": 150, "freed_bytes": 100
    });
    assert_eq!(process["totals"], totals);
    assert_eq!(process["peak"], json!({"at_ns": 2, "live_blocks": 2, "requested_bytes": 150}));
    let end = &process["end"];
    let known = ["live_blocks", "requested_bytes", "rss_bytes", "rss_anon_bytes", "rss_at_ns"];
    assert_eq!(known.map(|name| end[name].as_u64()), [1, 50, 600, 450, 3].map(Some));
    let metrics = &end["metrics"];
    let ratios = [
        ("overhead_ratio", 4.0),
        // A chunk of 64 bytes holds the last block.
        ("internal_fragmentation", 1.0 - 50.0 / 64.0),
        ("padding_efficiency", 50.0 / 64.0),
        ("johnstone_wilson_1", 200.0),
        ("johnstone_wilson_4", 200.0),
        ("realized_fragmentation", 200.0),
        ("end_fragmentation", 200.0),
        // Bytes 0x20 to 0x52 lie on two lines.
        ("cache_line_utilization", 50.0 / 128.0),
    ];
    for (name, expected) in ratios {
        assert_eq!(metrics[name].as_f64(), Some(expected), "{name}");
    }
    let counts = [
        ("header_bytes", 8),
        ("padding_bytes", 6),
        ("mapped_padding_bytes", 0),
        ("meshable_pages", 0),
        ("compact_bound_bytes", 64),
        ("compact_bound_peak_bytes", 112 + 64),
        ("split_allocations", 1),
        ("needlessly_split_allocations", 1),
    ];
    for (name, expected) in counts {
        assert_eq!(metrics[name].as_u64(), Some(expected), "{name}");
    }
    assert_eq!(metrics["page_occupancy"], json!({"empty": null, "pinned": 1, "partial": 0, "full": 0}));
    assert_eq!(metrics["huge_page_occupancy"], json!({"empty": null, "pinned": 1, "partial": 0, "full": 0}));
    // These need the heap's layout.
    for name in ["cached_ratio", "external_ratio", "top_ratio", "unusable_free_index", "free_dispersion"] {
        assert_eq!(metrics[name], Value::Null, "{name}");
    }
    assert_eq!(end["ledger"], Value::Null);
    assert_eq!(process["allocator"], json!({"name": "glibc", "version": null, "path": "/lib/libc.so.6"}));
    let functions = json!([
        {"name": "malloc", "calls": 2, "failed": 0, "bytes": 150}, {"name": "free", "calls": 2, "failed": 0, "bytes": 100}
    ]);
    assert_eq!(process["functions"], functions);
    assert_eq!(process["anomalies"], json!({"unmatched_frees": 1}));
    let sites = json!([{
        "site": "libc.so.6+0x310", "function": null, "file": null, "line": null, "address": 0x1010,
        "module": "/lib/libc.so.6", "offset": 0x310, "live_bytes": 50, "live_blocks": 1, "allocations": 2
    }]);
    assert_eq!(process["top_sites"], sites);
}

#[test]
fn a_moment_shows_what_was_true_then() {
    let mut builder = ReportBuilder::new(Some(3));
    fill(&mut builder);
    let report = builder.finish(RecordingMeta { duration_ns: 10, ..RecordingMeta::default() });
    let process = &report.processes[0];
    assert_eq!((report.recording.at_ns, report.events.total), (Some(3), 2));
    assert_eq!((process.end.live_blocks, process.end.rss_bytes), (2, Some(600)));
    assert!(process.exit.is_none());
}

#[test]
fn losses_are_what_counters_or_gaps_tell_and_what_the_file_lacks() {
    let mut counters = [0; COUNTERS];
    counters[Counter::Dropped as usize] = 5;
    counters[Counter::Nested as usize] = 1000;
    let mut builder = ReportBuilder::new(None);
    builder.counters(Some(7), &[1; COUNTERS]);
    builder.counters(Some(7), &counters);
    builder.counters(Some(8), &counters);
    builder.events(&[Event { time: 1, pid: 7, tid: 7, op: Op::Gap { lost: 4 } }]);
    builder.missing(2);
    let report = builder.finish(RecordingMeta::default());
    assert_eq!(report.events.lost, 12);
    assert_eq!(report.counters, BTreeMap::from([("Dropped", 10), ("Nested", 2000)]));
    assert_eq!(report.processes[0].counters, BTreeMap::from([("Dropped", 5), ("Nested", 1000)]));
    assert_eq!(report.processes[0].damaged_at_ns, Some(1));
}

#[test]
fn a_forked_child_is_named_and_placed_after_its_parent() {
    let mut builder = ReportBuilder::new(None);
    fill(&mut builder);
    let fork = |time, child, flags| Event { time, pid: 8, tid: 8, op: Op::Fork { child, flags } };
    builder.process(&ProcessInfo { pid: 8, comm: "sh".to_owned(), ..ProcessInfo::default() });
    let mapping =
        Mapping { start: 0x1000, end: 0x2000, path: "/bin/sh".into(), executable: true, ..Mapping::default() };
    builder.mappings(0, 8, &[mapping]);
    builder.events(&[alloc(1, 8, 0x10, 1000), fork(2, 9, 17), fork(3, 10, 0x4111), alloc(4, 9, 0x20, 1)]);
    let report = builder.finish(RecordingMeta::default());
    let told: Vec<_> = report.processes.iter().map(|p| (p.pid, p.ppid, p.comm.as_str(), p.shares_heap_of)).collect();
    assert_eq!(told, [(9, 8, "sh", None), (8, 0, "sh", None), (7, 1, "prog", None), (10, 8, "sh", Some(8))]);
    assert_eq!(report.processes[0].inherited.bytes, 1000);
    assert_eq!(report.processes[0].top_sites[0].module.as_deref(), Some("/bin/sh"), "by the parent's mappings");
}

#[test]
fn wait_statuses_are_taken_apart() {
    let told = |status| (Exit::new(0, status).code, Exit::new(0, status).signal);
    assert_eq!(told(Some(0)), (Some(0), None));
    assert_eq!(told(Some(3 << 8)), (Some(3), None));
    assert_eq!(told(Some(139)), (None, Some(11)), "with a core dump");
    assert_eq!(told(None), (None, None));
}

#[test]
fn long_timelines_are_folded_without_loss() {
    let mut builder = ReportBuilder::new(None);
    let events: Vec<Event> = (0..1500).map(|n| alloc(n << 20, 7, n * 16 + 16, 1)).collect();
    builder.events(&events);
    let report = builder.finish(RecordingMeta::default());
    let timeline = &report.processes[0].timeline;
    assert!(timeline.live_bytes.len() <= TIMELINE_POINTS);
    assert_eq!(timeline.allocations.iter().sum::<u64>(), 1500);
    assert_eq!(timeline.live_bytes.last(), Some(&1500));
    assert!(timeline.step_ns * timeline.live_bytes.len() as u64 > 1499 << 20);
}

#[test]
fn the_ledger_is_of_the_last_look() {
    let (start, pages) = (0x10_0000, 4 * 4096);
    let heap = |resident| Region {
        range: start..start + 8 * 4096,
        kind: RegionKind::Heap,
        resident_bytes: pages,
        swapped_bytes: 0,
        resident: std::iter::once(resident).collect(),
    };
    let look = |time, from| Residency { time, pid: 7, regions: vec![heap(from..from + pages)] };
    let mut builder = ReportBuilder::new(None);
    fill(&mut builder);
    // Two blocks with three pages of free memory between them, of which what follows knows nothing.
    builder.events(&[alloc(10, 7, start + 0x2a0, 100), alloc(11, 7, start + 0x3000 + 0x10, 8)]);
    builder.residency(&look(12, start + 4096));
    builder.residency(&look(13, start));
    builder.events(&[Event { time: 14, pid: 7, tid: 7, op: Op::Exec }]);
    assert!(builder.blame(Some(7), By::Site).is_none(), "another program, at which nobody looked");
    let mut builder = ReportBuilder::new(None);
    builder.mappings(
        0,
        7,
        &[Mapping { start: 1, end: 2, path: "/lib/libc.so.6".into(), executable: true, ..Mapping::default() }],
    );
    builder.events(&[alloc(10, 7, start + 0x2a0, 100), alloc(11, 7, start + 0x3000 + 0x10, 8)]);
    builder.residency(&look(12, start + 4096));
    builder.residency(&look(13, start));
    builder.events(&[free(14, 7, start + 0x2a0)]);
    let (pid, blame) = builder.blame(None, By::Size).expect("was looked at");
    assert_eq!((pid, blame.by, blame.at_ns, blame.source), (7, "size", 13, "blocks"));
    assert_eq!((blame.trim_yield_bytes, blame.pages_by_owners[..3].to_vec()), (2 * 4096, vec![0, 1, 1]));
    // The last block alone keeps a page; without it that joins the free pages before and behind.
    assert_eq!((blame.sites[0].site.as_str(), blame.sites[0].release_bytes), ("up to 16 B", 4096));
    assert_eq!((blame.sites[1].site.as_str(), blame.sites[1].release_bytes), ("65 to 128 B", 0));
    let report = serde_json::to_value(builder.finish(RecordingMeta::default())).expect("serialisable");
    let ledger = &report["processes"][0]["end"]["ledger"];
    let sums = [
        ("rss", pages),
        ("free_pages", 2 * 4096),
        ("requested", 108),
        ("rounding_header", 16),
        ("rounding_padding", 20),
        ("metadata", 0x290),
        ("free_in_pages_binned", 4096 - 0x290 - 0x70),
        ("free_in_pages_top", 4096 - 0x20),
        ("untouched", 0),
        ("unexplained", 0),
        ("at_ns", 13),
    ];
    for (name, sum) in sums {
        assert_eq!(ledger[name], sum, "{name} in {ledger:#}");
    }
    assert_eq!(report["processes"][0]["blame"]["sites"][0]["release_bytes"], 4096);
}

#[test]
fn a_program_of_another_allocator_that_was_given_libcs_is_told_by_the_walk() {
    let mut builder = ReportBuilder::new(None);
    builder.events(&[alloc(1, 7, 0x10, 100)]);
    let [jemalloc, libc] = ["/l/libjemalloc.so.2", "/lib/libc.so.6"].map(|path| Mapping {
        start: 0x1000,
        end: 0x2000,
        path: path.into(),
        executable: true,
        ..Mapping::default()
    });
    builder.mappings(6, 7, &[jemalloc, libc]);
    let name = |builder: &ReportBuilder| builder.allocator(0).map(|found| found.name);
    assert_eq!(name(&builder).as_deref(), Some("jemalloc"));
    builder.layout(7, 7, &Layout::default());
    assert_eq!(name(&builder).as_deref(), Some("glibc"));
}

#[test]
fn a_shortened_blame_keeps_who_strands_most() {
    let start = 0x10_0000;
    let pages = start..start + 4 * 4096;
    let mut builder = ReportBuilder::new(None);
    builder.mappings(
        0,
        7,
        &[Mapping { start: 1, end: 2, path: "/lib/libc.so.6".into(), executable: true, ..Mapping::default() }],
    );
    builder.events(&[alloc(1, 7, start + 0x2a0, 100), alloc(2, 7, start + 0x3010, 8)]);
    let region = Region {
        range: pages.clone(),
        kind: RegionKind::Heap,
        resident_bytes: 4 * 4096,
        swapped_bytes: 0,
        resident: vec![pages],
    };
    builder.residency(&Residency { time: 3, pid: 7, regions: vec![region] });
    let (_, blame) = builder.blame(None, By::Size).expect("was looked at");
    let sites = |blame: &blame::Blame| blame.sites.iter().map(|one| one.site.clone()).collect::<Vec<_>>();
    let shortened = |stranded_by_last: u64| {
        let mut blame = blame.clone();
        for one in &mut blame.sites {
            one.stranded_bytes = 1;
        }
        blame.sites.last_mut().expect("owners").stranded_bytes = stranded_by_last;
        blame.shorten(1, 1);
        sites(&blame)
    };
    let all = sites(&blame);
    assert!(all.len() > 1);
    assert_eq!(shortened(2), [all[0].clone(), all[all.len() - 1].clone()]);
    assert_eq!(shortened(0), all[..1]);
}

#[test]
fn blocks_from_before_are_unknown_unless_a_walk_or_an_exec_came() {
    let unknown = |backend: &str, events: &[Event]| {
        let mut builder = ReportBuilder::new(None);
        builder.events(events);
        let meta = RecordingMeta { backend: backend.to_owned(), ..RecordingMeta::default() };
        let told: Vec<(u32, bool)> =
            builder.finish(meta).processes.iter().map(|process| (process.pid, process.older_unknown)).collect();
        told
    };
    let event = |time, pid, op| Event { time, pid, tid: pid, op };
    let fork = event(2, 7, Op::Fork { child: 8, flags: 17 });
    let attached = [alloc(1, 7, 0x10, 100), fork, alloc(3, 8, 0x20, 50)];
    assert_eq!(unknown("ebpf", &attached), [(8, true), (7, true)]);
    assert_eq!(unknown("preload", &attached), [(8, false), (7, false)]);
    let launched = [event(0, 7, Op::Exec), alloc(1, 7, 0x10, 100), fork, alloc(3, 8, 0x20, 50)];
    assert_eq!(unknown("ebpf", &launched), [(8, false), (7, false)]);
}
