//! The five phases: a program that starts, ages, wants much at once, works, and ends.

use super::stage::{Halt, Role, Stage};
use std::time::Duration;

/// How long a step is seen at speed 1.
const LONG: Duration = Duration::from_millis(500);
const SHORT: Duration = Duration::from_millis(250);

pub(super) fn run(stage: &mut Stage<'_>) -> Result<(), Halt> {
    // By the arena's size, so that it can be seen in any.
    let handful = stage.capacity().div_ceil(64 << 10);

    for _ in 0..10 {
        for _ in 0..handful {
            let role = if stage.below(3) == 0 { Role::Connection } else { Role::Session };
            let size = stage.size(64, 4096);
            stage.allocate(role, size);
        }
        stage.step(SHORT)?;
    }
    stage.say("startup");

    stage.free_every_other()?;
    stage.step(LONG)?;
    stage.say("fragmentation");

    for part in [64, 48, 32, 24, 16, 12, 8, 6, 4, 3] {
        let size = stage.capacity() / part;
        stage.allocate(Role::Buffer, size);
        stage.step(LONG)?;
    }
    stage.say("large blocks");

    for _ in 0..40 {
        for _ in 0..2 * handful {
            // Around half full, wherever it began.
            if stage.below(stage.capacity()) > stage.used() {
                let size = stage.size(32, 4096);
                let role = if stage.below(2) == 0 { Role::Request } else { Role::Response };
                stage.allocate(role, size);
            } else {
                stage.free_any()?;
            }
        }
        stage.step(SHORT)?;
    }
    stage.say("churn");

    let each = stage.live.len().div_ceil(10).max(1);
    while !stage.live.is_empty() {
        for _ in 0..each {
            stage.free_any()?;
        }
        stage.step(SHORT)?;
    }
    stage.say("cleanup");
    Ok(())
}
