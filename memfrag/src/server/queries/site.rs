//! Call sites as they go out.

use super::parameters::Address;
use crate::report::sites::{CallSite, Sites};
use serde::Serialize;
use std::collections::HashMap;

/// A call site. What is unknown is null; `site` is always a text to show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(clippy::struct_field_names, reason = "the names are those of the protocol")]
pub(super) struct Site {
    pub(super) site: String,
    pub(super) address: Option<Address>,
    pub(super) module: Option<String>,
    pub(super) offset: Option<u64>,
    pub(super) function: Option<String>,
    pub(super) file: Option<String>,
    pub(super) line: Option<u32>,
}

/// The call site of something that has an address of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Origin {
    site: String,
    site_address: Option<Address>,
    module: Option<String>,
    offset: Option<u64>,
    function: Option<String>,
    file: Option<String>,
    line: Option<u32>,
}

impl Site {
    /// Of what has none: a text about it.
    pub(super) fn none(text: &str) -> Self {
        let site = text.to_owned();
        Self { site, address: None, module: None, offset: None, function: None, file: None, line: None }
    }

    /// Of blocks that no event told of.
    pub(super) fn older() -> Self {
        Self::none("(blocks older than the trace)")
    }
}

impl From<CallSite> for Site {
    fn from(found: CallSite) -> Self {
        let CallSite { site, address, module, offset, function, file, line } = found;
        Self { site, address: Some(Address(address)), module, offset, function, file, line }
    }
}

impl From<Site> for Origin {
    fn from(found: Site) -> Self {
        let Site { site, address, module, offset, function, file, line } = found;
        Self { site, site_address: address, module, offset, function, file, line }
    }
}

/// Names sites, each only once.
#[derive(Debug)]
pub(super) struct Namer<'a> {
    sites: Sites<'a>,
    known: HashMap<u64, Site>,
}

impl<'a> Namer<'a> {
    pub(super) fn new(sites: Sites<'a>) -> Self {
        Self { sites, known: HashMap::new() }
    }

    /// What the frames of a stack are called, the innermost first; `None` when none was recorded.
    pub(super) fn stack(&mut self, number: u32) -> Option<Vec<String>> {
        let (addresses, complete) = self.sites.stack(number);
        if addresses.is_empty() {
            return None;
        }
        let name = |site: Site| site.function.unwrap_or(site.site);
        let mut names: Vec<String> = addresses.into_iter().map(|address| name(self.name(address))).collect();
        if !complete {
            names.push("(callers unknown)".to_owned());
        }
        Some(names)
    }

    /// The frames of a stack, the innermost first; `None` when none was recorded.
    pub(super) fn frames(&mut self, number: u32) -> Option<Vec<Site>> {
        let (addresses, complete) = self.sites.stack(number);
        if addresses.is_empty() {
            return None;
        }
        let mut frames: Vec<Site> = addresses.into_iter().map(|address| self.name(address)).collect();
        if !complete {
            frames.push(Site::none("(callers unknown)"));
        }
        Some(frames)
    }

    /// The call that returns to an address.
    pub(super) fn name(&mut self, address: u64) -> Site {
        self.known.entry(address).or_insert_with(|| self.sites.find(address).into()).clone()
    }
}
