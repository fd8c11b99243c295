//! System call filters: the default profile as data.

mod profile;

pub use profile::default_profile;
