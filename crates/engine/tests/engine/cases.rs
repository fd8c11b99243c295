//! What has to hold, by subject.

use crate::Case;

mod lifecycle;
mod network;
mod streams;
mod survival;
mod views;

/// Every case, in the order in which they run.
pub fn all() -> impl Iterator<Item = &'static Case> {
    [
        lifecycle::ALL,
        streams::ALL,
        survival::ALL,
        views::ALL,
        network::ALL,
    ]
    .into_iter()
    .flatten()
}
