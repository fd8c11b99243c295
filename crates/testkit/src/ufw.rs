//! ufw with files of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::image::cache;
use crate::run::{Output, run, sh};

/// A machine's ufw.
pub struct Ufw {
    directory: PathBuf,
    under: Vec<String>,
}

/// `$1` is the directory of what it writes, `$2` where `tests/prepare` has unpacked it; what
/// follows are its words.
const ENTER: &str = "
mount -t overlay -o lowerdir=$2/etc:/etc,upperdir=$1/etc,workdir=$1/work none /etc
mount -t overlay -o lowerdir=$2/usr:/usr none /usr
mount -t overlay -o lowerdir=$2/lib:/usr/lib none /usr/lib
mount -t tmpfs none /run
shift 2
exec ufw \"$@\"";

impl Ufw {
    /// As it is after its installation: not enabled. `under` is a command that executes what
    /// follows it (`nsenter`).
    pub fn new(directory: &Path, under: &[&str]) -> Self {
        let (work, tree) = (directory.display(), tree());
        let share = tree.join("usr/share/ufw");
        sh(&format!(
            "mkdir -p {work}/etc/ufw {work}/work; cd {}; cp iptables/* ufw.conf {work}/etc/ufw",
            share.display()
        ));
        Self {
            directory: directory.to_owned(),
            under: under.iter().map(|&word| word.to_owned()).collect(),
        }
    }

    pub fn cmd(&self, words: &[&str]) -> Output {
        let mut under = self.under.iter().map(String::as_str);
        let first = under.next().unwrap_or("env");
        let mut command = Command::new(first);
        command.args(under);
        command.args(["unshare", "--mount", "sh", "-ec", ENTER, "ufw"]);
        command.arg(&self.directory).arg(tree()).args(words);
        run(&mut command, b"")
    }
}

fn tree() -> PathBuf {
    cache().join("ufw")
}
