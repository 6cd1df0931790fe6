//! Replays for the terminal.

use super::model::{ReplayReport, RunReport};
use crate::report::page::{Page, Style, Tone, clean};
use crate::report::units::{bytes, count, plural};

/// The report as text, with a line feed at its end.
pub fn render(report: &ReplayReport, style: Style) -> String {
    let mut page = Page::new(style);
    let name = if report.comm.is_empty() { "(unknown)" } else { &report.comm };
    let name = page.style.paint(Tone::Heading, &clean(name));
    page.line(&format!("{name}  pid {} · {}", report.pid, clean(&report.file)));
    let threads = plural(report.threads.into(), "thread", "threads");
    page.field("Calls", None, &format!("{} in {threads}, made again", count(report.calls)));
    if report.older_blocks > 0 {
        let blocks = plural(report.older_blocks, "block", "blocks");
        page.field("", None, &format!("{blocks} from before the trace, put there first by address"));
    }
    if report.unknown_calls > 0 {
        let calls = plural(report.unknown_calls, "call", "calls");
        page.field("", Some(Tone::Warning), &format!("! {calls} left out: nothing is known of their blocks"));
    }
    if report.lost_events > 0 {
        let events = plural(report.lost_events, "event", "events");
        page.field("", Some(Tone::Warning), &format!("! the recording lost {events}, so the replay is not exact"));
    }
    if report.left_out_blocks > 0 {
        let blocks = plural(report.left_out_blocks, "live block is", "live blocks are");
        page.field(
            "",
            Some(Tone::Warning),
            &format!("! {blocks} left out: the bounds of --most-blocks and --most-bytes"),
        );
    }
    if report.sparse_blocks > 0 && report.touch == "sampled" {
        let blocks = plural(report.sparse_blocks, "block was", "blocks were");
        page.field("", None, &format!("{blocks} seen resident only in part; no more of them is written to"));
    }
    page.line("");
    let head = format!(
        "  {:<28}{:>12}{:>12}{:>12}{:>11}{:>10}{:>12}",
        "growth of", "peak", "average", "final", "against", "time", "faults"
    );
    let head = page.style.paint(Tone::Quiet, &head);
    page.line(&head);
    let original = &report.original;
    let (peak, last) = (size(original.peak_rss_bytes), size(original.final_rss_bytes));
    let average = size(original.average_rss_bytes);
    page.line(&format!("  {:<28}{peak:>12}{average:>12}{last:>12}", "the recorded program"));
    for run in &report.runs {
        line(&mut page, run, original.final_rss_bytes);
    }
    page.line("");
    page.line(
        "  Growth is that of anonymous resident memory since the last reading before the first call; final is at the last",
    );
    page.line("  reading of the recorded program, and against compares it with that.");
    let limited = |run: &&RunReport| run.memory_limited_by.is_some();
    if let Some((bytes, by)) =
        report.runs.iter().find(limited).and_then(|it| it.memory_limit_bytes.zip(it.memory_limited_by))
    {
        page.line(&limit(bytes, by));
    }
    page.text
}

fn limit(most: u64, by: &str) -> String {
    let by = match by {
        "cgroup_v2" => "the kernel, by a control group (version 2)",
        "cgroup_v1" => "the kernel, by a control group (version 1)",
        _ => "memfrag, which looked every 10 ms: no control group could be had",
    };
    format!("  Runs were held to {} by {by}.", bytes(most))
}

fn line(page: &mut Page, run: &RunReport, original: Option<u64>) {
    let name = clean(&run.allocator);
    let name = if run.env.is_empty() { name } else { format!("{name} {}", clean(&run.env.join(" "))) };
    let against = match (run.final_rss_bytes, original) {
        (Some(found), Some(original)) if original > 0 => {
            format!("{:+.1} %", (found as f64 / original as f64 - 1.0) * 100.0)
        }
        _ => String::new(),
    };
    let (peak, last) = (size(run.peak_rss_bytes), size(run.final_rss_bytes));
    let average = size(run.average_rss_bytes);
    let time = run.seconds.map_or_else(String::new, |seconds| format!("{seconds:.2} s"));
    let faults = run.minor_faults.map_or_else(String::new, count);
    page.line(format!("  {name:<28}{peak:>12}{average:>12}{last:>12}{against:>11}{time:>10}{faults:>12}").trim_end());
    if let Some(trimmed) = run.trimmed_rss_bytes {
        let (name, trimmed) = ("    after malloc_trim(0)", bytes(trimmed));
        page.line(&format!("  {name:<52}{trimmed:>12}"));
    }
    if let Some(reason) = &run.reason {
        let text = page.style.paint(Tone::Warning, &format!("    ! {}", clean(reason)));
        page.line(&text);
    }
}

fn size(value: Option<u64>) -> String {
    value.map_or_else(|| "–".to_owned(), bytes)
}
