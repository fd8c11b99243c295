//! The 512 bytes before every member: fields, numbers, checksum.

use super::{BLOCK, Error};

/// A header block whose checksum is right.
pub(crate) struct Header<'a>(&'a [u8; BLOCK]);

const CHECKSUM: std::ops::Range<usize> = 148..156;

impl<'a> Header<'a> {
    /// `None` for a block of zeros, which ends an archive.
    pub(crate) fn parse(block: &'a [u8; BLOCK]) -> Result<Option<Self>, Error> {
        if block.iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        let stored = number(&block[CHECKSUM]).ok_or(Error::Header)?;
        let mut unsigned = 0i64;
        let mut signed = 0i64;
        for (index, &byte) in block.iter().enumerate() {
            let byte = if CHECKSUM.contains(&index) {
                b' '
            } else {
                byte
            };
            unsigned += i64::from(byte);
            // Some old programs summed signed characters.
            signed += i64::from(i8::from_ne_bytes([byte]));
        }
        if stored != unsigned && stored != signed {
            return Err(Error::Header);
        }
        Ok(Some(Self(block)))
    }

    pub(crate) fn path(&self) -> Vec<u8> {
        let name = text(&self.0[..100]);
        let prefix = if self.is_posix() {
            text(&self.0[345..500])
        } else {
            &[]
        };
        if prefix.is_empty() {
            return name.to_vec();
        }
        [prefix, b"/", name].concat()
    }

    pub(crate) fn link(&self) -> Vec<u8> {
        text(&self.0[157..257]).to_vec()
    }

    pub(crate) fn type_flag(&self) -> u8 {
        self.0[156]
    }

    pub(crate) fn mode(&self) -> Option<i64> {
        number(&self.0[100..108])
    }

    pub(crate) fn uid(&self) -> Option<i64> {
        number(&self.0[108..116])
    }

    pub(crate) fn gid(&self) -> Option<i64> {
        number(&self.0[116..124])
    }

    pub(crate) fn size(&self) -> Option<i64> {
        number(&self.0[124..136])
    }

    pub(crate) fn mtime(&self) -> Option<i64> {
        number(&self.0[136..148])
    }

    pub(crate) fn device(&self) -> Option<(i64, i64)> {
        Some((number(&self.0[329..337])?, number(&self.0[337..345])?))
    }

    /// The old GNU sparse fields: segments, whether more blocks of them follow, the real size.
    pub(crate) fn gnu_sparse(&self) -> Option<(&'a [u8], bool, i64)> {
        Some((
            &self.0[386..482],
            self.0[482] != 0,
            number(&self.0[483..495])?,
        ))
    }

    /// POSIX has a name prefix where GNU keeps times and sparse maps.
    fn is_posix(&self) -> bool {
        &self.0[257..263] == b"ustar\0"
    }
}

/// The bytes before the first NUL.
pub(crate) fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|&byte| byte == 0);
    &field[..end.unwrap_or(field.len())]
}

/// Octal digits, or GNU's base 256 when the first bit is set. An empty field is 0.
pub(crate) fn number(field: &[u8]) -> Option<i64> {
    let (&first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        let mut value = if first & 0x40 != 0 {
            i128::from(first & 0x7f) - 0x80
        } else {
            i128::from(first & 0x7f)
        };
        for &byte in rest {
            value = value.checked_mul(256)? + i128::from(byte);
        }
        return i64::try_from(value).ok();
    }
    let digits = text(field).trim_ascii();
    digits.iter().try_fold(0i64, |value, &byte| {
        let digit = matches!(byte, b'0'..=b'7').then_some(i64::from(byte & 7))?;
        value.checked_mul(8)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   644 \0"), Some(0o644));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 1, 0]), Some(256));
        assert_eq!(number(&[0xff; 8]), Some(-1));
        assert_eq!(number(b"0000648\0"), None);
        assert_eq!(
            number(&[
                0x80, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0
            ]),
            None
        );
    }
}
