//! JSON strings exactly as Docker's json-file driver writes them.
//!
//! Besides what JSON demands, `<`, `>`, `&`, U+2028 and U+2029 are escaped, and each byte that is
//! not part of valid UTF-8 becomes `\ufffd`. Only `"`, `\`, newline and carriage return have short
//! forms; a tab is `\u0009`. Nearly all output is plain ASCII, so blocks without anything to
//! escape are found by a loop that the compiler turns into vector instructions.

const BLOCK: usize = 32;
const HEX: &[u8; 16] = b"0123456789abcdef";

/// Appends `text` as the inside of a JSON string.
pub fn append(out: &mut Vec<u8>, text: &[u8]) {
    let mut rest = text;
    loop {
        let plain = plain_prefix(rest);
        out.extend_from_slice(&rest[..plain]);
        rest = &rest[plain..];
        let Some(&byte) = rest.first() else { return };
        let width = if byte < 0x80 {
            ascii(out, byte)
        } else {
            beyond_ascii(out, rest)
        };
        rest = &rest[width..];
    }
}

fn is_plain(byte: u8) -> bool {
    matches!(byte, 0x20..=0x7f) & !matches!(byte, b'"' | b'\\' | b'<' | b'>' | b'&')
}

/// How many bytes at the front need no escape.
fn plain_prefix(text: &[u8]) -> usize {
    let (blocks, _) = text.as_chunks::<BLOCK>();
    let mut plain = 0;
    for block in blocks {
        // No early exit within a block: that is what lets it be vectorised.
        if block
            .iter()
            .fold(false, |special, &byte| special | !is_plain(byte))
        {
            break;
        }
        plain += BLOCK;
    }
    plain
        + text[plain..]
            .iter()
            .position(|&byte| !is_plain(byte))
            .unwrap_or(text.len() - plain)
}

fn ascii(out: &mut Vec<u8>, byte: u8) -> usize {
    match byte {
        b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        _ => {
            let digits = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&digits);
        }
    }
    1
}

/// One character, or one byte that begins none.
fn beyond_ascii(out: &mut Vec<u8>, text: &[u8]) -> usize {
    let width = match text[0] {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => 1,
    };
    match text
        .get(..width)
        .filter(|bytes| std::str::from_utf8(bytes).is_ok())
    {
        Some([0xe2, 0x80, last @ (0xa8 | 0xa9)]) => {
            out.extend_from_slice(b"\\u202");
            out.push(HEX[usize::from(last & 15)]);
            width
        }
        Some(character) => {
            out.extend_from_slice(character);
            width
        }
        None => {
            out.extend_from_slice(b"\\ufffd");
            1
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &[u8], expect: &str) {
        let mut out = Vec::new();
        append(&mut out, text);
        assert_eq!(String::from_utf8(out).unwrap(), expect);
    }

    #[test]
    fn strings_are_escaped_as_docker_does() {
        check(b"plain", "plain");
        check(b"a\tb\r\n", r"a\u0009b\r\n");
        check(
            br#"say "hi" \ <b>&"#,
            r#"say \"hi\" \\ \u003cb\u003e\u0026"#,
        );
        check(
            "h\u{fc}h \u{2028}\u{2029} \u{1f600}".as_bytes(),
            "hüh \\u2028\\u2029 😀",
        );
        check(b"\xff\xc3\xe2\x80", r"\ufffd\ufffd\ufffd\ufffd");
        check(b"\xed\xa0\x80", r"\ufffd\ufffd\ufffd");
        check(b"\x00\x1b\x7f", "\\u0000\\u001b\x7f");
    }

    proptest! {
        #[test]
        fn any_text_is_read_back(text in ".*") {
            let mut out = vec![b'"'];
            append(&mut out, text.as_bytes());
            out.push(b'"');
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }

        #[test]
        fn any_bytes_make_a_string(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut out = vec![b'"'];
            append(&mut out, &bytes);
            out.push(b'"');
            prop_assert!(serde_json::from_slice::<String>(&out).is_ok());
        }
    }
}
