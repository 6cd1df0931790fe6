//! Bytes over time.

use super::Plot;
use super::ink::{self, Ink};
use crate::heap::{Heap, Point};
use crate::report::units;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Pixels.
const SIZE: (u32, u32) = (960, 310);
/// Pixels left of the curves.
const LEFT: i32 = 86;

type Drawing = Result<(), Box<dyn std::error::Error>>;

/// A line, or an area down to zero.
struct Curve {
    name: &'static str,
    line: Ink,
    area: Option<Ink>,
    /// Times and bytes.
    points: Vec<(u64, u64)>,
}

/// Live bytes below resident ones: the gap between them is what nobody seems to hold.
pub(super) fn memory(heap: &Heap, now_ns: u64) -> Option<Plot> {
    let (start, width, points) = heap.timeline_at(now_ns);
    let live = steps(start, width, &points, |point| point.max_bytes);
    let mut last = None;
    let resident = points.iter().map(|point| {
        last = point.rss.or(last);
        last
    });
    let resident: Vec<(u64, u64)> =
        (0..).map(|at| start + at * width).zip(resident).filter_map(|(time, rss)| Some((time, rss?))).collect();
    let end = (resident.last()?.1, points.last()?.live.bytes);
    let title = "Resident and live bytes over time";
    let words = format!(
        "At the end {} were resident, and {} of them live. What lies between the two is free memory that the system \
         does not have back, the allocator's own, and all that malloc did not give out.",
        units::bytes(end.0),
        units::bytes(end.1)
    );
    let curves = [
        Curve { name: "resident", line: Ink::Resident, area: Some(Ink::Gap), points: resident },
        Curve { name: "live", line: Ink::Live, area: Some(Ink::LiveArea), points: live },
    ];
    Some(Plot { name: "memory", title, words, svg: chart(title, &curves)? })
}

/// What was requested since the beginning beside what is live: how much comes and goes.
pub(super) fn requested(heap: &Heap, now_ns: u64) -> Option<Plot> {
    let (start, width, points) = heap.timeline_at(now_ns);
    let mut sum = 0;
    let all = points.iter().map(|point| {
        sum += point.requested_bytes;
        sum
    });
    let all: Vec<(u64, u64)> = (0..).map(|at| start + at * width).zip(all).collect();
    let (requested, live) = (all.last()?.1, points.last()?.live.bytes);
    let title = "Requested in all, and live";
    let words = format!(
        "{} were requested in all, of which {} were live at the end. The steeper the line, the more bytes were \
         allocated each second.",
        units::bytes(requested),
        units::bytes(live)
    );
    let curves = [
        Curve { name: "requested in all", line: Ink::Soft, area: None, points: all },
        Curve {
            name: "live",
            line: Ink::Live,
            area: Some(Ink::LiveArea),
            points: steps(start, width, &points, |p| p.live.bytes),
        },
    ];
    Some(Plot { name: "requested", title, words, svg: chart(title, &curves)? })
}

fn steps(start: u64, width: u64, points: &[Point], of: fn(&Point) -> u64) -> Vec<(u64, u64)> {
    (0..).map(|at| start + at * width).zip(points.iter().map(of)).collect()
}

/// The unit in which a scale up to so many bytes has round marks.
pub(super) fn unit(most: u64) -> (f64, &'static str) {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let step = (most.max(1).ilog2() / 10).min(units.len() as u32 - 1);
    ((1_u64 << (10 * step)) as f64, units[step as usize])
}

/// `None` where there is nothing to draw: less than two points.
fn chart(title: &str, curves: &[Curve]) -> Option<String> {
    let all = || curves.iter().flat_map(|curve| &curve.points);
    let (first, last) = (all().map(|point| point.0).min()?, all().map(|point| point.0).max()?);
    let most = all().map(|point| point.1).max()?;
    if first == last || most == 0 {
        return None;
    }
    let mut svg = String::new();
    draw(&mut svg, curves, (first, last), most).ok()?;
    Some(ink::finish(&svg, title))
}

fn draw(svg: &mut String, curves: &[Curve], (first, last): (u64, u64), most: u64) -> Drawing {
    let (scale, unit) = unit(most);
    let (seconds, bytes) = (|ns: u64| ns as f64 / 1e9, |bytes: u64| bytes as f64 / scale);
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&Ink::Paper.color())?;
    let text = |size: i32, ink: Ink| ("sans-serif", size).into_font().color(&ink.color());
    let mut chart = ChartBuilder::on(&root)
        .margin(14)
        .margin_top(32)
        .x_label_area_size(36)
        .y_label_area_size(LEFT - 14)
        .build_cartesian_2d(seconds(first)..seconds(last), 0.0..bytes(most) * 1.05)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(Ink::Line.color())
        .axis_style(Ink::Soft.color())
        .label_style(text(13, Ink::Soft))
        .axis_desc_style(text(13, Ink::Soft))
        .x_labels(8)
        .y_labels(6)
        .x_desc("seconds since the trace began")
        .y_desc(unit)
        .x_label_formatter(&|value| short(*value))
        .y_label_formatter(&|value| short(*value))
        .draw()?;
    for curve in curves {
        let points = || curve.points.iter().map(|&(time, value)| (seconds(time), bytes(value)));
        if let Some(area) = curve.area {
            chart.draw_series(AreaSeries::new(points(), 0.0, area.color()))?;
        }
        chart.draw_series(LineSeries::new(points(), curve.line.color().stroke_width(2)))?;
    }
    // Above the chart, where no curve can lie below it.
    for (curve, x) in curves.iter().zip((LEFT..).step_by(150)) {
        root.draw(&Rectangle::new([(x, 8), (x + 12, 20)], curve.line.color().filled()))?;
        root.draw_text(curve.name, &text(13, Ink::Text).pos(Pos::new(HPos::Left, VPos::Center)), (x + 18, 14))?;
    }
    root.present()?;
    Ok(())
}

/// Without a fraction of zeros.
pub(super) fn short(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_have_the_unit_of_their_top() {
        assert_eq!(unit(0), (1.0, "B"));
        assert_eq!(unit(1023), (1.0, "B"));
        assert_eq!(unit(5 << 20), (1_048_576.0, "MiB"));
        assert_eq!(unit(u64::MAX).1, "TiB");
        assert_eq!([short(20.0), short(0.125), short(1.5)], ["20", "0.125", "1.5"]);
    }

    #[test]
    fn a_single_moment_is_no_course() {
        let curve = |points| Curve { name: "live", line: Ink::Live, area: None, points };
        assert!(chart("", &[curve(vec![(5, 10)])]).is_none());
        assert!(chart("", &[curve(Vec::new())]).is_none());
        assert!(chart("", &[curve(vec![(0, 0), (5, 0)])]).is_none());
        let svg = chart("A course", &[curve(vec![(0, 1), (1_000_000_000, 1 << 20)])]).expect("two points");
        assert!(svg.starts_with("<svg class=\"memfrag\"") && svg.trim_end().ends_with("</svg>"));
    }
}
