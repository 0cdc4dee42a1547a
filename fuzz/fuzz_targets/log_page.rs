#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| stas_fuzz::log_page(data));
