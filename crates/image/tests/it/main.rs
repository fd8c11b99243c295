//! The image store on a real file system, as root: unpacking, archives, names, recovery.

mod archives;
mod layers;
mod names;
mod recovery;
mod support;
