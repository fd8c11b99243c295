//! What the paths of a copy ask for. Trailing slashes and dots count: `dir/.` is what is in the
//! directory, and `name/` has to be one (docker/cli, `cp`; moby, `pkg/archive/copy.go`).

/// As Go's `filepath.Clean`.
pub fn clean(path: &str) -> String {
    let is_absolute = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => match parts.last() {
                Some(&last) if last != ".." => drop(parts.pop()),
                None if is_absolute => {}
                _ => parts.push(".."),
            },
            part => parts.push(part),
        }
    }
    match (is_absolute, parts.join("/")) {
        (true, path) => format!("/{path}"),
        (false, path) if path.is_empty() => ".".to_owned(),
        (false, path) => path,
    }
}

pub fn join(directory: &str, path: &str) -> String {
    clean(&format!("{directory}/{path}"))
}

/// As Go's `filepath.Base`.
pub fn base(path: &str) -> &str {
    match path.trim_end_matches('/') {
        "" if path.is_empty() => ".",
        "" => "/",
        path => path.rsplit('/').next().unwrap_or(path),
    }
}

pub fn ends_with_dot(path: &str) -> bool {
    base(path) == "."
}

/// Whether a path can only be a directory.
pub fn asserts_directory(path: &str) -> bool {
    path.ends_with('/') || ends_with_dot(path)
}

/// The cleaned path with the slash or dot that the original ends with.
pub fn with_ending(cleaned: &str, original: &str) -> String {
    let mut path = cleaned.to_owned();
    if !ends_with_dot(&path) && ends_with_dot(original) {
        if !path.ends_with('/') {
            path.push('/');
        }
        path.push('.');
    }
    if !path.ends_with('/') && original.ends_with('/') {
        path.push('/');
    }
    path
}

/// The directory of an entry, and its name there; `.` if it is the directory's content that is
/// meant.
pub fn split_entry(path: &str) -> (String, String) {
    let cleaned = clean(path);
    if ends_with_dot(path) && cleaned != "." {
        return (cleaned, ".".to_owned());
    }
    let name = base(&cleaned).to_owned();
    let directory = match cleaned.rsplit_once('/') {
        Some(("", _)) => "/".to_owned(),
        Some((directory, _)) => directory.to_owned(),
        None => ".".to_owned(),
    };
    (directory, name)
}

/// Where a link that was followed leads, with the ending that was asked for, and the name that the
/// copy is to have if that differs.
pub fn followed(asked: &str, found: &str) -> (String, Option<String>) {
    let found = with_ending(found, asked);
    let rename = (base(asked) != base(&found)).then(|| base(asked).to_owned());
    (found, rename)
}

/// What is copied, or what is there already.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Info {
    pub path: String,
    pub exists: bool,
    pub is_directory: bool,
    /// The name in the archive, if it is not the path's.
    pub rename: Option<String>,
}

/// The directory to extract into, and the new name of the copied entry if it gets one.
pub fn plan(source: &Info, target: &Info) -> Result<(String, Option<String>), &'static str> {
    let (directory, name) = split_entry(&target.path);
    match (target.exists, target.is_directory, source.is_directory) {
        (true, true, _) => Ok((target.path.clone(), None)),
        (true, false, true) => Err("cannot copy directory"),
        (false, _, false) if asserts_directory(&target.path) => Err("no such directory"),
        _ => Ok((directory, Some(name))),
    }
}

/// The container and the path of an argument; no container for a local one.
pub fn split_argument(argument: &str) -> (Option<&str>, &str) {
    if argument.starts_with('/') {
        return (None, argument);
    }
    match argument.split_once(':') {
        Some((container, path)) if !container.starts_with('.') => (Some(container), path),
        _ => (None, argument),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_stay() {
        for (path, expect) in [("/a/../b/", "/b/"), ("x/.", "x/."), (".", "."), ("/", "/")] {
            assert_eq!(with_ending(&clean(path), path), expect);
        }
        assert_eq!(clean("../a/../../b"), "../../b");
        assert_eq!(clean("/../a"), "/a");
    }

    #[test]
    fn an_entry_has_a_directory() {
        let check = |path: &str, directory: &str, name: &str| {
            assert_eq!(
                split_entry(path),
                (directory.to_owned(), name.to_owned()),
                "{path}"
            );
        };
        check("/a/b", "/a", "b");
        check("/a/b/", "/a", "b");
        check("/a/b/.", "/a/b", ".");
        check("/a", "/", "a");
        check("/", "/", "/");
        check("a", ".", "a");
    }

    #[test]
    fn arguments_name_a_container_before_a_colon() {
        assert_eq!(split_argument("c:/x"), (Some("c"), "/x"));
        assert_eq!(split_argument("/a:b"), (None, "/a:b"));
        assert_eq!(split_argument("./a:b"), (None, "./a:b"));
        assert_eq!(split_argument("-"), (None, "-"));
        assert_eq!(split_argument("c:"), (Some("c"), ""));
    }

    #[test]
    fn the_target_decides_how_the_copy_is_named() {
        let info = |path: &str, exists, is_directory| Info {
            path: path.to_owned(),
            exists,
            is_directory,
            rename: None,
        };
        let file = info("/src/f", true, false);
        let directory = info("/src/d", true, true);
        let check = |source: &Info, target: Info, expect: Result<(&str, Option<&str>), &str>| {
            let found = plan(source, &target);
            let found = found
                .as_ref()
                .map(|(to, name)| (to.as_str(), name.as_deref()));
            assert_eq!(found.map_err(|error| *error), expect, "{target:?}");
        };
        check(&file, info("/t", true, true), Ok(("/t", None)));
        check(&file, info("/t/g", true, false), Ok(("/t", Some("g"))));
        check(&file, info("/t/g", false, false), Ok(("/t", Some("g"))));
        check(&file, info("/t/g/", false, false), Err("no such directory"));
        check(
            &directory,
            info("/t", true, false),
            Err("cannot copy directory"),
        );
        check(
            &directory,
            info("/t/new", false, false),
            Ok(("/t", Some("new"))),
        );
        check(
            &directory,
            info("/t/new/", false, false),
            Ok(("/t", Some("new"))),
        );
    }

    #[test]
    fn a_followed_link_keeps_its_name() {
        assert_eq!(
            followed("/a/link", "/b/file"),
            ("/b/file".to_owned(), Some("link".to_owned()))
        );
        assert_eq!(followed("/a/link/.", "/b"), ("/b/.".to_owned(), None));
        assert_eq!(followed("/a/x", "/b/x"), ("/b/x".to_owned(), None));
    }
}
