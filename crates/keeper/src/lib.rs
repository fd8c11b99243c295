//! The launcher, which forks a keeper for each container; the keepers, parents of the containers'
//! processes and writers of their logs; and what they say to the daemon. Synchronous.

pub mod foreign;
pub mod framing;
pub mod keeper;
pub mod launcher;
pub mod log;
pub mod protocol;
