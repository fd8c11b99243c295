//! Supervised task scopes, shutdown and back-off.
