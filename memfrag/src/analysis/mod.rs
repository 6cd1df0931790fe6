//! What the state of a heap means: pure functions of it.
//!
//! | module | job |
//! |---|---|
//! | [`metrics`] | measures of fragmentation, each by its formula |

pub mod metrics;
