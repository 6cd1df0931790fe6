//! What a cell says, and how much memory it stands for.

use std::ops::Range;

/// What the cells of a map say; the values of each are in `docs/PROTOCOL.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// How much of the cell live blocks take.
    Occupancy,
    /// How often was allocated and freed there.
    Heat,
    /// How long ago was allocated there.
    Age,
    /// How much of its resident memory no live block takes.
    Resident,
    /// Which call site has most of it.
    Site,
    /// Which thread has most of it.
    Thread,
    /// Blocks of which size have most of it.
    Size,
}

impl Mode {
    const ALL: [(Self, &'static str); 7] = [
        (Self::Occupancy, "occupancy"),
        (Self::Heat, "heat"),
        (Self::Age, "age"),
        (Self::Resident, "resident"),
        (Self::Site, "site"),
        (Self::Thread, "thread"),
        (Self::Size, "size"),
    ];

    /// The mode of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|mode| mode.1 == name).map(|mode| mode.0)
    }

    /// Its name in the protocol.
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    /// Whether its cells name classes of a palette.
    pub fn has_palette(self) -> bool {
        matches!(self, Self::Site | Self::Thread | Self::Size)
    }

    /// Whether its cells change as time passes, without an event.
    pub(super) fn ages(self) -> bool {
        matches!(self, Self::Heat | Self::Age)
    }

    /// Whether its cells depend on which pages are resident.
    pub(super) fn takes_residency(self) -> bool {
        matches!(self, Self::Occupancy | Self::Resident)
    }
}

/// How much memory a cell stands for: 4 KiB · 4ᴸ, from 16 bytes at −4 to 64 GiB at 12.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level(i8);

/// Base-2 logarithm of the cells of a tile.
const TILE_BITS: u32 = 12;
/// Cells of a tile.
pub const TILE_CELLS: usize = 1 << TILE_BITS;
/// Base-2 logarithm of the lowest address that no tile shows: programs have none there.
const ADDRESS_BITS: u32 = 63;
/// Base-2 logarithm of a page.
const PAGE_BITS: u32 = 12;

impl Level {
    /// The level of this number, −4 to 12.
    pub const fn new(level: i8) -> Option<Self> {
        if -4 <= level && level <= 12 { Some(Self(level)) } else { None }
    }

    /// Its number.
    pub const fn number(self) -> i8 {
        self.0
    }

    /// Base-2 logarithm of the bytes of a cell.
    pub const fn cell_bits(self) -> u32 {
        PAGE_BITS.wrapping_add_signed(2 * self.0 as i32)
    }

    /// Bytes of a cell.
    pub const fn cell_bytes(self) -> u64 {
        1 << self.cell_bits()
    }

    /// Whether a cell is a page or more.
    pub const fn has_pages(self) -> bool {
        self.0 >= 0
    }

    /// Tiles of address space.
    pub const fn tiles(self) -> u64 {
        1 << (ADDRESS_BITS - TILE_BITS - self.cell_bits())
    }

    /// The cells of a tile.
    pub(super) const fn cells(tile: u64) -> Range<u64> {
        tile << TILE_BITS..(tile + 1) << TILE_BITS
    }

    /// The addresses of cells.
    pub(super) const fn bytes(self, cells: &Range<u64>) -> Range<u64> {
        cells.start << self.cell_bits()..cells.end << self.cell_bits()
    }

    /// The pages of a tile.
    pub(super) const fn pages(self, tile: u64) -> Range<u64> {
        let bytes = self.bytes(&Self::cells(tile));
        bytes.start >> PAGE_BITS..bytes.end >> PAGE_BITS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_their_modes() {
        for (mode, name) in Mode::ALL {
            assert_eq!((mode.name(), Mode::from_name(name)), (name, Some(mode)));
        }
        assert_eq!(Mode::from_name("Heat"), None);
    }

    #[test]
    fn levels_are_four_times_apart() {
        let bytes = |level| Level::new(level).expect("a level").cell_bytes();
        assert_eq!([-4, -1, 0, 1, 12].map(bytes), [16, 1024, 4096, 16384, 64 << 30]);
        assert_eq!((Level::new(-5), Level::new(13)), (None, None));
        let lowest = Level::new(-4).expect("a level");
        assert_eq!(lowest.pages(3), 48..64);
        assert_eq!(Level::new(0).expect("a level").bytes(&(2..4)), 8192..16384);
    }
}
