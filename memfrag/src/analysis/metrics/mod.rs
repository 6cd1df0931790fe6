//! Measures of fragmentation.
//!
//! A measure is `None` where what it needs is missing or where it has no meaning: nothing is ever guessed.
//!
//! | module | measures |
//! |---|---|
//! | [`ratios`] | of two sums: internal, overhead, realized, at the end |

pub mod ratios;
