//! An arena: a range of memory whose blocks are given out by first fit and watched from outside.
//!
//! It is a library of its own: a collection, or a whole program, can live in it, and everything that happens in it can be
//! seen. What its free list does to a program's events without any memory is the model of first fit.
//!
//! | module | job |
//! |---|---|
//! | `arena` | memory and its blocks, given out, taken back and resized |
//! | `tagged`, `global` | the arena as allocator of collections, and of a program |
//! | `backing`, `pages` | where the memory comes from, and that of the tables |
//! | `books` | which block lies where, and what was counted |
//! | `free_list`, `holes` | first fit over plain addresses: ranges taken and given back |
//! | `word`, `radix` | where holes begin, as bits; the tree over them that knows the largest |
//! | `block` | blocks, events, and events as a recording keeps them |
//! | `state`, `padding`, `lines` | what it holds, what rounding takes, how blocks lie on cache lines |
//! | `layout` | the padding within a type |
//! | `error` | what is refused, and why |

#[expect(clippy::module_inception, reason = "it is what the room is named for")]
mod arena;
mod backing;
mod block;
mod books;
mod error;
mod free_list;
mod global;
mod holes;
mod layout;
mod lines;
#[cfg(test)]
pub(crate) mod oracle;
mod padding;
mod pages;
mod radix;
mod state;
mod tagged;
#[cfg(test)]
mod tests;
mod word;

pub use arena::{Arena, Observer, Options};
pub use backing::{Backing, Buffer, Mapped};
pub use block::{Block, Event, Stamp, Tag};
pub use error::{AllocError, CreateError, FreeError, ResizeError};
pub use free_list::{FreeList, GRANULE, Hole, NotTaken};
pub use global::GlobalArena;
pub use layout::{Field, StructLayout};
pub use lines::{Line, Lines, cache_line};
pub use padding::{Padding, TagPadding};
pub use pages::Pages;
pub use state::{Figures, State};
pub use tagged::Tagged;
