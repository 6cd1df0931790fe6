//! Rows and columns of cells, each coloured by its share of the largest.

#![allow(clippy::cast_possible_wrap, clippy::cast_sign_loss, reason = "pixels: no edge of a picture comes near 2³¹")]

use super::ink::{self, Ink, STEPS};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Pixels of the whole across.
const WIDTH: u32 = 960;
/// Pixels left of the cells, where the rows are named, and around all.
const LEFT: i32 = 150;
const MARGIN: i32 = 14;
/// Pixels below the cells, for the marks and the scale.
const BELOW: i32 = 76;

/// What is drawn.
pub(super) struct Heatmap<'a> {
    pub(super) title: &'a str,
    /// What is written beside the rows that have a name.
    pub(super) rows: Vec<Option<String>>,
    /// Pixels of a row.
    pub(super) row_height: i32,
    /// Marks below the cells: before which column, and what is written.
    pub(super) marks: Vec<(usize, String)>,
    pub(super) across: &'a str,
    /// By row, from above: the step of each cell; `None` where there is nothing.
    pub(super) cells: Vec<Vec<Option<usize>>>,
    /// What the first and the last step mean.
    pub(super) scale: (String, String),
}

/// The step of a value, by logarithm: the largest is in the last one, and each step is half of the next or a power of
/// that, so that all fit. `None` for 0.
pub(super) fn by_logarithm(value: u64, most: u64) -> Option<usize> {
    let (value, most) = (value.checked_ilog2()?, most.max(1).ilog2().max(1));
    Some(((value as usize * STEPS) / (most as usize + 1)).min(STEPS - 1))
}

/// The step of a share of a whole. `None` for 0.
pub(super) fn by_share(part: u64, whole: u64) -> Option<usize> {
    let step = u128::from(part) * STEPS as u128 / u128::from(whole.max(1));
    (part > 0).then_some((step as usize).min(STEPS - 1))
}

impl Heatmap<'_> {
    pub(super) fn svg(&self) -> Option<String> {
        let columns = self.cells.iter().map(Vec::len).max().filter(|&columns| columns > 0)?;
        let mut svg = String::new();
        self.draw(&mut svg, columns).ok()?;
        Some(ink::finish(&svg, self.title))
    }

    fn draw(&self, svg: &mut String, columns: usize) -> Result<(), Box<dyn std::error::Error>> {
        let below = MARGIN + self.row_height * self.cells.len() as i32;
        let root = SVGBackend::with_string(svg, (WIDTH, (below + BELOW) as u32)).into_drawing_area();
        root.fill(&Ink::Paper.color())?;
        let right = WIDTH as i32 - MARGIN;
        // Cells share their edges, so that none is wider than the pixels leave.
        let edge = |column: usize| LEFT + ((right - LEFT) as usize * column / columns) as i32;
        let text = |h, v| ("sans-serif", 13).into_font().color(&Ink::Soft.color()).pos(Pos::new(h, v));
        let fill =
            |from: (i32, i32), to: (i32, i32), ink: Ink| root.draw(&Rectangle::new([from, to], ink.color().filled()));
        for (cells, top) in self.cells.iter().zip((MARGIN..).step_by(self.row_height as usize)) {
            let bottom = top + self.row_height;
            let mut from = 0;
            while from < cells.len() {
                let like = cells[from];
                let to = from + cells[from..].iter().take_while(|cell| **cell == like).count();
                fill((edge(from), top), (edge(to), bottom), like.map_or(Ink::Empty, Ink::Heat))?;
                from = to;
            }
        }
        let scale_left = right - 16 * STEPS as i32;
        let scale_top = below + BELOW - MARGIN - 14;
        for step in 0..STEPS {
            let x = scale_left + 16 * step as i32;
            fill((x, scale_top), (x + 16, scale_top + 12), Ink::Heat(step))?;
        }
        for (name, top) in self.rows.iter().zip((MARGIN..).step_by(self.row_height as usize)) {
            if let Some(name) = name {
                let middle = (LEFT - 8, top + self.row_height / 2);
                root.draw_text(name, &text(HPos::Right, VPos::Center), middle)?;
            }
        }
        for (column, mark) in &self.marks {
            root.draw(&PathElement::new([(edge(*column), below), (edge(*column), below + 5)], Ink::Soft.color()))?;
            root.draw_text(mark, &text(HPos::Center, VPos::Top), (edge(*column), below + 8))?;
        }
        root.draw_text(self.across, &text(HPos::Left, VPos::Top), (LEFT, scale_top))?;
        let words = format!("{} to {}", self.scale.0, self.scale.1);
        root.draw_text(&words, &text(HPos::Right, VPos::Top), (scale_left - 10, scale_top))?;
        root.present()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_rise_with_what_they_stand_for() {
        assert_eq!((by_logarithm(0, 100), by_share(0, 100)), (None, None));
        assert_eq!((by_logarithm(1, 1), by_logarithm(1, 1 << 40)), (Some(0), Some(0)));
        assert_eq!(by_logarithm(1 << 40, 1 << 40), Some(STEPS - 1));
        assert_eq!((by_share(1, 1000), by_share(500, 1000), by_share(1000, 1000)), (Some(0), Some(4), Some(7)));
        assert_eq!(by_share(u64::MAX, 1), Some(STEPS - 1), "blocks that seem to overlap");
        let steps: Vec<_> = (0..64).map(|log2| by_logarithm(1 << log2, u64::MAX)).collect();
        assert!(steps.is_sorted());
    }

    #[test]
    fn equal_neighbours_are_one_rectangle() {
        let map = Heatmap {
            title: "cells",
            rows: vec![Some("a".into()), None],
            row_height: 10,
            marks: vec![(0, "0".into())],
            across: "columns",
            cells: vec![vec![None, Some(7), Some(7), Some(7)], vec![None; 4]],
            scale: ("little".into(), "much".into()),
        };
        let svg = map.svg().expect("cells");
        let deep = format!("fill=\"#{:06X}\"", 0x08_3d73);
        assert_eq!(svg.matches(&deep).count(), 3, "the cells, the scale, and the style for the dark");
        assert!(Heatmap { cells: Vec::new(), rows: Vec::new(), ..map }.svg().is_none());
    }
}
