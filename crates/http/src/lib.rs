//! Listeners, connectors, TLS and upgrades.
