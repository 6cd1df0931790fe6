//! The binary frames of map cells; `docs/PROTOCOL.md` describes them to the byte.

use super::mode::{Level, TILE_CELLS};

/// The frame's type.
const TILES: u8 = 1;
/// Where the number of tiles stands.
const COUNT: usize = 16;

const FULL: u8 = 0;
const SPARSE: u8 = 1;
const UNIFORM: u8 = 2;

/// The cells of a tile.
pub(super) type Tile = [u8; TILE_CELLS];

/// A frame under way.
#[derive(Debug)]
pub(super) struct Writer {
    bytes: Vec<u8>,
    tiles: u32,
}

impl Writer {
    pub(super) fn new(level: Level, view: u16, seq: u32, time: u64) -> Self {
        let mut bytes = vec![TILES, level.number().cast_unsigned()];
        bytes.extend(view.to_le_bytes());
        bytes.extend(seq.to_le_bytes());
        bytes.extend(time.to_le_bytes());
        bytes.extend([0; 4]);
        Self { bytes, tiles: 0 }
    }

    pub(super) fn tiles(&self) -> u32 {
        self.tiles
    }

    /// Adds what has changed of a tile, in the shortest way. False when that would make the frame longer than `most`
    /// bytes; a first tile always has room.
    pub(super) fn add(&mut self, number: u64, before: &Tile, after: &Tile, most: usize) -> bool {
        let changed = before.iter().zip(after).filter(|(before, after)| before != after).count();
        if changed == 0 {
            return true;
        }
        let is_uniform = after.iter().all(|&cell| cell == after[0]);
        let (code, length) = match 2 + 3 * changed {
            _ if is_uniform => (UNIFORM, 1),
            length if length < TILE_CELLS => (SPARSE, length),
            _ => (FULL, TILE_CELLS),
        };
        if self.tiles > 0 && self.bytes.len() + 9 + length > most {
            return false;
        }
        self.bytes.extend(number.to_le_bytes());
        self.bytes.push(code);
        match code {
            UNIFORM => self.bytes.push(after[0]),
            FULL => self.bytes.extend_from_slice(after),
            _ => {
                self.bytes.extend((changed as u16).to_le_bytes());
                for (cell, (_, value)) in
                    before.iter().zip(after).enumerate().filter(|(_, (before, after))| before != after)
                {
                    self.bytes.extend((cell as u16).to_le_bytes());
                    self.bytes.push(*value);
                }
            }
        }
        self.tiles += 1;
        true
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.bytes[COUNT..COUNT + 4].copy_from_slice(&self.tiles.to_le_bytes());
        self.bytes
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    /// What a page makes of frames: the tiles of a view.
    #[derive(Debug, Default)]
    pub(in super::super) struct Page {
        pub(in super::super) view: u16,
        pub(in super::super) tiles: HashMap<u64, Tile>,
    }

    fn take<const N: usize>(bytes: &mut &[u8]) -> [u8; N] {
        let (head, tail) = bytes.split_first_chunk().expect("cut short");
        *bytes = tail;
        *head
    }

    impl Page {
        /// Applies a frame; gives its level, number and time.
        pub(in super::super) fn apply(&mut self, mut bytes: &[u8]) -> (i8, u32, u64) {
            let [kind, level] = take(&mut bytes);
            assert_eq!(kind, TILES);
            let view = u16::from_le_bytes(take(&mut bytes));
            if view != self.view {
                *self = Self { view, ..Self::default() };
            }
            let seq = u32::from_le_bytes(take(&mut bytes));
            let time = u64::from_le_bytes(take(&mut bytes));
            for _ in 0..u32::from_le_bytes(take(&mut bytes)) {
                let number = u64::from_le_bytes(take(&mut bytes));
                let cells = self.tiles.entry(number).or_insert([0; TILE_CELLS]);
                match take(&mut bytes) {
                    [FULL] => *cells = take(&mut bytes),
                    [SPARSE] => {
                        for _ in 0..u16::from_le_bytes(take(&mut bytes)) {
                            let cell = u16::from_le_bytes(take(&mut bytes));
                            [cells[usize::from(cell)]] = take(&mut bytes);
                        }
                    }
                    [UNIFORM] => *cells = [take::<1>(&mut bytes)[0]; TILE_CELLS],
                    other => panic!("unknown code {other:?}"),
                }
            }
            assert!(bytes.is_empty(), "{} bytes too many", bytes.len());
            (level.cast_signed(), seq, time)
        }
    }

    fn tile() -> impl Strategy<Value = Tile> {
        let patches = prop::collection::vec((0..TILE_CELLS, 0..2000_usize, any::<u8>()), 0..5);
        (0..3_u8, patches).prop_map(|(ground, patches)| {
            let mut tile = [ground; TILE_CELLS];
            for (start, length, value) in patches {
                tile[start..TILE_CELLS.min(start + length)].fill(value);
            }
            tile
        })
    }

    proptest! {
        #[test]
        fn a_page_gets_what_was_drawn(tiles in prop::collection::vec((0..4_u64, tile()), 1..12), most in 0..20_000_usize) {
            let mut page = Page { view: 9, ..Page::default() };
            let mut drawn: HashMap<u64, Tile> = HashMap::new();
            for (seq, some) in (0..).zip(tiles.chunks(3)) {
                let mut writer = Writer::new(Level::new(-2).expect("a level"), 9, seq, u64::MAX - 7);
                for (number, tile) in some {
                    let before = drawn.get(number).copied().unwrap_or([0; TILE_CELLS]);
                    if writer.add(*number, &before, tile, most) {
                        drawn.insert(*number, *tile);
                    }
                }
                let longest = most.max(20 + 9 + TILE_CELLS);
                let tiles = writer.tiles();
                let bytes = writer.finish();
                prop_assert!(bytes.len() <= longest && tiles <= 3);
                prop_assert_eq!(page.apply(&bytes), (-2, seq, u64::MAX - 7));
            }
            drawn.retain(|number, tile| page.tiles.contains_key(number) || *tile != [0; TILE_CELLS]);
            prop_assert_eq!(page.tiles, drawn);
        }
    }

    #[test]
    fn the_shortest_code_is_taken() {
        let length = |before: &Tile, after: &Tile| {
            let mut writer = Writer::new(Level::new(0).expect("a level"), 1, 2, 3);
            assert!(writer.add(7, before, after, 0));
            writer.finish().len() - 20
        };
        let blank = [0; TILE_CELLS];
        let mut one = blank;
        one[4095] = 200;
        let mut many = one;
        many[..1365].fill(3);
        assert_eq!(length(&blank, &blank), 0);
        assert_eq!(length(&blank, &one), 9 + 2 + 3);
        assert_eq!(length(&one, &blank), 9 + 1);
        assert_eq!(length(&blank, &many), 9 + 4096);
    }
}
