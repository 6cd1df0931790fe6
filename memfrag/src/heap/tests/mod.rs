//! Golden cases and the comparison with a naive oracle.
