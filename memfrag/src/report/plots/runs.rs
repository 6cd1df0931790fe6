//! Replays: the memory of all runs over time beside that of the recorded program, and what it consists of.

use super::Plot;
use super::course::{short, unit};
use super::ink::{self, Ink};
use crate::report::replay::{Mappings, ReplayReport, RunReport};
use crate::report::units;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::fmt::Write as _;

type Drawing = Result<(), Box<dyn std::error::Error>>;

/// Runs that are drawn at most: as many as there are colours to tell them by.
const MOST: usize = ink::RUNS.len();
/// Pixels of the picture of runs.
const SIZE: (u32, u32) = (960, 360);
/// Pixels right of the curves, for their names.
const RIGHT: u32 = 250;
/// Pixels from one name to the next.
const STEP: i32 = 17;

/// The pictures of a replay. Empty where no run came to its end.
pub fn draw(report: &ReplayReport) -> Vec<Plot> {
    [memory(report), mappings(report)].into_iter().flatten().collect()
}

struct Line {
    name: String,
    ink: Ink,
    width: u32,
    /// Seconds since the trace began, and bytes.
    points: Vec<(f64, u64)>,
}

fn name(run: &RunReport) -> String {
    let library = run.allocator.rsplit('/').next().unwrap_or(&run.allocator);
    let name = std::iter::once(library).chain(run.env.iter().map(String::as_str)).collect::<Vec<_>>().join(" ");
    if name.chars().count() <= 32 { name } else { name.chars().take(31).chain(['…']).collect() }
}

/// The growth of memory at the recorded program's readings, each where it was taken in its time.
fn memory(report: &ReplayReport) -> Option<Plot> {
    let original = &report.original.readings;
    let at = |number: u32| original.get(number as usize).map(|reading| reading.at_ns as f64 / 1e9);
    let own = original.iter().map(|reading| (reading.at_ns as f64 / 1e9, reading.rss_bytes)).collect();
    let mut lines = vec![Line { name: "the recorded program".to_owned(), ink: Ink::Text, width: 3, points: own }];
    let finished = || report.runs.iter().filter(|run| run.readings.len() > 1);
    for (run, ink) in finished().zip(ink::RUNS) {
        let points = run.readings.iter().filter_map(|it| Some((at(it.number)?, it.rss_bytes))).collect();
        lines.push(Line { name: name(run), ink, width: 2, points });
    }
    let most = lines.iter().flat_map(|line| &line.points).map(|point| point.1).max()?;
    let (first, last) = (original.first()?.at_ns as f64 / 1e9, original.last()?.at_ns as f64 / 1e9);
    if lines.len() < 2 || most == 0 || first >= last {
        return None;
    }
    let mut svg = String::new();
    draw_lines(&mut svg, &lines, (first, last), most).ok()?;
    let title = "Memory of all runs over time";
    let mut words =
        "By how much anonymous resident memory had grown at each moment at which the recorded program's was \
                     read; the runs read theirs at the same place among the calls."
            .to_owned();
    if let Some(more @ 1..) = finished().count().checked_sub(MOST) {
        let _ = write!(words, " Not drawn: {}.", units::plural(more as u64, "run", "runs"));
    }
    Some(Plot { name: "runs", title, words, svg: ink::finish(&svg, title) })
}

fn draw_lines(svg: &mut String, lines: &[Line], (first, last): (f64, f64), most: u64) -> Drawing {
    let (scale, unit) = unit(most);
    let top = most as f64 / scale * 1.08;
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&Ink::Paper.color())?;
    let text = |ink: Ink| ("sans-serif", 13).into_font().color(&ink.color());
    let mut chart = ChartBuilder::on(&root)
        .margin(14)
        .x_label_area_size(36)
        .y_label_area_size(72)
        .margin_right(RIGHT)
        .build_cartesian_2d(first..last, 0.0..top)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(Ink::Line.color())
        .axis_style(Ink::Soft.color())
        .label_style(text(Ink::Soft))
        .axis_desc_style(text(Ink::Soft))
        .x_labels(8)
        .y_labels(6)
        .x_desc("seconds since the trace began")
        .y_desc(unit)
        .x_label_formatter(&|value| short(*value))
        .y_label_formatter(&|value| short(*value))
        .draw()?;
    let mut ends = Vec::new();
    for line in lines {
        let points = line.points.iter().map(|&(time, bytes)| (time, bytes as f64 / scale));
        chart.draw_series(LineSeries::new(points, line.ink.color().stroke_width(line.width)))?;
        let Some(&(time, bytes)) = line.points.last() else { continue };
        let (x, y) = chart.backend_coord(&(time, bytes as f64 / scale));
        ends.push((line, bytes, x, y));
    }
    // Beside their ends, pushed apart where these lie together; a hair leads from the one to the other.
    ends.sort_by_key(|&(.., y)| y);
    let bottom = SIZE.1.cast_signed() - 58;
    let mut places: Vec<i32> = Vec::new();
    for &(.., y) in &ends {
        places.push(y.max(places.last().map_or(12, |last| last + STEP)));
    }
    let mut limit = bottom;
    for place in places.iter_mut().rev() {
        *place = (*place).min(limit);
        limit = *place - STEP;
    }
    let edge = (SIZE.0 - RIGHT).cast_signed();
    for ((line, bytes, x, y), place) in ends.into_iter().zip(places) {
        root.draw(&PathElement::new([(x, y), (edge + 14, place)], Ink::Line.color()))?;
        root.draw(&Rectangle::new([(edge + 16, place - 5), (edge + 26, place + 5)], line.ink.color().filled()))?;
        let label = format!("{}, {}", units::bytes(bytes), line.name);
        root.draw_text(&label, &text(Ink::Text).pos(Pos::new(HPos::Left, VPos::Center)), (edge + 32, place))?;
    }
    root.present()?;
    Ok(())
}

/// Kinds of mappings: names, colours, and where they stand in the report.
type Kind = (&'static str, Ink, fn(&Mappings) -> u64);
const KINDS: [Kind; 5] = [
    ("heap", Ink::Live, |it| it.heap),
    ("anonymous", Ink::Resident, |it| it.anonymous),
    ("stack", Ink::Green, |it| it.stack),
    ("files", Ink::Slate, |it| it.file),
    ("other", Ink::Purple, |it| it.other),
];

/// What resident memory consists of, before and after.
fn mappings(report: &ReplayReport) -> Option<Plot> {
    let mut rows = Vec::new();
    rows.extend(report.original.mappings.map(|it| ("the recorded program".to_owned(), it)));
    for run in report.runs.iter().filter(|run| run.mappings.is_some()).take(MOST) {
        rows.extend(run.mappings.map(|it| (name(run), it)));
        rows.extend(run.trimmed_mappings.map(|it| (format!("{}, trimmed", name(run)), it)));
    }
    let most = rows.iter().map(|(_, it)| sum(it)).max().filter(|&most| most > 0)?;
    if rows.len() < 2 {
        return None;
    }
    let mut svg = String::new();
    draw_rows(&mut svg, &rows, most).ok()?;
    let title = "Resident memory by kind of mapping";
    let words =
        "Of the recorded program when its pages were looked at last, and of each run at its last reading, without \
                 the replay's own tables. A run maps only the libraries that it needs itself."
            .to_owned();
    Some(Plot { name: "mappings", title, words, svg: ink::finish(&svg, title) })
}

fn sum(mappings: &Mappings) -> u64 {
    KINDS.iter().map(|(.., of)| of(mappings)).sum()
}

fn draw_rows(svg: &mut String, rows: &[(String, Mappings)], most: u64) -> Drawing {
    const ROW: i32 = 30;
    const TOP: i32 = 40;
    const LEFT: i32 = 250;
    let height = TOP + ROW * i32::try_from(rows.len())? + 12;
    let root = SVGBackend::with_string(svg, (SIZE.0, height.cast_unsigned())).into_drawing_area();
    root.fill(&Ink::Paper.color())?;
    let text =
        |ink: Ink, side: HPos| ("sans-serif", 13).into_font().color(&ink.color()).pos(Pos::new(side, VPos::Center));
    let width = f64::from(SIZE.0.cast_signed() - LEFT - 110);
    for ((kind, ink, _), x) in KINDS.iter().zip((LEFT..).step_by(110)) {
        root.draw(&Rectangle::new([(x, 12), (x + 12, 24)], ink.color().filled()))?;
        root.draw(&Rectangle::new([(x, 12), (x + 12, 24)], Ink::Soft.color()))?;
        root.draw_text(kind, &text(Ink::Text, HPos::Left), (x + 18, 18))?;
    }
    for ((name, mappings), y) in rows.iter().zip((TOP..).step_by(ROW as usize)) {
        root.draw_text(name, &text(Ink::Text, HPos::Right), (LEFT - 12, y + 10))?;
        let mut before = 0;
        for (_, ink, of) in KINDS {
            let place = |bytes: u64| LEFT + (bytes as f64 / most as f64 * width).round() as i32;
            let (from, to) = (place(before), place(before + of(mappings)));
            before += of(mappings);
            if to > from {
                root.draw(&Rectangle::new([(from, y), (to, y + 20)], ink.color().filled()))?;
                root.draw(&Rectangle::new([(from, y), (to, y + 20)], Ink::Paper.color()))?;
            }
        }
        let end = LEFT + (before as f64 / most as f64 * width).round() as i32;
        root.draw_text(&units::bytes(before), &text(Ink::Soft, HPos::Left), (end + 8, y + 10))?;
    }
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::{Candidate, Kinds, Manner, Outcome, Planned, Point, Reading, Run, Sums};
    use crate::report::replay::build;

    fn run(bytes: [u64; 3]) -> Outcome {
        let point = |(reading, bytes)| Point { reading, bytes, minor_faults: 0, nanoseconds: 5 };
        Outcome::Completed(Run {
            calls: 1,
            planned_calls: 1,
            failed_calls: 0,
            nanoseconds: 5,
            peak_bytes: bytes[1],
            final_bytes: bytes[2],
            minor_faults: 0,
            mappings: Sums { heap: bytes[2], file: 1 << 20, ..Sums::default() },
            trimmed_bytes: Some(4096),
            trimmed_mappings: Some(Sums { heap: 4096, ..Sums::default() }),
            points: (0..).zip(bytes).map(point).collect(),
        })
    }

    fn report() -> ReplayReport {
        let reading = |at: u64| Reading { time: at * 1_000_000_000, rss: 0, rss_anon: at << 22 };
        let kinds = Kinds { heap: 8 << 20, ..Kinds::default() };
        let planned = Planned { readings: [0, 1, 2].map(reading).to_vec(), kinds: Some(kinds), ..Planned::default() };
        let chosen = Candidate { pid: 1, calls: 1, looks: 1, ..Candidate::default() };
        build("x".to_owned(), &chosen, &planned, &Manner::default())
    }

    #[test]
    fn runs_and_mappings_are_drawn_with_hostile_names() {
        let mut report = report();
        assert!(draw(&report).is_empty(), "nothing was run");
        report.runs.push(RunReport::new("/tmp/lib<b>.so", vec!["A=\"&".to_owned()], &run([0, 9 << 20, 7 << 20])));
        report.runs.push(RunReport::new("musl", Vec::new(), &run([0, 9 << 20, 7 << 20])));
        report.runs.push(RunReport::missing("tcmalloc", "it is not installed".to_owned()));
        let plots = draw(&report);
        assert_eq!(plots.iter().map(|plot| plot.name).collect::<Vec<_>>(), ["runs", "mappings"]);
        for plot in &plots {
            assert!(plot.svg.starts_with("<svg class=\"memfrag\"") && plot.svg.trim_end().ends_with("</svg>"));
            assert!(plot.svg.contains("lib&lt;b&gt;.so") && !plot.svg.contains("lib<b>"), "{}", plot.svg);
            assert!(!plot.svg.contains("tcmalloc"), "it has nothing to show");
        }
        assert_eq!(plots[1].svg.matches(", trimmed").count(), 2);
    }

    #[test]
    fn names_keep_apart_however_close_the_ends_are() {
        let mut report = report();
        for _ in 0..MOST + 2 {
            report.runs.push(RunReport::new("same", Vec::new(), &run([0, 9 << 20, 7 << 20])));
        }
        let plots = draw(&report);
        assert!(plots[0].words.ends_with("Not drawn: 2 runs."), "{}", plots[0].words);
        let label = |line: &&str| line.contains("<text") && line.contains("same") || line.contains("recorded");
        let mut heights: Vec<i64> = Vec::new();
        for part in plots[0].svg.split("<text").skip(1).filter(|part| label(&format!("<text{part}").as_str())) {
            let y = part.split("y=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a place");
            heights.push(y.parse().expect("a number"));
        }
        heights.sort_unstable();
        assert_eq!(heights.len(), MOST + 1);
        assert!(heights.windows(2).all(|pair| pair[1] - pair[0] >= i64::from(STEP)), "{heights:?}");
    }
}
