//! Sparse maps: checked against the file's size and against what is stored.

use super::header::{number, text};
use super::{BLOCK, Segment, pax};

/// More segments than any file system's extents; bounds what a hostile map costs.
pub(crate) const MAX_SEGMENTS: usize = 1 << 20;

const GNU_FIELD: usize = 12;

/// Whether the segments ascend without overlap, end within the file, and hold exactly the stored
/// bytes.
pub(crate) fn is_sound(map: &[Segment], real_size: u64, stored: u64) -> bool {
    let mut end = 0u64;
    let mut total = 0u64;
    for segment in map {
        let Some(next) = segment.offset.checked_add(segment.length) else {
            return false;
        };
        if segment.offset < end || next > real_size {
            return false;
        }
        end = next;
        total += segment.length;
    }
    total == stored
}

/// Adds the segments of a GNU header or extension block: pairs of 12 byte numbers, ended by an
/// empty one.
pub(crate) fn add_gnu(map: &mut Vec<Segment>, fields: &[u8]) -> Result<(), &'static str> {
    for pair in fields.chunks_exact(2 * GNU_FIELD) {
        let (offset, length) = pair.split_at(GNU_FIELD);
        if text(offset).is_empty() && offset[0] & 0x80 == 0 {
            return Ok(());
        }
        let value = |field| number(field).and_then(|value| u64::try_from(value).ok());
        map.push(Segment {
            offset: value(offset).ok_or("malformed sparse map")?,
            length: value(length).ok_or("malformed sparse map")?,
        });
        if map.len() > MAX_SEGMENTS {
            return Err("too many parts in a sparse file");
        }
    }
    Ok(())
}

/// Reads the map of format 1.0, which precedes the data as decimal lines, padded to a block.
/// Returns the map and the bytes it took.
pub(crate) fn read_v1(
    mut next_block: impl FnMut(&mut [u8; BLOCK]) -> Result<(), super::Error>,
    problem: impl Fn(&'static str) -> super::Error,
) -> Result<(Vec<Segment>, u64), super::Error> {
    let mut lines = Lines::default();
    let mut count = None;
    let mut numbers = Vec::new();
    let mut taken = 0;
    let mut block = [0; BLOCK];
    loop {
        next_block(&mut block)?;
        taken += BLOCK as u64;
        for number in lines.feed(&block) {
            let number = number.map_err(&problem)?;
            match count {
                None if number <= MAX_SEGMENTS as u64 => {
                    count = Some(number);
                }
                None => return Err(problem("too many parts in a sparse file")),
                Some(count) if (numbers.len() as u64) < 2 * count => numbers.push(number),
                Some(_) => break,
            }
        }
        if count.is_some_and(|count| numbers.len() as u64 >= 2 * count) {
            break;
        }
    }
    let map = numbers
        .chunks_exact(2)
        .map(|pair| Segment {
            offset: pair[0],
            length: pair[1],
        })
        .collect();
    Ok((map, taken))
}

/// Decimal numbers on lines that may continue in the next block.
#[derive(Default)]
struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    fn feed(&mut self, block: &[u8; BLOCK]) -> Vec<Result<u64, &'static str>> {
        let mut numbers = Vec::new();
        for &byte in block {
            match byte {
                b'\n' => {
                    numbers.push(pax::unsigned(&self.partial).ok_or("malformed sparse map"));
                    self.partial.clear();
                }
                0 => break,
                byte if self.partial.len() < 20 => self.partial.push(byte),
                _ => {
                    numbers.push(Err("malformed sparse map"));
                    break;
                }
            }
        }
        numbers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(offset: u64, length: u64) -> Segment {
        Segment { offset, length }
    }

    #[test]
    fn overlapping_and_overlong_maps_are_unsound() {
        assert!(is_sound(&[segment(0, 4), segment(8, 4)], 12, 8));
        assert!(is_sound(&[], 100, 0));
        assert!(!is_sound(&[segment(0, 4), segment(2, 4)], 12, 8));
        assert!(!is_sound(&[segment(8, 4)], 11, 4));
        assert!(!is_sound(&[segment(u64::MAX, 4)], u64::MAX, 4));
        assert!(!is_sound(&[segment(0, 4)], 12, 8));
    }
}
