//! Policies for one process of a recording.

use super::choice::{Choice, Setting};
use super::lifetimes::Lifetimes;
use super::policy::Policy;
use super::tree::Factory;
use crate::heap::Heaps;
use std::collections::HashMap;

/// Which policies a process's heap is to be under. Each [`Factory`] of a recipe makes the same ones.
#[derive(Clone, Debug)]
pub struct Recipe {
    pid: u32,
    wanted: HashMap<u32, Setting>,
    choices: Vec<&'static Choice>,
}

impl Recipe {
    /// For a process and those that it came from: what it inherited, its parents have done.
    pub fn new(heaps: &Heaps, pid: u32, setting: &Setting, choices: Vec<&'static Choice>) -> Self {
        let mut wanted = HashMap::from([(pid, setting.clone())]);
        let processes = heaps.processes();
        let mut at = heaps.index_of(pid);
        while let Some(parent) = at.and_then(|at| processes[at].parent()) {
            wanted.insert(processes[parent].pid(), setting.clone());
            at = Some(parent).filter(|&parent| processes[parent].parent() < Some(parent));
        }
        Self { pid, wanted, choices }
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// What makes the policies.
    pub fn factory(&self) -> Factory {
        let Self { wanted, choices, .. } = self.clone();
        Box::new(move |pid, _| {
            let setting = wanted.get(&pid);
            setting.map_or_else(Vec::new, |setting| choices.iter().filter_map(|choice| choice.make(setting)).collect())
        })
    }

    /// What must be driven over the whole recording beforehand, for policies that know lifetimes; else `None`.
    pub fn learner(&self) -> Option<Factory> {
        if !self.choices.iter().any(|choice| choice.needs_lifetimes()) {
            return None;
        }
        let learnt: HashMap<u32, Lifetimes> =
            self.wanted.iter().map(|(&pid, setting)| (pid, setting.lifetimes.clone())).collect();
        let learner =
            move |pid, _| -> Vec<Box<dyn Policy>> { learnt.get(&pid).map(Lifetimes::learner).into_iter().collect() };
        Some(Box::new(learner))
    }
}
