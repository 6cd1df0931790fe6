//! Functions by address.

use super::elf::{Elf, Symbol, SymbolTable};

/// How many functions before an address are asked whether they hold it: one may lie within another.
const NEARBY: usize = 8;
/// Names of one function that are compared.
const ALIASES: usize = 16;

/// A function as the table keeps it: 16 bytes, since a large program has a million.
#[derive(Clone, Copy, Debug)]
struct Entry {
    address: u64,
    /// 0 when the file does not say.
    size: u32,
    name: u32,
}

/// The functions of a file, upwards. Their names stay in the file until they are asked for.
#[derive(Debug)]
pub(super) struct Table {
    entries: Vec<Entry>,
    names: SymbolTable,
}

impl Table {
    /// The functions of a symbol table; `None` when there are none, or more than `room`.
    pub(super) fn read(elf: &Elf, table: &SymbolTable, room: usize) -> Option<Self> {
        let mut symbols: Vec<Symbol> = Vec::new();
        elf.functions(table, |symbol| {
            symbols.push(symbol);
            symbols.len() <= room
        });
        if symbols.is_empty() || symbols.len() > room {
            return None;
        }
        // Of names for the same function, those that others link to come first.
        symbols.sort_by_key(|symbol| {
            let rank = match symbol.binding {
                1 => 0,
                2 => 1,
                _ => 2,
            };
            (symbol.address, symbol.size == 0, rank)
        });
        let entry = |symbol: &Symbol| Entry {
            address: symbol.address,
            size: u32::try_from(symbol.size).unwrap_or(u32::MAX),
            name: symbol.name,
        };
        Some(Self { entries: symbols.iter().map(entry).collect(), names: table.clone() })
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The mangled name of the function that holds an address, and its own address.
    pub(super) fn find(&self, elf: &Elf, address: u64) -> Option<(Vec<u8>, u64)> {
        let behind = self.entries.partition_point(|entry| entry.address <= address);
        let mut end = behind;
        for number in 0..NEARBY {
            let start = self.entries.get(end.checked_sub(1)?)?.address;
            let first = self.entries[..end].partition_point(|entry| entry.address < start);
            let aliases = &self.entries[first..end];
            // One without a size goes to the next function, and never holds another.
            let holds = |entry: &Entry| match entry.size {
                0 => number == 0,
                size => address - start < u64::from(size),
            };
            let mut names: Vec<Vec<u8>> = aliases
                .iter()
                .filter(|entry| holds(entry))
                .take(ALIASES)
                .filter_map(|entry| elf.name(&self.names, entry.name))
                .filter(|name| !name.is_empty())
                .collect();
            // The sort is stable: what stands first in the table wins among equals.
            names.sort_by_key(|name| name.iter().take_while(|&&byte| byte == b'_').count());
            if let Some(name) = names.into_iter().next() {
                return Some((name, start));
            }
            end = first;
        }
        None
    }
}
