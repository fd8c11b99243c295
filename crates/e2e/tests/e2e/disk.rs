//! Small file systems of the tests' own, in files.

use std::path::PathBuf;

use berth_testkit::{Daemon, sh};

use crate::program;

/// It goes when it is dropped: after the daemon that has its data there.
pub struct Disk {
    pub path: PathBuf,
}

impl Disk {
    /// `mkfs` makes the file system in the file that is its last word.
    pub fn new(name: &str, size_mib: u32, mkfs: &str) -> Self {
        let path = std::env::temp_dir().join(format!("berth-disk-{}-{name}", std::process::id()));
        let image = path.display();
        sh(&format!(
            "mkdir -p {image} && truncate -s {size_mib}M {image}.img \
             && {mkfs} {image}.img && mount -o loop {image}.img {image}"
        ));
        Self { path }
    }

    pub fn daemon(&self) -> Daemon {
        let data = self.path.join("data");
        Daemon::start_with_data(program(), &data, &[])
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let path = self.path.display();
        sh(&format!(
            "umount {path} || umount -l {path}; rmdir {path}; rm -f {path}.img"
        ));
    }
}
