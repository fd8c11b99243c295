//! Supervised task scopes, shutdown and back-off.
//!
//! Nothing is spawned into the void: every task belongs to a [`Scope`], which knows how many it
//! has, tells them when to end, and can be waited for. A task that panics is logged with its name.

pub mod backoff;
pub mod scope;

pub use backoff::Backoff;
pub use scope::{Scope, Shutdown};
