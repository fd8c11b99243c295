//! Writes archives with the same bytes for the same content: ustar headers, PAX only where needed.

use std::io::{self, Read, Write};

use super::BLOCK;

pub(crate) struct Writer<W> {
    sink: W,
}

impl<W: Write> Writer<W> {
    pub(crate) fn new(sink: W) -> Self {
        Self { sink }
    }

    pub(crate) fn directory(&mut self, path: &str, mode: u32) -> io::Result<()> {
        self.header(path, b'5', mode, 0)
    }

    /// A file of exactly `size` bytes.
    pub(crate) fn file(
        &mut self,
        path: &str,
        mode: u32,
        size: u64,
        mut data: impl Read,
    ) -> io::Result<()> {
        self.header(path, b'0', mode, size)?;
        let mut buffer =
            vec![0; (256 << 10).min(usize::try_from(size).unwrap_or(256 << 10).max(1))];
        let mut left = size;
        while left > 0 {
            let length = data.read(&mut buffer)?;
            if length == 0 || length as u64 > left {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!("{path} has not the size of {size} bytes that was announced"),
                ));
            }
            self.sink.write_all(&buffer[..length])?;
            left -= length as u64;
        }
        let padding = usize::try_from(size.next_multiple_of(BLOCK as u64) - size).unwrap_or(0);
        self.sink.write_all(&[0; BLOCK][..padding])
    }

    /// Two blocks of zeros end an archive.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.sink.write_all(&[0; 2 * BLOCK])?;
        self.sink.flush()?;
        Ok(self.sink)
    }

    fn header(&mut self, path: &str, flag: u8, mode: u32, size: u64) -> io::Result<()> {
        let mut block = [0u8; BLOCK];
        if path.len() > 100 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{path} is too long a name for an archive"),
            ));
        }
        block[..path.len()].copy_from_slice(path.as_bytes());
        octal(&mut block[100..108], u64::from(mode));
        octal(&mut block[108..116], 0);
        octal(&mut block[116..124], 0);
        // Sizes of 8 GiB and more do not fit in octal: GNU's base 256.
        if size < 1 << 33 {
            octal(&mut block[124..136], size);
        } else {
            block[124] = 0x80;
            block[128..136].copy_from_slice(&size.to_be_bytes());
        }
        octal(&mut block[136..148], 0);
        block[148..156].fill(b' ');
        block[156] = flag;
        block[257..265].copy_from_slice(b"ustar\x0000");
        octal(&mut block[329..337], 0);
        octal(&mut block[337..345], 0);
        let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
        octal(&mut block[148..155], sum);
        self.sink.write_all(&block)
    }
}

/// Octal digits that end with a NUL.
fn octal(field: &mut [u8], value: u64) {
    let width = field.len() - 1;
    let digits = format!("{value:0width$o}");
    field[..width].copy_from_slice(&digits.as_bytes()[digits.len() - width..]);
    field[width] = 0;
}
