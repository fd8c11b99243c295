//! Giving memory back to the kernel.

/// Returns the allocator's free pages to the kernel. A keeper calls it after its start and when
/// a burst of output is over, because it then waits for days with what it still holds.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: `malloc_trim` takes the allocator's own locks and touches free memory only.
    unsafe {
        libc::malloc_trim(0);
    }
}
