//! Netlink attributes: length, type and value, padded to four bytes.

/// Set in the type of an attribute that holds attributes.
const NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;
const HEADER_BYTES: usize = 4;

/// Appends an attribute with these bytes.
pub fn put(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    write(out, kind, |out| out.extend_from_slice(value));
}

/// A text with its closing zero.
pub fn put_text(out: &mut Vec<u8>, kind: u16, text: &str) {
    write(out, kind, |out| {
        out.extend_from_slice(text.as_bytes());
        out.push(0);
    });
}

/// A number in network order, as netfilter has them.
pub fn put_be32(out: &mut Vec<u8>, kind: u16, value: u32) {
    put(out, kind, &value.to_be_bytes());
}

pub fn put_be64(out: &mut Vec<u8>, kind: u16, value: u64) {
    put(out, kind, &value.to_be_bytes());
}

/// An attribute that holds those which `inner` appends.
pub fn nest(out: &mut Vec<u8>, kind: u16, inner: impl FnOnce(&mut Vec<u8>)) {
    write(out, kind | NESTED, inner);
}

fn write(out: &mut Vec<u8>, kind: u16, value: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend([0; HEADER_BYTES]);
    value(out);
    let length = u16::try_from(out.len() - start).expect("callers split what may grow");
    out[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    out[start + 2..start + 4].copy_from_slice(&kind.to_ne_bytes());
    pad(out);
}

/// Rounds the length up to four bytes.
pub fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

/// The attributes of `bytes` as type and value; ends at the first malformed one.
pub fn iterate(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0)?);
        let kind = u16_at(rest, 2)? & TYPE_MASK;
        let value = rest.get(HEADER_BYTES..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The value of the first attribute of this type.
pub fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    iterate(bytes)
        .find(|(found, _)| *found == kind)
        .map(|(_, value)| value)
}

/// A text without its closing zero.
pub fn text(value: &[u8]) -> String {
    let end = value
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

pub fn be32(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(value.try_into().ok()?))
}

pub fn be64(value: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(value.try_into().ok()?))
}

pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut bytes = Vec::new();
        put_text(&mut bytes, 1, "ab");
        nest(&mut bytes, 2, |inner| put_be32(inner, 3, 7));
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(find(&bytes, 1).map(text).as_deref(), Some("ab"));
        let inner = find(&bytes, 2).expect("the nest");
        assert_eq!(find(inner, 3).and_then(be32), Some(7));
        assert_eq!(find(&bytes, 9), None);
    }

    #[test]
    fn malformed_attributes_end_the_list() {
        for bytes in [
            &[0u8, 0, 0, 0][..],
            &[9, 0, 1, 0, 5],
            &[4],
            &[],
            &[3, 0, 1, 0],
        ] {
            assert_eq!(iterate(bytes).count(), 0, "{bytes:?}");
        }
    }
}
