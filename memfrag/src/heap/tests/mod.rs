//! Golden cases for each rule, and the comparison with a naive oracle.

mod language;
mod oracle;
mod reconcile;
mod rules;
