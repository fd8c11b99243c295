//! What is written to a cgroup, as data, and what of its present state decides about that.

use oci_spec::runtime::{LinuxMemory, LinuxResources};

use crate::error::Error;

/// A value and the file that it is written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    /// Only means something in version 1.
    pub controller: &'static str,
    pub file: String,
    pub value: String,
    /// A kernel without this file is fine.
    pub optional: bool,
    /// What the kernel refuses as it stands, it may take after the settings that follow.
    pub again: bool,
}

/// What of a cgroup's present state decides about what is written to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Now {
    pub memory_limit: Option<i64>,
    pub memory_usage: Option<i64>,
    /// The block scheduler BFQ has files of its own.
    pub has_bfq: bool,
}

/// Where a version has what [`Now`] holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Files {
    pub memory_limit: &'static str,
    pub memory_usage: &'static str,
    pub bfq_weight: &'static str,
}

impl Setting {
    pub fn new(controller: &'static str, file: &str, value: impl ToString) -> Self {
        Self {
            controller,
            file: file.to_owned(),
            value: value.to_string(),
            optional: false,
            again: false,
        }
    }

    pub fn optional(self) -> Self {
        Self {
            optional: true,
            ..self
        }
    }

    pub fn again(self) -> Self {
        Self {
            again: true,
            ..self
        }
    }
}

impl Now {
    /// `checkBeforeUpdate`: the kernel would kill processes until a lower limit holds.
    pub fn check_memory(&self, memory: &LinuxMemory) -> Result<(), Error> {
        let limit = memory.limit().filter(|&limit| limit > 0);
        match (memory.check_before_update(), limit, self.memory_usage) {
            (Some(true), Some(limit), Some(usage)) if limit < usage => Err(Error::invalid(
                format!("rejecting memory limit {limit} < usage {usage}"),
            )),
            _ => Ok(()),
        }
    }
}

/// The lines of `rdma.max`, one a device, sorted.
pub(super) fn rdma(resources: &LinuxResources) -> Vec<String> {
    let number = |value: Option<u32>| value.map_or("max".to_owned(), |value| value.to_string());
    let devices = resources.rdma().iter().flatten();
    let mut lines: Vec<String> = devices
        .map(|(device, limits)| {
            let (handles, objects) = (limits.hca_handles(), limits.hca_objects());
            let (handles, objects) = (number(handles), number(objects));
            format!("{device} hca_handles={handles} hca_objects={objects}")
        })
        .collect();
    lines.sort();
    lines
}
