//! Numbers as patches and packs write them: LEB128, 7 bits a byte, the low ones first.

use crate::error::{Error, ErrorKind, Result};

/// Appends `value`; at most ten bytes.
pub(crate) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a number of either sign: small ones of both signs are short.
pub(crate) fn put_signed(out: &mut Vec<u8>, value: i64) {
    put(out, ((value << 1) ^ (value >> 63)).cast_unsigned());
}

/// Takes values off the front of bytes that somebody else wrote.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Fields<'a> {
    /// Over `bytes`; errors name them `what`.
    pub(crate) fn new(bytes: &'a [u8], what: &'static str) -> Fields<'a> {
        Fields { rest: bytes, what }
    }

    /// What has not been taken.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next byte.
    pub(crate) fn byte(&mut self) -> Result<u8> {
        let (first, rest) = self.rest.split_first().ok_or_else(|| cut(self.what))?;
        self.rest = rest;
        Ok(*first)
    }

    /// The next `length` bytes.
    pub(crate) fn take(&mut self, length: u64) -> Result<&'a [u8]> {
        let length = usize::try_from(length).ok().filter(|length| *length <= self.rest.len());
        let (taken, rest) = self.rest.split_at(length.ok_or_else(|| cut(self.what))?);
        self.rest = rest;
        Ok(taken)
    }

    /// The next number.
    pub(crate) fn number(&mut self) -> Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                // One way to write a number: no empty last byte.
                return if byte == 0 && shift > 0 { Err(bad_number(self.what)) } else { Ok(value) };
            }
        }
        Err(bad_number(self.what))
    }

    /// The next number, which is at most `most`.
    pub(crate) fn number_up_to(&mut self, most: u64) -> Result<u64> {
        let value = self.number()?;
        if value > most {
            let message = format!("{}: {value} where at most {most} is allowed", self.what);
            return Err(Error::new(ErrorKind::Corrupted, message));
        }
        Ok(value)
    }

    /// The next number of either sign.
    pub(crate) fn signed(&mut self) -> Result<i64> {
        let value = self.number()?;
        Ok((value >> 1).cast_signed() ^ -((value & 1).cast_signed()))
    }

    /// Refuses bytes after the last field.
    pub(crate) fn end(&self) -> Result<()> {
        match self.rest.len() {
            0 => Ok(()),
            left => {
                let message = format!("{}: {left} bytes after its end", self.what);
                Err(Error::new(ErrorKind::Corrupted, message))
            }
        }
    }
}

#[cold]
fn cut(what: &str) -> Error {
    Error::new(ErrorKind::Corrupted, format!("{what}: it ends too early"))
}

#[cold]
fn bad_number(what: &str) -> Error {
    Error::new(ErrorKind::Corrupted, format!("{what}: a number is not written as it should be"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_come_back(values: Vec<u64>, signed: Vec<i64>) {
            let mut bytes = Vec::new();
            values.iter().for_each(|value| put(&mut bytes, *value));
            signed.iter().for_each(|value| put_signed(&mut bytes, *value));
            let mut fields = Fields::new(&bytes, "test");
            for value in values {
                prop_assert_eq!(fields.number().unwrap(), value);
            }
            for value in signed {
                prop_assert_eq!(fields.signed().unwrap(), value);
            }
            fields.end().unwrap();
        }
    }

    #[test]
    fn odd_numbers_are_refused() {
        for bytes in [&[0x80][..], &[], &[0x80, 0], &[0xff; 10], &[0xff; 9][..8]] {
            Fields::new(bytes, "test").number().unwrap_err();
        }
        let mut most = [0xff; 10];
        most[9] = 1;
        assert_eq!(Fields::new(&most, "test").number().unwrap(), u64::MAX);
        most[9] = 2;
        Fields::new(&most, "test").number().unwrap_err();
        let mut fields = Fields::new(&[7], "test");
        let error = fields.number_up_to(6).unwrap_err();
        assert_eq!(error.message(), "test: 7 where at most 6 is allowed");
        Fields::new(&[1, 2], "test").take(3).unwrap_err();
        Fields::new(&[1], "test").end().unwrap_err();
    }
}
