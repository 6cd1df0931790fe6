//! Patterns that press an allocator.

use super::stage::{Halt, Role, Stage};
use memfrag::report::units::count;
use std::time::Duration;

/// How long a step is seen at speed 1.
const STEP: Duration = Duration::from_millis(250);

/// Bursts of 200 operations on blocks of 16 B to 2 KiB, three allocations to two frees.
pub(super) fn random_burst(stage: &mut Stage<'_>) -> Result<(), Halt> {
    for burst in 1..=10 {
        for _ in 0..200 {
            if stage.below(5) < 3 {
                let size = stage.size(16, 2048);
                stage.allocate(Role::Request, size);
            } else {
                stage.free_any()?;
            }
        }
        stage.step(STEP)?;
        stage.say(&format!("burst {burst}"));
    }
    cleanup(stage)
}

/// Fills the arena with blocks of 128 bytes and frees every other one: half is free, and nothing larger fits.
pub(super) fn frag_storm(stage: &mut Stage<'_>) -> Result<(), Halt> {
    let steps = 10;
    let total = stage.capacity() / 128;
    for _ in 0..steps {
        for _ in 0..total.div_ceil(steps) {
            if stage.used() + 128 > stage.capacity() || !stage.allocate(Role::Crumb, 128) {
                break;
            }
        }
        stage.step(STEP)?;
    }
    stage.say("filled");
    stage.free_every_other()?;
    stage.step(STEP * 4)?;
    stage.say("every other freed");
    for size in [256, 1024, 4096] {
        stage.allocate(Role::Buffer, size);
    }
    stage.step(STEP)?;
    stage.say("larger ones tried");
    cleanup(stage)
}

/// Blocks of 256 B to 128 KiB until one does not fit; then a third of them goes, again and again.
pub(super) fn large_blocks(stage: &mut Stage<'_>) -> Result<(), Halt> {
    for round in 1..=8 {
        loop {
            let size = stage.size(256, 128 << 10);
            if !stage.allocate(Role::Buffer, size) {
                break;
            }
            // Not each block by itself where there are thousands.
            if stage.live.len().is_multiple_of(8) {
                stage.step(STEP / 10)?;
            }
        }
        stage.step(STEP)?;
        stage.say(&format!("round {round}, full"));
        for _ in 0..stage.live.len().div_ceil(3) {
            stage.free_any()?;
        }
        stage.step(STEP)?;
    }
    cleanup(stage)
}

/// Requests one after the other, each with a response; one in twenty leaves a session behind.
pub(super) fn steady(stage: &mut Stage<'_>) -> Result<(), Halt> {
    for tenth in 1..=10 {
        for _ in 0..10 {
            serve(stage, 10)?;
            stage.step(STEP / 5)?;
        }
        stage.say(&format!("{} requests", count(tenth * 100)));
    }
    cleanup(stage)
}

/// More requests at once from step to step.
pub(super) fn ramp(stage: &mut Stage<'_>) -> Result<(), Halt> {
    for step in 1..=20 {
        serve(stage, step * 10)?;
        stage.step(STEP)?;
        if step % 4 == 0 {
            stage.say(&format!("{} at once", step * 10));
        }
    }
    cleanup(stage)
}

/// Steady requests, with a burst now and then and a large buffer between.
pub(super) fn mixed(stage: &mut Stage<'_>) -> Result<(), Halt> {
    for round in 1..=10 {
        for _ in 0..10 {
            serve(stage, 10)?;
            stage.step(STEP / 10)?;
        }
        let large = stage.capacity() / 16;
        let size = stage.size(4096.min(large), large);
        stage.allocate(Role::Buffer, size);
        serve(stage, 200)?;
        stage.step(STEP)?;
        stage.say(&format!("round {round}"));
        if round % 3 == 0 {
            stage.free_every_other()?;
        }
    }
    cleanup(stage)
}

/// So many requests that are under way together. Their responses are freed in any order.
fn serve(stage: &mut Stage<'_>, together: usize) -> Result<(), Halt> {
    let before = stage.live.len();
    for _ in 0..together {
        let (request, response) = (stage.size(64, 1024), stage.size(128, 8192));
        stage.allocate(Role::Request, request);
        stage.allocate(Role::Response, response);
    }
    while stage.live.len() > before {
        let young = (stage.live.len() - before) as u64;
        let at = before + stage.below(young) as usize;
        stage.free(at)?;
    }
    for _ in 0..together.div_ceil(20) {
        let size = stage.size(64, 512);
        stage.allocate(Role::Session, size);
    }
    Ok(())
}

/// Frees what is left.
fn cleanup(stage: &mut Stage<'_>) -> Result<(), Halt> {
    let each = stage.live.len().div_ceil(10).max(1);
    while !stage.live.is_empty() {
        for _ in 0..each {
            stage.free_any()?;
        }
        stage.step(STEP)?;
    }
    stage.say("cleanup");
    Ok(())
}
