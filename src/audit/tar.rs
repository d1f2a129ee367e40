//! As much of the tar format as an export needs (POSIX.1-2017 `pax`, *ustar Interchange Format*).

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom, Write};

/// The unit of a tar file.
const BLOCK: usize = 512;

/// Writes the head of a file of `length` bytes. `name` has at most 100 bytes.
pub(super) fn head(out: &mut dyn Write, name: &str, length: u64, mtime: i64) -> io::Result<()> {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, text: &[u8]| block[at..at + text.len()].copy_from_slice(text);
    put(0, &name.as_bytes()[..name.len().min(100)]);
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{length:011o}\0").as_bytes());
    put(136, format!("{:011o}\0", mtime.max(0)).as_bytes());
    put(148, b"        0");
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    out.write_all(&block)
}

/// Fills the last block of a file of `length` bytes.
pub(super) fn pad(out: &mut dyn Write, length: u64) -> io::Result<()> {
    let rest = (length % BLOCK as u64) as usize;
    if rest == 0 { Ok(()) } else { out.write_all(&[0; BLOCK][rest..]) }
}

/// Writes a whole file.
pub(super) fn file(out: &mut dyn Write, name: &str, bytes: &[u8], mtime: i64) -> io::Result<()> {
    head(out, name, bytes.len() as u64, mtime)?;
    out.write_all(bytes)?;
    pad(out, bytes.len() as u64)
}

/// Ends the archive.
pub(super) fn end(out: &mut dyn Write) -> io::Result<()> {
    out.write_all(&[0; 2 * BLOCK])
}

/// Where the regular files of an archive are: offset and length by name.
pub(super) fn index(archive: &mut (impl Read + Seek)) -> io::Result<BTreeMap<String, (u64, u64)>> {
    let bad = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    let size = archive.seek(SeekFrom::End(0))?;
    archive.seek(SeekFrom::Start(0))?;
    let (mut files, mut at) = (BTreeMap::new(), 0);
    let mut block = [0; BLOCK];
    while at + BLOCK as u64 <= size {
        archive.seek(SeekFrom::Start(at))?;
        archive.read_exact(&mut block)?;
        if block == [0; BLOCK] {
            return Ok(files);
        }
        let mut sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        sum -= block[148..156].iter().map(|byte| u32::from(*byte)).sum::<u32>();
        sum += 8 * u32::from(b' ');
        if octal(&block[148..156]) != Some(u64::from(sum)) {
            return Err(bad("this is not a tar archive, or its head is damaged"));
        }
        let length = octal(&block[124..136]).ok_or_else(|| bad("a file of the archive has no length"))?;
        let name = block[..100].split(|byte| *byte == 0).next().unwrap_or_default();
        let name = std::str::from_utf8(name).map_err(|_| bad("a name in the archive is not UTF-8"))?;
        at += BLOCK as u64;
        if length > size - at {
            return Err(bad("the archive ends in the middle of a file"));
        }
        if matches!(block[156], 0 | b'0')
            && files.insert(name.trim_start_matches("./").to_owned(), (at, length)).is_some()
        {
            return Err(bad("a name is twice in the archive"));
        }
        at += length.next_multiple_of(BLOCK as u64);
    }
    Err(bad("the archive has no end"))
}

fn octal(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?.trim_matches(|c: char| c == '\0' || c == ' ');
    u64::from_str_radix(text, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_found() {
        let mut bytes = Vec::new();
        file(&mut bytes, "a", b"one", 1).unwrap();
        file(&mut bytes, "tile/0/x001/234.p/7", &[7; 512], 1).unwrap();
        end(&mut bytes).unwrap();
        let files = index(&mut io::Cursor::new(&bytes)).unwrap();
        assert_eq!(files["a"], (512, 3));
        assert_eq!(files["tile/0/x001/234.p/7"], (1536, 512));
        bytes[3] = b'x';
        assert!(index(&mut io::Cursor::new(&bytes)).is_err());
    }
}
