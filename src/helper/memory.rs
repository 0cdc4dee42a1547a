//! Memory that is given back is overwritten first, all of it: keys pass through the configuration's text and its parser, the
//! settings, requests, packets and option strings, and none of these has to think of it.

use std::alloc::{GlobalAlloc, Layout, System};

use nix::libc;

#[global_allocator]
static MEMORY: Wiped = Wiped;

/// The system's allocator. What grows is moved, for the old place may hold keys too (the trait's own `realloc`).
struct Wiped;

// SAFETY: every call is the system allocator's own; a block is still ours when it is overwritten, and `layout.size()` long.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Wiped {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // Not `write_bytes`: the compiler knows that nobody reads what is freed.
        unsafe {
            libc::explicit_bzero(block.cast(), layout.size());
            System.dealloc(block, layout);
        }
    }
}
