//! One test: it passes, fails, or is skipped aloud with its reason.

use anyhow::Result;
use std::io::Write;

/// The error that a test returns when this machine cannot run it.
#[derive(Debug)]
pub struct Skip(pub String);

impl std::error::Error for Skip {}

impl std::fmt::Display for Skip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Leaves the test as skipped.
#[macro_export]
macro_rules! skip {
    ($($reason:tt)*) => {
        return Err($crate::case::Skip(format!($($reason)*)).into())
    };
}

/// Runs a test's body; panics when it fails.
///
/// A skip is printed, and written into the file that `MEMFRAG_SKIP_LOG` names, since libtest knows no skips: it
/// counts the test as passed, and `cargo xtask test` puts that right.
pub fn case(name: &str, body: impl FnOnce() -> Result<()>) {
    let Err(error) = body() else { return };
    let Some(Skip(reason)) = error.downcast_ref::<Skip>() else { panic!("{name}: {error:?}") };
    let line = format!("SKIP {name}: {reason}\n");
    eprint!("{line}");
    if let Some(path) = std::env::var_os("MEMFRAG_SKIP_LOG") {
        let log = std::fs::OpenOptions::new().append(true).create(true).open(&path);
        log.and_then(|mut log| log.write_all(line.as_bytes())).expect("the file of skipped tests cannot be written");
    }
}

/// Whether the long form of the tests was asked for (`cargo xtask test --long`).
pub fn long() -> bool {
    std::env::var_os("MEMFRAG_LONG").is_some()
}

/// Declares a test for each of the functions named.
#[macro_export]
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        mod case {
            $(#[test] fn $name() { $crate::case::case(concat!(module_path!(), "::", stringify!($name)), super::$name) })*
        }
    };
}

/// Declares two tests for each of the functions named, one for each backend.
#[macro_export]
macro_rules! tests_on_both {
    ($($name:ident),* $(,)?) => {
        mod ebpf {
            $(#[test] fn $name() {
                $crate::case::case(concat!(module_path!(), "::", stringify!($name)), || {
                    $crate::memfrag::Backend::Ebpf.require()?;
                    super::$name($crate::memfrag::Backend::Ebpf)
                });
            })*
        }
        mod preload {
            $(#[test] fn $name() {
                $crate::case::case(concat!(module_path!(), "::", stringify!($name)), || {
                    $crate::memfrag::Backend::Preload.require()?;
                    super::$name($crate::memfrag::Backend::Preload)
                });
            })*
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skip_is_no_failure() {
        fn body() -> Result<()> {
            skip!("no {}", "moon")
        }
        let error = body().unwrap_err();
        assert_eq!(error.downcast_ref::<Skip>().unwrap().0, "no moon");
        case("passes", || Ok(()));
    }

    #[test]
    #[should_panic(expected = "broken")]
    fn a_failure_is_one() {
        case("fails", || anyhow::bail!("broken"));
    }
}
