//! The dashboard: recordings as they are watched, from their beginning to now.
//!
//! | module | job |
//! |---|---|
//! | [`source`] | a recording that the server has, whether it grows or not |
//! | [`player`] | a place in a recording that moves, and the heaps there |
//! | [`place`], [`states`] | what a player stands on, and what it can go back to |
//! | [`stage`] | a player that a thread moves and that many watch |
//! | [`tiles`] | the map of a heap: what pages see of it, and what they were sent |

pub mod place;
pub mod player;
pub mod source;
pub mod stage;
pub mod states;
pub mod tiles;
