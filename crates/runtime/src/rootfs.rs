//! The container's root file system: the overlay, the mounts in it, devices and masks.

pub mod assemble;
pub(crate) mod cgroups;
pub(crate) mod copyup;
pub(crate) mod devices;
pub(crate) mod file_systems;
pub(crate) mod masks;
pub(crate) mod mounts;
pub(crate) mod options;
pub mod overlay;
pub mod path;
