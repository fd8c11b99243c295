//! Kernel parameters by the namespace that they belong to.

/// The parameters of an IPC namespace that have no directory of their own.
const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// Whether a parameter, written with dots, is one of an IPC namespace (runc `validate.go`, docker
/// `opts.ValidateSysctl`).
pub fn is_ipc(name: &str) -> bool {
    IPC.contains(&name) || name.starts_with("fs.mqueue.")
}
