//! Colours by what they mean. A picture is drawn in those of the light theme; a style in it replaces each by that of
//! the dark theme where the reader prefers that. Blue and orange, and one hue from pale to deep, are told apart by the
//! colour-blind.

#![allow(clippy::unreadable_literal, reason = "colours, written as in a style sheet")]

use plotters::style::RGBColor;
use std::collections::HashMap;
use std::fmt::Write as _;

/// Steps of a heatmap, the first for what is there at all.
pub(super) const STEPS: usize = 8;

/// What a colour stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ink {
    Paper,
    Text,
    Soft,
    Line,
    Live,
    LiveArea,
    Resident,
    Gap,
    /// Further lines and parts, beside those of [`Self::Live`] and [`Self::Resident`].
    Green,
    Purple,
    Olive,
    Slate,
    /// A cell with nothing in it.
    Empty,
    /// A step of a heatmap, from 0 to [`STEPS`] − 1.
    Heat(usize),
}

/// Of lines that are told apart by nothing else, the first ones best.
pub(super) const RUNS: [Ink; 6] = [Ink::Live, Ink::Resident, Ink::Green, Ink::Purple, Ink::Olive, Ink::Slate];

type Pair = (u32, u32);

const HEAT: [Pair; STEPS] = [
    (0xcfe1f2, 0x15324a),
    (0xb5d0ea, 0x1b4466),
    (0x94bfe0, 0x245a85),
    (0x6aa8d4, 0x3072a4),
    (0x4590c4, 0x4690c6),
    (0x2675b0, 0x6fb0dc),
    (0x125b97, 0xa4d0ec),
    (0x083d73, 0xe2f2fb),
];

impl Ink {
    const PLAIN: [Self; 13] = [
        Self::Paper,
        Self::Text,
        Self::Soft,
        Self::Line,
        Self::Live,
        Self::LiveArea,
        Self::Resident,
        Self::Gap,
        Self::Green,
        Self::Purple,
        Self::Olive,
        Self::Slate,
        Self::Empty,
    ];

    fn all() -> impl Iterator<Item = Self> {
        Self::PLAIN.into_iter().chain((0..STEPS).map(Self::Heat))
    }

    /// In the light theme and in the dark one. No two are the same in the light one.
    const fn pair(self) -> Pair {
        match self {
            Self::Paper => (0xffffff, 0x12161d),
            Self::Text => (0x1c232b, 0xdbe2ea),
            Self::Soft => (0x56616d, 0x94a1af),
            Self::Line => (0xdde1e4, 0x2c3641),
            Self::Live => (0x0072b2, 0x56b4e9),
            Self::LiveArea => (0xb9d9eb, 0x1d4159),
            Self::Resident => (0xb45f06, 0xf0a733),
            Self::Gap => (0xfbecd0, 0x33280f),
            Self::Green => (0x00806a, 0x3cd0b0),
            Self::Purple => (0xa0408c, 0xe59ad6),
            Self::Olive => (0x7a6a00, 0xe6dc6a),
            Self::Slate => (0x6d7f99, 0xa9b9d0),
            Self::Empty => (0xf2f4f5, 0x181d25),
            Self::Heat(step) => HEAT[step],
        }
    }

    pub(super) fn color(self) -> RGBColor {
        let [_, red, green, blue] = self.pair().0.to_be_bytes();
        RGBColor(red, green, blue)
    }
}

/// The document in the colours of the dark theme, whatever the reader prefers.
pub(super) fn darkened(svg: &str) -> String {
    const BEFORE: &str = "=\"#";
    let dark: HashMap<u32, u32> = Ink::all().map(Ink::pair).collect();
    let mut parts = svg.split(BEFORE);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = part.get(..6).and_then(|digits| u32::from_str_radix(digits, 16).ok());
        out.push_str(BEFORE);
        match digits.and_then(|light| dark.get(&light)) {
            Some(dark) => _ = write!(out, "{dark:06x}{}", &part[6..]),
            None => out.push_str(part),
        }
    }
    out
}

/// A drawn document with what it needs for both themes, and its title for those who do not see it.
pub(super) fn finish(svg: &str, title: &str) -> String {
    let mut style = String::from("<style>@media (prefers-color-scheme: dark) {");
    for (light, dark) in Ink::all().map(Ink::pair) {
        for what in ["fill", "stroke"] {
            let _ = write!(style, "svg.memfrag [{what}=\"#{light:06X}\"]{{{what}:#{dark:06x}}}");
        }
    }
    style.push_str("}</style>");
    let Some((head, body)) = svg.split_once('>') else { return svg.to_owned() };
    let head = head.replacen("<svg", "<svg class=\"memfrag\" role=\"img\"", 1);
    format!("{head}><title>{title}</title>{style}{body}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn colours_are_told_apart_by_their_value() {
        let all: Vec<u32> = Ink::all().map(|ink| ink.pair().0).collect();
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
    }

    #[test]
    fn each_colour_is_darkened_once() {
        // The dark theme's line is nobody's light colour, but white and black would go round in circles.
        let svg = "<rect fill=\"#FFFFFF\" stroke=\"#1c232b\"/><rect fill=\"#123456\"/><a href=\"#x\"/>";
        let dark = "<rect fill=\"#12161d\" stroke=\"#dbe2ea\"/><rect fill=\"#123456\"/><a href=\"#x\"/>";
        assert_eq!(darkened(svg), dark);
        assert_eq!(darkened(dark), dark);
    }

    #[test]
    fn more_is_further_from_the_paper_in_both_themes() {
        let light = |color: u32| color.to_be_bytes().into_iter().map(u32::from).sum::<u32>();
        for pair in HEAT.windows(2) {
            assert!(light(pair[0].0) > light(pair[1].0));
            assert!(light(pair[0].1) < light(pair[1].1));
        }
    }
}
