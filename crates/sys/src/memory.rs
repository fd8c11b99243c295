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

/// Takes what the program never writes of itself, its code and constants, out of the memory that
/// it has mapped. The kernel maps far more of the file than is used (16 pages around each that is
/// touched), and a start touches much that is never needed again. What is needed comes back from
/// the page cache by itself, for about a microsecond for each 16 pages.
pub fn unmap_program() {
    // SAFETY: `unmap_segments` is called by the loader with valid arguments, here and now only.
    unsafe {
        libc::dl_iterate_phdr(Some(unmap_segments), std::ptr::null_mut());
    }
}

/// For the first object, which is the program itself; the value ends the iteration.
unsafe extern "C" fn unmap_segments(
    object: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    _data: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: dl_iterate_phdr hands over a valid description, for the time of this call.
    let object = unsafe { &*object };
    // SAFETY: the description's program headers are `dlpi_phnum` in number, and live as long as
    // the program.
    let headers =
        unsafe { std::slice::from_raw_parts(object.dlpi_phdr, usize::from(object.dlpi_phnum)) };
    for header in headers {
        if header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0 {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "addresses of this program, in whatever width it has"
            )]
            let (start, length) = (
                (object.dlpi_addr + header.p_vaddr) as usize,
                header.p_memsz as usize,
            );
            let page = rustix::param::page_size();
            let first = start & !(page - 1);
            // SAFETY: the pages are a segment that is mapped without the right to write, and was
            // so from the beginning (what the loader relocates lies in segments with PF_W), so
            // every page is that of the file, and is read again when it is touched.
            unsafe {
                libc::madvise(
                    first as *mut libc::c_void,
                    start + length - first,
                    libc::MADV_DONTNEED,
                );
            }
        }
    }
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    static CONSTANTS: [u8; 3 * 4096] = [7; 3 * 4096];

    #[test]
    fn code_and_constants_come_back() {
        let sum = || CONSTANTS.iter().map(|&byte| u32::from(byte)).sum::<u32>();
        let before = sum();
        unmap_program();
        assert_eq!(sum(), before);
        assert_eq!(format!("{:?}", std::path::Path::new("x")), "\"x\"");
    }
}
