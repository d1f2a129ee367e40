//! Oracle of deflate streams: decoded, split, merged, made by a model of zlib.

/// After a first byte of 0 a stream, after 1 the parts of one, else plain bytes.
pub fn deflate(data: &[u8]) -> bool {
    distedge::delta::judge_deflate(data)
}
