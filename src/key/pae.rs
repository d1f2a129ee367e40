//! DSSE's pre-authentication encoding: what is signed.

/// The pre-authentication encoding of DSSE 1.0.2.
///
/// `PAE(type, body) = "DSSEv1" + SP + LEN(type) + SP + type + SP + LEN(body) + SP + body`
pub fn pae(payload_type: &str, body: &[u8]) -> Vec<u8> {
    pae_parts(payload_type, &[body])
}

/// The same encoding of several parts, each led by its length: no two lists of parts meet in one
/// encoding. For one part it is [`pae`].
pub fn pae_parts(payload_type: &str, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len() + 21).sum();
    let mut out = Vec::with_capacity(payload_type.len() + 32 + length);
    out.extend_from_slice(format!("DSSEv1 {} {payload_type}", payload_type.len()).as_bytes());
    for part in parts {
        out.extend_from_slice(format!(" {} ", part.len()).as_bytes());
        out.extend_from_slice(part);
    }
    out
}

/// What stands before a body of `length` bytes.
pub(crate) fn pae_head(payload_type: &str, length: usize) -> String {
    format!("DSSEv1 {} {payload_type} {length} ", payload_type.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_part_is_the_encoding_of_the_specification() {
        assert_eq!(
            pae("http://example.com/HelloWorld", b"hello world"),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
        assert_eq!(pae("t", b"body"), [pae_head("t", 4).as_bytes(), b"body"].concat());
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_ne!(pae_parts("t", &[b"ab", b"c"]), pae_parts("t", &[b"a", b"bc"]));
        assert_ne!(pae_parts("t", &[b"a 1 b"]), pae_parts("t", &[b"a", b"b"]));
    }
}
