//! Mount options: words to attributes of the mount, flags of the file system, and its data.

use berth_sys::mount::{Propagation, attr};

/// What a mount's option list says. Later words win over earlier ones.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// Attributes of this mount alone.
    pub set: u64,
    pub clear: u64,
    /// Attributes of this mount and all below it (`rro` and its like).
    pub recursive_set: u64,
    pub recursive_clear: u64,
    pub bind: Option<Bind>,
    /// Propagation, and whether it holds for the mounts below too.
    pub propagation: Option<(Propagation, bool)>,
    /// Copy what the mount would hide into the new tmpfs.
    pub tmpcopyup: bool,
    /// Map the ids of a bind's source; `true`: also of what is mounted below it.
    pub idmap: Option<bool>,
    /// Change what is mounted already.
    pub remount: bool,
    /// Words that the file system itself understands.
    pub data: Vec<Data>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bind {
    Single,
    Recursive,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    Flag(String),
    Value(String, String),
}

impl Options {
    pub fn parse<S: AsRef<str>>(words: &[S]) -> Self {
        let mut options = Self::default();
        for word in words {
            options.add(word.as_ref());
        }
        options
    }

    fn add(&mut self, word: &str) {
        match word {
            // Words of mount(8), and flags of mount(2) that the kernel does not look at (any more).
            "" | "defaults" | "async" | "loud" | "silent" | "mand" | "nomand" | "iversion"
            | "noiversion" => {}
            "idmap" => self.idmap = Some(false),
            "ridmap" => self.idmap = Some(true),
            "remount" => self.remount = true,
            "bind" => self.bind = Some(Bind::Single),
            "rbind" => self.bind = Some(Bind::Recursive),
            "tmpcopyup" => self.tmpcopyup = true,
            "private" => self.propagation = Some((Propagation::Private, false)),
            "rprivate" => self.propagation = Some((Propagation::Private, true)),
            "slave" => self.propagation = Some((Propagation::Slave, false)),
            "rslave" => self.propagation = Some((Propagation::Slave, true)),
            "shared" => self.propagation = Some((Propagation::Shared, false)),
            "rshared" => self.propagation = Some((Propagation::Shared, true)),
            "unbindable" => self.propagation = Some((Propagation::Unbindable, false)),
            "runbindable" => self.propagation = Some((Propagation::Unbindable, true)),
            _ => match (attribute(word), word.strip_prefix('r').and_then(attribute)) {
                (Some(Attribute { set, clear }), _) => {
                    self.set = self.set & !clear | set;
                    self.clear = self.clear & !set | clear;
                }
                (None, Some(Attribute { set, clear })) => {
                    self.recursive_set = self.recursive_set & !clear | set;
                    self.recursive_clear = self.recursive_clear & !set | clear;
                }
                (None, None) => self.data.push(match word.split_once('=') {
                    Some((key, value)) => Data::Value(key.to_owned(), value.to_owned()),
                    None => Data::Flag(word.to_owned()),
                }),
            },
        }
    }
}

struct Attribute {
    set: u64,
    clear: u64,
}

/// The attribute that a word (without the `r` of the recursive form) stands for.
fn attribute(word: &str) -> Option<Attribute> {
    let (set, clear) = match word {
        "ro" => (attr::RDONLY, 0),
        "rw" => (0, attr::RDONLY),
        "nosuid" => (attr::NOSUID, 0),
        "suid" => (0, attr::NOSUID),
        "nodev" => (attr::NODEV, 0),
        "dev" => (0, attr::NODEV),
        "noexec" => (attr::NOEXEC, 0),
        "exec" => (0, attr::NOEXEC),
        "nosymfollow" => (attr::NOSYMFOLLOW, 0),
        "symfollow" => (0, attr::NOSYMFOLLOW),
        "nodiratime" => (attr::NODIRATIME, 0),
        "diratime" => (0, attr::NODIRATIME),
        // The access time modes are one field: whoever sets it clears it first.
        "noatime" => (attr::NOATIME, attr::ATIME),
        "strictatime" | "norelatime" => (attr::STRICTATIME, attr::ATIME),
        "atime" | "relatime" | "nostrictatime" => (0, attr::ATIME),
        _ => return None,
    };
    Some(Attribute { set, clear })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_words_win() {
        let options = Options::parse(&["ro", "nosuid", "rw"]);
        assert_eq!((options.set, options.clear), (attr::NOSUID, attr::RDONLY));
    }

    #[test]
    fn unknown_words_go_to_the_file_system() {
        let options = Options::parse(&["nosuid", "mode=755", "newinstance"]);
        assert_eq!(
            options.data,
            [
                Data::Value("mode".into(), "755".into()),
                Data::Flag("newinstance".into())
            ]
        );
    }

    #[test]
    fn the_r_form_is_recursive() {
        let options = Options::parse(&["rbind", "rro", "rslave"]);
        assert_eq!(options.recursive_set, attr::RDONLY);
        assert_eq!(options.bind, Some(Bind::Recursive));
        assert_eq!(options.propagation, Some((Propagation::Slave, true)));
    }

    #[test]
    fn relatime_is_not_taken_for_recursive_elatime() {
        let options = Options::parse(&["relatime"]);
        assert_eq!((options.set, options.clear), (0, attr::ATIME));
    }
}
