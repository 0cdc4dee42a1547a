//! Stands in for what libgcc and glibc have in a static binary that this one never runs, or needs far less of: 0.8 MB.
//!
//! Each name stands for one of theirs, which the linker then has no reason to take out of its archive, nor what hangs on it. All
//! are part of their public interface (the unwinder's of the C++ ABI, the others of the LSB or of glibc's list of exported
//! symbols), and all that changes is said at each. Only the static build has them: `init/static`.

use std::arch::global_asm;
use std::ffi::{CStr, c_char, c_int, c_long, c_uint, c_ulong, c_void};
use std::io::Write;
use std::ptr;

use nix::libc;

/// Names in C, and which function or variable of this file they are. They are weak: where a glibc takes the object that has one
/// of them for something else, its own comes with it and counts, and the file is larger.
macro_rules! stand_in {
    ($($($name:ident)+ => $ours:ident;)*) => {
        $($(global_asm!(
            concat!(".weak ", stringify!($name)),
            concat!(".set ", stringify!($name), ", {ours}"),
            ours = sym $ours,
        );)+)*
    };
}

stand_in! {
    // To resume unwinding, somebody must have begun; and nothing calls back those who would ask the unwinder.
    _Unwind_Resume _Unwind_GetIP _Unwind_GetIPInfo _Unwind_GetCFA _Unwind_GetRegionStart _Unwind_GetLanguageSpecificData
    _Unwind_GetTextRelBase _Unwind_GetDataRelBase _Unwind_FindEnclosingFunction _Unwind_SetGR _Unwind_SetIP => not_reached;

    // Without a locale, and nobody sets one, messages are not translated and characters not classified.
    __dcgettext => untranslated;
    __xpg_strerror_r => error_in_words;
    __assert_fail => assertion_failed;
    __ctype_init => nothing;
    strtol __isoc23_strtol => decimal;
    strtoul __isoc23_strtoul => unsigned_decimal;

    // stdio: for statistics that malloc prints when asked to, and last words about a broken netlink socket.
    fprintf __fprintf_chk fwrite _IO_fputs __snprintf __snprintf_chk => not_reached;
    stdin stdout stderr => NOT_OPEN;
    fork => plain_fork;

    // glibc has up to nine of each, one for the vector instructions of every kind of processor. What they are for here is at the
    // start, and short.
    strcmp => compare;
    strncmp => compare_at_most;
    strcpy => copy;
    stpcpy __stpcpy => copy_and_go_on;
    strncpy => copy_and_fill;
}

extern "C" fn not_reached() -> ! {
    std::process::abort();
}

extern "C" fn nothing() {}

static NOT_OPEN: usize = 0;

/// "This was the last frame", before the first one: a panic says its message and its place, and has no backtrace, whatever
/// RUST_BACKTRACE says. A stripped binary has no names to show anyway. By its own name, so that the compiler sees that std's
/// reader of debug information has nothing to do.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Backtrace(_each: *const c_void, _data: *mut c_void) -> c_int {
    const END_OF_STACK: c_int = 5;
    END_OF_STACK
}

/// std asks where the main thread's stack ends, to say "stack overflow" when that is where it faults. The answer would be read
/// from /proc/self/maps with scanf(3). Without, a stack overflow ends in a plain SIGSEGV. By its own name, as above.
#[unsafe(no_mangle)]
extern "C" fn pthread_getattr_np(_thread: libc::pthread_t, _attributes: *mut libc::pthread_attr_t) -> c_int {
    libc::ENOSYS
}

extern "C" fn untranslated(_domain: *const c_char, message: *mut c_char, _category: c_int) -> *mut c_char {
    message
}

/// strerror_r(3), for std: the same words, without a look for their translation.
extern "C" fn error_in_words(number: c_int, text: *mut c_char, size: usize) -> c_int {
    unsafe extern "C" {
        safe fn strerrordesc_np(number: c_int) -> *const c_char;
    }
    let meaning = strerrordesc_np(number);
    // SAFETY: a meaning is a string literal, or null; a buffer comes with its size.
    let (text, meaning) = unsafe {
        let text = std::slice::from_raw_parts_mut(text.cast::<u8>(), size);
        (text, meaning.as_ref().map(|meaning| CStr::from_ptr(meaning)))
    };
    text.fill(0);
    let Some((_end, mut text)) = text.split_last_mut() else {
        return libc::ERANGE;
    };
    let _ = match meaning {
        Some(meaning) => text.write_all(meaning.to_bytes()),
        None => write!(text, "Unknown error {number}"),
    };
    0
}

/// glibc found itself broken (a damaged heap), and says the same.
extern "C" fn assertion_failed(what: *const c_char, file: *const c_char, line: c_uint, _function: *const c_char) -> ! {
    // SAFETY: assert(3) hands over string literals.
    let text = |text: *const c_char| unsafe { CStr::from_ptr(text) }.to_string_lossy();
    let _ = writeln!(std::io::stderr(), "{}:{line}: Assertion `{}' failed.", text(file), text(what));
    std::process::abort();
}

/// strtoul(3) of a number in a file of the kernel (how many processors are there?): decimal digits, as many as there are.
extern "C" fn unsigned_decimal(text: *const c_char, end: *mut *const c_char, _base: c_int) -> c_ulong {
    // SAFETY: a string, and where to say where the number ends, if anybody wants to know.
    let (text, end) = unsafe { (CStr::from_ptr(text).to_bytes(), end.as_mut()) };
    let digits = text.iter().take_while(|digit| digit.is_ascii_digit());
    if let Some(end) = end {
        *end = text.as_ptr().wrapping_add(digits.clone().count()).cast();
    }
    digits.fold(0, |number, digit| number.saturating_mul(10).saturating_add((digit - b'0').into()))
}

extern "C" fn decimal(text: *const c_char, end: *mut *const c_char, base: c_int) -> c_long {
    unsigned_decimal(text, end, base).try_into().unwrap_or(c_long::MAX)
}

/// fork(2) as it is: there is a single thread, nothing is registered to run before or after it, and stdio's files, which glibc
/// would lock meanwhile, nobody has open.
extern "C" fn plain_fork() -> libc::pid_t {
    unsafe extern "C" {
        safe fn _Fork() -> libc::pid_t;
    }
    _Fork()
}

extern "C" fn compare(one: *const u8, other: *const u8) -> c_int {
    compare_at_most(one, other, usize::MAX)
}

extern "C" fn compare_at_most(one: *const u8, other: *const u8, most: usize) -> c_int {
    for place in 0..most {
        // SAFETY: of two strings, or so many bytes; neither has ended yet.
        let (one, other) = unsafe { (*one.add(place), *other.add(place)) };
        if one != other || one == 0 {
            return c_int::from(one) - c_int::from(other);
        }
    }
    0
}

extern "C" fn copy(to: *mut u8, from: *const c_char) -> *mut u8 {
    copy_and_go_on(to, from);
    to
}

extern "C" fn copy_and_go_on(to: *mut u8, from: *const c_char) -> *mut u8 {
    // SAFETY: a string, and room for it with its end, which the answer points to.
    unsafe {
        let from = CStr::from_ptr(from).to_bytes_with_nul();
        ptr::copy_nonoverlapping(from.as_ptr(), to, from.len());
        to.add(from.len() - 1)
    }
}

extern "C" fn copy_and_fill(to: *mut u8, from: *const u8, size: usize) -> *mut u8 {
    // SAFETY: as much room, and a string or as many bytes.
    unsafe {
        let length = (0..size).take_while(|&place| *from.add(place) != 0).count();
        ptr::copy_nonoverlapping(from, to, length);
        ptr::write_bytes(to.add(length), 0, size - length);
    }
    to
}
