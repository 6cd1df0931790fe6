//! A report as one file for the browser: the pictures and the text, with nothing to load from elsewhere.

use super::Drawn;
use crate::report::Report;
use crate::report::text;
use crate::report::{Style, units};
use std::fmt::Write as _;

const STYLE: &str = "
:root { color-scheme: light dark; --ground: #f4f5f4; --panel: #ffffff; --text: #1c232b; --soft: #56616d; --line: #dde1e4 }
@media (prefers-color-scheme: dark) {
  :root { --ground: #0c0f14; --panel: #12161d; --text: #dbe2ea; --soft: #94a1af; --line: #242c36 }
}
body { margin: 0 auto; padding: 24px; max-width: 1000px; background: var(--ground); color: var(--text);
       font: 15px/1.5 system-ui, sans-serif }
h1 { font-size: 22px; margin: 0 } h2 { font-size: 18px; margin: 32px 0 8px } h3 { font-size: 15px; margin: 0 }
p { margin: 4px 0 12px; color: var(--soft) }
figure, pre { margin: 0 0 20px; padding: 16px 20px; background: var(--panel); border: 1px solid var(--line); border-radius: 8px }
figure svg { display: block; width: 100%; height: auto }
pre { overflow-x: auto; font: 12px/1.35 ui-monospace, 'DejaVu Sans Mono', monospace }
";

/// Columns of the text.
const COLUMNS: usize = 100;

/// The page.
pub fn page(report: &Report, drawn: &[Drawn]) -> String {
    let recording = &report.recording;
    let name = recording.file.rsplit('/').next().unwrap_or(&recording.file);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{0} · memfrag</title>\n<style>{STYLE}</style>\n<h1>{0}</h1>\n<p>{1} events in {2}, {3} lost</p>\n",
        escaped(name),
        units::count(report.events.total),
        units::duration(recording.at_ns.unwrap_or(recording.duration_ns)),
        if report.events.lost == 0 { "none".to_owned() } else { units::count(report.events.lost) },
    );
    for process in drawn {
        let _ = writeln!(page, "<h2>{} · pid {}</h2>", escaped(&process.comm), process.pid);
        for plot in &process.plots {
            let (title, words) = (escaped(plot.title), escaped(&plot.words));
            let _ = writeln!(page, "<figure><h3>{title}</h3><p>{words}</p>{}</figure>", plot.svg);
        }
    }
    let text = text::render(report, Style { color: false, width: COLUMNS });
    let _ = writeln!(page, "<h2>Report</h2>\n<pre>{}</pre>", escaped(&text));
    page
}

/// Text as it stands in a document: names come from programs, which may call themselves anything.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            _ => safe.push(character),
        }
    }
    safe
}
