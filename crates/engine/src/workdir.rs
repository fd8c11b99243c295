//! Whether a working directory can be one: an image may have a file in its place.
//!
//! As in [`crate::populate`], the image's layers are read directly. Links are followed within
//! them.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::io::Errno;

use berth_image::merged::{Found, descend, look_up, open_directory};

/// As many as the kernel follows.
const MAX_LINKS: u32 = 40;

/// Whether the merged `layers` (topmost first) have at `path` what is no directory. What is not
/// there, or cannot be reached, is none of either: the start tells.
pub fn is_taken(layers: &[PathBuf], path: &Path) -> io::Result<bool> {
    let mut root = Vec::new();
    for layer in layers {
        root.push(open_directory(
            rustix::fs::CWD,
            layer.as_os_str().as_encoded_bytes(),
        )?);
    }
    // The way down so far, by the merged directories of each step; and the steps to do, reversed.
    let mut trail = vec![root];
    let mut steps = Vec::new();
    add(&mut steps, path);
    let mut links = 0;
    while let Some(step) = steps.pop() {
        match (step, trail.last()) {
            (Step::Root, _) => trail.truncate(1),
            (Step::Up, _) => trail.truncate(trail.len().saturating_sub(1).max(1)),
            (Step::Down(_), None) => return Ok(false),
            (Step::Down(name), Some(here)) => match other(here, name.as_bytes())? {
                Some(directory) => {
                    let link = rustix::fs::readlinkat(directory, &name, Vec::new());
                    match link {
                        Ok(target) if links < MAX_LINKS => {
                            links += 1;
                            let target = OsString::from_vec(target.into_bytes());
                            add(&mut steps, Path::new(&target));
                        }
                        Ok(_) => return Ok(false),
                        Err(Errno::INVAL) => return Ok(steps.is_empty()),
                        Err(error) => return Err(error.into()),
                    }
                }
                None => match descend(here, name.as_bytes())? {
                    merged if merged.is_empty() => return Ok(false),
                    merged => trail.push(merged),
                },
            },
        }
    }
    Ok(false)
}

enum Step {
    Root,
    Up,
    Down(OsString),
}

fn add(steps: &mut Vec<Step>, path: &Path) {
    let down = |name: &OsStr| Step::Down(name.to_owned());
    let new = path.components().filter_map(|component| match component {
        Component::RootDir => Some(Step::Root),
        Component::ParentDir => Some(Step::Up),
        Component::Normal(name) => Some(down(name)),
        Component::CurDir | Component::Prefix(_) => None,
    });
    steps.extend(new.collect::<Vec<_>>().into_iter().rev());
}

/// The layer where a name is a file or a link, unless it is a directory above.
fn other<'a>(directories: &'a [OwnedFd], name: &[u8]) -> io::Result<Option<&'a OwnedFd>> {
    for directory in directories {
        match look_up(directory, name)? {
            Found::Nothing => {}
            Found::Whiteout | Found::Directory(_) => return Ok(None),
            Found::Other(_) => return Ok(Some(directory)),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn files_are_found_through_layers_and_links() {
        let dir = tempfile::tempdir().unwrap();
        let layers = ["top", "bottom"].map(|name| dir.path().join(name));
        for layer in &layers {
            std::fs::create_dir_all(layer.join("etc")).unwrap();
        }
        let [top, bottom] = &layers;
        std::fs::write(bottom.join("etc/file"), "").unwrap();
        std::fs::write(bottom.join("replaced"), "").unwrap();
        std::fs::create_dir(top.join("replaced")).unwrap();
        symlink("/etc/file", top.join("link")).unwrap();
        symlink("../etc/..", top.join("etc/up")).unwrap();
        symlink("loop", top.join("loop")).unwrap();
        let check = |path: &str, expect: bool| {
            let taken = is_taken(&layers, Path::new(path)).unwrap();
            assert_eq!(taken, expect, "{path}");
        };
        check("/etc/file", true);
        check("/etc/./../etc/file/", true);
        check("/link", true);
        check("/etc/up/link", true);
        check("/", false);
        check("/etc", false);
        check("/etc/up", false);
        check("/etc/nothing", false);
        check("/nothing/file", false);
        check("/etc/file/below", false);
        check("/replaced", false);
        check("/loop", false);
    }
}
