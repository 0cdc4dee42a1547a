#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| stas::core::tests::walk::walk(data));
