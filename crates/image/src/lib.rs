//! Content-addressed blobs, layers, snapshots, archives and the distribution client.
//!
//! ```text
//! <root>/blobs/sha256/<hex>        what was pulled, loaded or imported, as it came
//! <root>/layers/<key>/fs           a layer's difference, unpacked, in overlayfs' form
//! <root>/layers/<key>/places-<…>   what containers find beside that layer and those below
//! <root>/snapshots/<container>/    upper and work directory of a container
//! <root>/ingest/                   what is being written; emptied at open
//! <root>/trash/                    what is being deleted, off everybody's path; emptied at open
//! store: images/<name>             which target a name points at
//! ```
//!
//! An image is its target: the manifest or index that a name points at, and its id is the digest of
//! that. Everything reachable from a name or from a container's snapshot stays, the rest goes.
//!
//! All functions block (on the disk, or on the store), none needs a runtime: async callers use a
//! blocking thread. Lookups ([`Images::resolve`], [`Images::list`]) only read memory once an image
//! was seen.

pub mod blobs;
pub mod changes;
pub mod commit;
pub mod difference;
pub mod distribution;
pub mod error;
pub mod import;
pub mod ingest;
pub mod inspect;
pub mod lease;
pub mod list;
pub mod load;
pub mod merged;
pub mod progress;
pub mod record;
pub mod remove;
pub mod resolve;
pub mod save;
pub mod shape;
pub mod snapshot;
pub mod tree;
pub mod unpack;

mod content;
mod images;
mod layers;
mod names;
mod places;
mod tar;
mod target;
mod trash;

pub use blobs::Blobs;
pub use commit::Commit;
pub use difference::{Change, ChangeKind};
pub use error::{Error, Kind, Result};
pub use images::Images;
pub use import::Import;
pub use ingest::{Ingest, Tail};
pub use lease::Lease;
pub use load::Loaded;
pub use progress::{Progress, Reporter};
pub use record::Wanted;
pub use remove::{Removed, Usage};
pub use resolve::Image;
pub use snapshot::Rootfs;
