//! Paths of archive members, cleaned of everything that could lead out of the layer, and what
//! their last part says about whiteouts.

/// A path relative to the layer's root, without `.`, `..`, empty parts or slashes at its ends.
/// The root itself is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Clean(Vec<u8>);

const WHITEOUT: &[u8] = b".wh.";
const WHITEOUT_META: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What a member's name asks for (OCI image specification, layer.md, "Whiteouts").
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Marker<'a> {
    /// An ordinary member.
    None,
    /// The directory hides everything that lower layers have in it.
    Opaque,
    /// This name hides what lower layers have there.
    Whiteout(&'a [u8]),
    /// Bookkeeping of AUFS, which means nothing here.
    Meta,
}

impl Clean {
    pub(crate) fn parse(path: &[u8]) -> Result<Self, &'static str> {
        let mut clean: Vec<u8> = Vec::with_capacity(path.len());
        for part in path.split(|&byte| byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => {
                    if clean.is_empty() {
                        return Err("the path leads out of the layer");
                    }
                    let parent = clean.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
                    clean.truncate(parent);
                }
                part => {
                    if part.contains(&0) {
                        return Err("the path contains a NUL");
                    }
                    if !clean.is_empty() {
                        clean.push(b'/');
                    }
                    clean.extend_from_slice(part);
                }
            }
        }
        Ok(Self(clean))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The same path below a directory.
    pub(crate) fn under(self, directory: &[u8]) -> Self {
        match directory {
            [] => self,
            directory => Self([directory, b"/", &self.0].concat()),
        }
    }

    pub(crate) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Directory and last part.
    pub(crate) fn split(&self) -> (&[u8], &[u8]) {
        match self.0.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => (&self.0[..slash], &self.0[slash + 1..]),
            None => (&[], &self.0),
        }
    }

    pub(crate) fn marker(&self) -> Result<Marker<'_>, &'static str> {
        let (_, name) = self.split();
        if name == OPAQUE {
            return Ok(Marker::Opaque);
        }
        if name.starts_with(WHITEOUT_META) {
            return Ok(Marker::Meta);
        }
        match name.strip_prefix(WHITEOUT) {
            None => Ok(Marker::None),
            Some(b"" | b"." | b"..") => Err("a whiteout without a name"),
            Some(hidden) => Ok(Marker::Whiteout(hidden)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clean(path: &str) -> Option<String> {
        let clean = Clean::parse(path.as_bytes()).ok()?;
        Some(String::from_utf8(clean.0).unwrap())
    }

    #[test]
    fn paths_are_cleaned_and_never_lead_out() {
        for (path, expect) in [
            ("a/b", "a/b"),
            ("./a//b/", "a/b"),
            ("/a", "a"),
            ("a/../b", "b"),
            ("a/b/../c", "a/c"),
            (".", ""),
            ("./", ""),
        ] {
            assert_eq!(clean(path).as_deref(), Some(expect), "{path}");
        }
        for bad in ["..", "../a", "a/../../b", "/..", "a\0b"] {
            assert_eq!(clean(bad), None, "{bad}");
        }
    }

    #[test]
    fn whiteouts_are_told_from_names() {
        let marker = |path: &str| {
            let clean = Clean::parse(path.as_bytes()).unwrap();
            format!("{:?}", clean.marker())
        };
        assert_eq!(marker("a/.wh..wh..opq"), "Ok(Opaque)");
        assert_eq!(marker("a/.wh..wh.plnk"), "Ok(Meta)");
        assert_eq!(marker("a/.whx"), "Ok(None)");
        assert_eq!(marker("a/.wh.x"), "Ok(Whiteout([120]))");
        assert!(marker("a/.wh.").starts_with("Err"));
        assert!(marker("a/.wh...").starts_with("Err"));
    }
}
