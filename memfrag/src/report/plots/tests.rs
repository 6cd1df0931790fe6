use super::*;
use crate::capture::Sink as _;
use crate::report::RecordingMeta;
use crate::target::{MemorySample, ProcessInfo};
use memfrag_common::{Event, Function, Op};

const PID: u32 = 7;

/// A second in which blocks come, and every other one goes; the process has a hostile name.
fn busy() -> (ReportBuilder, Looks) {
    let mut builder = ReportBuilder::new(None);
    builder.count_lifetimes();
    builder.process(&ProcessInfo { pid: PID, comm: "<b>\"x\"&".into(), ..ProcessInfo::default() });
    let mut looks = Looks::new(2_000_000_000);
    for at in 0..1000_u64 {
        let (time, addr) = (at * 1_000_000, 0x10_0000 + at * 2048);
        let alloc = Op::Alloc { function: Function::Malloc, align_log2: 0, addr, size: 2000, site: 1, stack: 0 };
        let free = Op::Free { function: Function::Free, addr, size: 0, site: 0 };
        let event = |time, op| Event { time, pid: PID, tid: PID, op };
        looks.pass(time, &builder);
        builder.events(&[event(time, alloc)]);
        if at % 2 == 1 {
            builder.events(&[event(time + 500_000, free)]);
        }
        if at % 100 == 0 {
            builder.memory(&MemorySample { time, pid: PID, rss: 3 << 20, ..MemorySample::default() });
        }
    }
    // A quiet second follows, in which it stays as it is.
    looks.pass(2_000_000_000, &builder);
    (builder, looks)
}

#[test]
fn every_picture_is_drawn_and_is_a_document() {
    let (builder, looks) = busy();
    let drawn = draw(&builder, &looks, 2_000_000_000);
    let [process] = drawn.as_slice() else { panic!("one process, not {}", drawn.len()) };
    let names: Vec<_> = process.plots.iter().map(|plot| plot.name).collect();
    assert_eq!(names, ["memory", "pages", "requested", "sizes", "lifetimes"]);
    for plot in &process.plots {
        assert!(
            plot.svg.starts_with("<svg class=\"memfrag\"") && plot.svg.trim_end().ends_with("</svg>"),
            "{}",
            plot.name
        );
        assert!(plot.svg.contains("prefers-color-scheme: dark"), "{}", plot.name);
    }
    let memory = &process.plots[0].words;
    assert!(memory.contains("3.0 MiB were resident, and 976.6 KiB of them live"), "{memory}");
}

#[test]
fn looks_are_spread_over_the_recording() {
    let (_, looks) = busy();
    let columns: Vec<(u64, u64)> = looks.strips[&0].columns().map(|(time, row)| (time, row.iter().sum())).collect();
    assert_eq!(columns.len() as u64, LOOKS);
    assert!(columns.windows(2).all(|pair| pair[1].0 - pair[0].0 == 12_500_000));
    assert_eq!(columns[7], (100_000_000, 50 * 2000), "of the blocks before that time every other");
    assert!(columns[80..].iter().all(|column| column.1 == 500 * 2000), "the quiet second");
}

#[test]
fn the_page_holds_all_and_trusts_no_name() {
    let (builder, looks) = busy();
    let drawn = draw(&builder, &looks, 2_000_000_000);
    let meta = RecordingMeta {
        file: "dir/a.mfrag".into(),
        duration_ns: 1_000_000_000,
        backend: "preload".into(),
        complete: true,
        bytes_on_disk: 1,
    };
    let page = html::page(&builder.finish(meta), &drawn);
    assert!(page.contains("<title>a.mfrag · memfrag</title>"));
    assert!(!page.contains("<b>") && page.contains("&lt;b&gt;&quot;x&quot;&amp;"));
    assert_eq!(page.matches("<figure>").count(), 5);
    assert!(!page.contains("src=") && !page.contains("<script") && !page.contains("href="), "nothing to load");
}

#[test]
fn without_events_nothing_is_drawn() {
    assert!(draw(&ReportBuilder::new(None), &Looks::new(0), 0).is_empty());
}
