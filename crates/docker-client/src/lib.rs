//! The Docker API from the caller's side.
