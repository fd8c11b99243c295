//! Where volumes are on the disk, and how they appear there and go as wholes.
//!
//! ```text
//! volumes/NAME/_data    the volume's files
//! volumes/.NAME/_data   not yet the volume's, or no longer
//! volumes/..NAME        a mark: the volume, which was empty, is being filled from an image
//! ```
//!
//! What is made in several steps (a copy) is made aside, and moved into place when its record is
//! written; what is removed is moved aside before its record goes. So after a kill between any two
//! steps the records tell what has to be done with what lies aside: [`Places::settle`]. A volume
//! that is filled appears at once, as with Docker, so the mark tells which was filled in part.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::PathBuf;

/// The directory of all volumes.
#[derive(Debug, Clone)]
pub struct Places(PathBuf);

const DATA: &str = "_data";

impl Places {
    pub fn new(root: PathBuf) -> Self {
        Self(root)
    }

    /// Where the volume's files are.
    pub fn data(&self, name: &str) -> PathBuf {
        self.0.join(name).join(DATA)
    }

    /// Where they are before it is there.
    pub fn data_aside(&self, name: &str) -> PathBuf {
        self.aside(name).join(DATA)
    }

    fn aside(&self, name: &str) -> PathBuf {
        self.0.join(format!(".{name}"))
    }

    /// An empty directory aside, to be filled; returns where.
    pub fn make_aside(&self, name: &str) -> io::Result<PathBuf> {
        self.remove_aside(name)?;
        let data = self.data_aside(name);
        fs::create_dir_all(&data)?;
        Ok(data)
    }

    /// From aside into place, where nothing is.
    pub fn put(&self, name: &str) -> io::Result<()> {
        fs::rename(self.aside(name), self.0.join(name))?;
        self.sync()
    }

    /// From aside into place, where a volume is, which comes aside: at no time is there neither.
    pub fn exchange(&self, name: &str) -> io::Result<()> {
        let exchange = rustix::fs::RenameFlags::EXCHANGE;
        let (aside, place) = (self.aside(name), self.0.join(name));
        rustix::fs::renameat_with(rustix::fs::CWD, aside, rustix::fs::CWD, place, exchange)?;
        self.sync()
    }

    /// Out of place. It is no error if nothing is there.
    pub fn take(&self, name: &str) -> io::Result<()> {
        self.remove_aside(name)?;
        self.unmark(name)?;
        absent(fs::rename(self.0.join(name), self.aside(name)))
    }

    pub fn rename(&self, old: &str, new: &str) -> io::Result<()> {
        fs::rename(self.0.join(old), self.0.join(new))?;
        self.sync()
    }

    pub fn exists(&self, name: &str) -> bool {
        self.0.join(name).is_dir()
    }

    /// Deletes what lies aside, if anything does.
    pub fn remove_aside(&self, name: &str) -> io::Result<()> {
        absent(berth_sys::tree::remove(&self.aside(name)))
    }

    /// Says that all in a volume comes from an image, until [`Self::unmark`].
    pub fn mark(&self, name: &str) -> io::Result<()> {
        fs::File::create(self.mark_of(name)).map(drop)
    }

    pub fn unmark(&self, name: &str) -> io::Result<()> {
        absent(fs::remove_file(self.mark_of(name)))
    }

    fn mark_of(&self, name: &str) -> PathBuf {
        self.0.join(format!("..{name}"))
    }

    /// Makes a volume empty whose filling was interrupted, so that the next one begins anew.
    fn start_over(&self, name: &str) -> io::Result<()> {
        self.make_aside(name)?;
        self.exchange(name)?;
        self.unmark(name)
    }

    fn sync(&self) -> io::Result<()> {
        fs::File::open(&self.0)?.sync_all()
    }

    /// Puts back what lies aside of volumes that have a record and are not in place: their removal
    /// was not acknowledged, or their making not finished. Empties volumes that were filled in
    /// part, and removes the empty directories of those that got no record. Returns the names of
    /// what lies aside and can be deleted.
    pub fn settle(&self, is_known: impl Fn(&str) -> bool) -> io::Result<Vec<String>> {
        let mut rest = Vec::new();
        let mut marked = Vec::new();
        let entries = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(rest),
            entries => entries?,
        };
        for entry in entries {
            let file_name = entry?.file_name();
            let Some(name) = file_name.to_str() else {
                continue;
            };
            if let Some(name) = name.strip_prefix("..") {
                marked.push(name.to_owned());
            } else if let Some(name) = name.strip_prefix('.') {
                if is_known(name) && !self.exists(name) {
                    self.put(name)?;
                } else {
                    rest.push(name.to_owned());
                }
            } else if !is_known(name) {
                // Files that nobody knows of stay: it goes only if there are none.
                let _ = fs::remove_dir(self.data(name));
                let _ = fs::remove_dir(self.0.join(name));
            }
        }
        for name in marked {
            if self.exists(&name) {
                self.start_over(&name)?;
                rest.push(name);
            } else {
                self.unmark(&name)?;
            }
        }
        Ok(rest)
    }
}

fn absent(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> (tempfile::TempDir, Places) {
        let root = tempfile::tempdir().unwrap();
        let places = Places::new(root.path().join("volumes"));
        (root, places)
    }

    #[test]
    fn what_lies_aside_goes_where_its_record_says() {
        let (_root, places) = places();
        assert!(places.settle(|_| true).unwrap().is_empty());
        for name in ["removed", "kept", "copied", "both"] {
            fs::write(places.make_aside(name).unwrap().join("f"), name).unwrap();
        }
        fs::create_dir_all(places.data("both")).unwrap();
        let mut rest = places.settle(|name| name != "removed").unwrap();
        rest.sort();
        assert_eq!(rest, ["both", "removed"]);
        assert!(places.data("kept").join("f").exists());
        assert!(places.data("copied").join("f").exists());
        assert!(!places.exists("removed"));
        for name in rest {
            places.remove_aside(&name).unwrap();
        }
        assert!(places.settle(|_| false).unwrap().is_empty());
    }

    #[test]
    fn what_was_filled_in_part_is_empty_again_and_what_has_no_record_goes_if_it_is_empty() {
        let (_root, places) = places();
        for name in ["part", "whole", "unknown", "nobodys"] {
            fs::create_dir_all(places.data(name)).unwrap();
        }
        for name in ["part", "whole", "nobodys"] {
            fs::write(places.data(name).join("f"), name).unwrap();
        }
        for name in ["part", "whole", "gone"] {
            places.mark(name).unwrap();
        }
        places.unmark("whole").unwrap();
        places.unmark("whole").unwrap();
        let rest = places.settle(|name| name == "part" || name == "whole");
        assert_eq!(rest.unwrap(), ["part"]);
        assert_eq!(fs::read_dir(places.data("part")).unwrap().count(), 0);
        assert!(places.data("whole").join("f").exists());
        assert!(!places.exists("unknown"));
        assert!(places.data("nobodys").join("f").exists());
        places.remove_aside("part").unwrap();
        let left = fs::read_dir(&places.0)
            .unwrap()
            .map(|it| it.unwrap().file_name());
        assert!(
            left.into_iter()
                .all(|name| !name.to_str().unwrap().starts_with('.'))
        );
    }

    #[test]
    fn an_exchange_leaves_the_old_aside() {
        let (_root, places) = places();
        fs::create_dir_all(places.data("v")).unwrap();
        fs::write(places.data("v").join("old"), "").unwrap();
        fs::write(places.make_aside("v").unwrap().join("new"), "").unwrap();
        places.exchange("v").unwrap();
        assert!(places.data("v").join("new").exists());
        assert!(places.data_aside("v").join("old").exists());
        places.take("v").unwrap();
        assert!(!places.exists("v"));
    }
}
