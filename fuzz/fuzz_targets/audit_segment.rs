#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    distedge_fuzz::audit_segment(data);
});
