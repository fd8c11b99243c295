//! Names, ids, sizes, times, kernel parameters and the printer of error chains: small things that
//! every layer says the same way.

pub mod chain;
pub mod duration;
pub mod id;
pub mod name;
pub mod size;
pub mod sysctl;
pub mod time;

pub use chain::Chain;
pub use id::Id;
pub use time::Timestamp;
