//! The map of a heap as pages see it: cells, tiles, frames, palettes. `docs/PROTOCOL.md` says what each value
//! means and how frames are coded.
//!
//! | module | job |
//! |---|---|
//! | `canvas` | what one page sees and was sent; what it gets next |
//! | `mode` | what cells say, and how much memory they stand for |
//! | `scene` | a heap and the resident pages, made ready to be drawn |
//! | `measure`, `pages`, `cells` | modes whose cells come from the pages |
//! | `blocks`, `sweep`, `palette` | cells that come from the blocks themselves, and classes of blocks |
//! | `kept` | what was worked out for tables of 2 MiB, until they change |
//! | `code` | the binary frame |
//!
//! Nothing here asks for the heap to stand still between two frames: whoever holds it calls [`Canvas::frame`] under his
//! lock.

mod blocks;
mod canvas;
mod cells;
mod code;
mod kept;
mod measure;
mod mode;
mod pages;
mod palette;
mod scene;
mod sweep;
#[cfg(test)]
mod tests;

pub use canvas::{Canvas, Frame, MAX_TILES, ViewError, ViewRequest};
pub(super) use measure::share;
pub use mode::{Level, Mode, TILE_CELLS};
pub use palette::Class;
