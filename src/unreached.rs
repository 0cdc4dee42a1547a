//! What std and glibc bring into a static binary without ever running it here, cut off where it is entered: 0.37 MB.
//!
//! Each function stands for one of the same name in libgcc or glibc, which the linker then has no reason to take out of its
//! archive, nor what hangs on it. All are part of their public interface (the unwinder's of the C++ ABI, `__assert_fail` of the
//! LSB), and all that changes is said at each. Only the static build has them: `init/static`.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::io::Write;

use nix::libc;

/// "This was the last frame", before the first one: a panic says its message and its place, and has no backtrace, whatever
/// RUST_BACKTRACE says. A stripped binary has no names to show anyway, and std's reader of debug information is left out.
// SAFETY: of these and the following names: they have the signatures that their callers declare.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Backtrace(_each: *const c_void, _data: *mut c_void) -> c_int {
    const END_OF_STACK: c_int = 5;
    END_OF_STACK
}

/// Not reached: to resume unwinding, somebody must have begun.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume(_exception: *mut c_void) -> ! {
    std::process::abort();
}

/// What the unwinder's callbacks would ask it. Not reached: nothing calls them back.
macro_rules! unasked {
    ($($name:ident($($argument:ty),*) $(-> $answer:ty)?;)*) => {
        $(#[unsafe(no_mangle)]
        extern "C" fn $name($(_: $argument),*) $(-> $answer)? {
            std::process::abort();
        })*
    };
}

unasked! {
    _Unwind_GetIP(*mut c_void) -> usize;
    _Unwind_GetIPInfo(*mut c_void, *mut c_int) -> usize;
    _Unwind_GetCFA(*mut c_void) -> usize;
    _Unwind_GetRegionStart(*mut c_void) -> usize;
    _Unwind_GetLanguageSpecificData(*mut c_void) -> *mut c_void;
    _Unwind_GetTextRelBase(*mut c_void) -> usize;
    _Unwind_GetDataRelBase(*mut c_void) -> usize;
    _Unwind_FindEnclosingFunction(*mut c_void) -> *mut c_void;
    _Unwind_SetGR(*mut c_void, c_int, usize);
    _Unwind_SetIP(*mut c_void, usize);
}

/// glibc found itself broken (a damaged heap): the same message, but without its translation, for which it would load message
/// catalogues, character sets and shared libraries.
#[unsafe(no_mangle)]
extern "C" fn __assert_fail(what: *const c_char, file: *const c_char, line: c_uint, _function: *const c_char) -> ! {
    // SAFETY: assert(3) hands over string literals.
    let text = |text: *const c_char| unsafe { CStr::from_ptr(text) }.to_string_lossy();
    let _ = writeln!(std::io::stderr(), "{}:{line}: Assertion `{}' failed.", text(file), text(what));
    std::process::abort();
}

/// std asks where the main thread's stack ends, to say "stack overflow" when that is where it faults. The answer would be read
/// from /proc/self/maps with scanf(3). Without, a stack overflow ends in a plain SIGSEGV.
#[unsafe(no_mangle)]
extern "C" fn pthread_getattr_np(_thread: libc::pthread_t, _attributes: *mut libc::pthread_attr_t) -> c_int {
    libc::ENOSYS
}
