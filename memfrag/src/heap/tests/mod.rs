//! Golden cases for each rule, and the comparison with a naive oracle.

mod language;
mod oracle;
mod past;
mod reconcile;
mod rules;
