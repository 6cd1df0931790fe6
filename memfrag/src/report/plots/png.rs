//! Pictures as pixels, for what cannot show SVG.

use super::ink::darkened;
use resvg::{tiny_skia, usvg};
use std::borrow::Cow;
use std::sync::Arc;

/// Pixels for each of the SVG's: sharp on screens of high density.
const SCALE: u32 = 2;
/// Families that read well at small sizes; any other serves where none of these is installed.
const FAMILIES: [&str; 5] = ["DejaVu Sans", "Liberation Sans", "Noto Sans", "Arial", "FreeSans"];

/// Why there are no pixels.
#[derive(Debug, thiserror::Error)]
pub enum PngError {
    /// Without a font the pictures would have no words.
    #[error(
        "no font is installed, and a PNG has to hold the shapes of its letters: apt install fonts-dejavu-core, or take \
         the SVG, whose letters the viewer draws"
    )]
    NoFont,
    /// It is no picture, or too large.
    #[error("a picture cannot be drawn as PNG: {0}")]
    Drawing(String),
}

/// In which colours a picture is drawn: pixels cannot change theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Theme {
    /// On white.
    Light,
    /// On a dark ground.
    Dark,
}

/// Draws SVG pictures as pixels.
#[derive(Debug)]
pub struct Rasteriser {
    theme: Theme,
    fonts: Arc<usvg::fontdb::Database>,
}

impl Rasteriser {
    /// In these colours, with the fonts of this machine.
    ///
    /// # Errors
    /// When it has none.
    pub fn new(theme: Theme) -> Result<Self, PngError> {
        let mut fonts = usvg::fontdb::Database::new();
        fonts.load_system_fonts();
        Self::with(theme, fonts)
    }

    fn with(theme: Theme, mut fonts: usvg::fontdb::Database) -> Result<Self, PngError> {
        let known: Vec<String> =
            fonts.faces().filter_map(|face| face.families.first()).map(|(name, _)| name.clone()).collect();
        let family = FAMILIES.into_iter().find(|family| known.iter().any(|name| name == family));
        let family = family.or_else(|| known.first().map(String::as_str)).ok_or(PngError::NoFont)?;
        fonts.set_sans_serif_family(family);
        Ok(Self { theme, fonts: Arc::new(fonts) })
    }

    /// An SVG document as a PNG file's bytes.
    ///
    /// # Errors
    /// When it is none, or memory for it is wanting.
    pub fn png(&self, svg: &str) -> Result<Vec<u8>, PngError> {
        let failed = |error: &dyn std::fmt::Display| PngError::Drawing(error.to_string());
        let options = usvg::Options { fontdb: Arc::clone(&self.fonts), ..usvg::Options::default() };
        let svg = match self.theme {
            Theme::Light => Cow::Borrowed(svg),
            Theme::Dark => Cow::Owned(darkened(svg)),
        };
        let tree = usvg::Tree::from_str(&svg, &options).map_err(|error| failed(&error))?;
        let size = tree.size().to_int_size();
        let (width, height) = (size.width().saturating_mul(SCALE), size.height().saturating_mul(SCALE));
        let pixels = tiny_skia::Pixmap::new(width, height);
        let mut pixels = pixels.ok_or_else(|| failed(&format_args!("{width} × {height} pixels")))?;
        let scale = SCALE as f32;
        resvg::render(&tree, tiny_skia::Transform::from_scale(scale, scale), &mut pixels.as_mut());
        pixels.encode_png().map_err(|error| failed(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SQUARE: &str = "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"10\" height=\"20\">\
                          <rect width=\"10\" height=\"20\" fill=\"#0072B2\"/></svg>";

    #[test]
    fn a_machine_without_fonts_is_told_what_to_do() {
        let error =
            Rasteriser::with(Theme::Light, usvg::fontdb::Database::new()).expect_err("there are none").to_string();
        assert!(error.contains("no font is installed") && error.contains("fonts-dejavu-core"), "{error}");
    }

    #[test]
    fn pixels_have_the_colours_of_the_picture() {
        for (theme, color) in [(Theme::Light, (0x00, 0x72, 0xb2)), (Theme::Dark, (0x56, 0xb4, 0xe9))] {
            let rasteriser = Rasteriser { theme, fonts: Arc::default() };
            let png = rasteriser.png(SQUARE).expect("a picture");
            let pixels = tiny_skia::Pixmap::decode_png(&png).expect("a PNG");
            assert_eq!((pixels.width(), pixels.height()), (20, 40));
            let pixel = pixels.pixel(7, 7).expect("within");
            assert_eq!((pixel.red(), pixel.green(), pixel.blue()), color);
            assert!(matches!(rasteriser.png("<html>"), Err(PngError::Drawing(_))));
        }
    }
}
