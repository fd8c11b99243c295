//! The container's root file system: the overlay, the mounts in it, devices and masks.

pub mod overlay;
