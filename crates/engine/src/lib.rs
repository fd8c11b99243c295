//! Containers: one owner task each; exec, logs, events, restarts, volumes.
