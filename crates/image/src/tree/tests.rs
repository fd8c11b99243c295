//! A directory with all that is easily lost, there and back.

use super::*;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

/// What differs between files, one line each.
fn listing(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    walk::walk(root, &mut |entry, file| {
        let mut content = Vec::new();
        if let Some(mut file) = file {
            file.read_to_end(&mut content)?;
        }
        let mut hasher = DefaultHasher::new();
        content.hash(&mut hasher);
        lines.push(format!("{entry:?} {:x}", hasher.finish()));
        Ok(())
    })
    .unwrap();
    lines
}

fn fill(root: &Path) {
    fs::create_dir_all(root.join("a/b")).unwrap();
    fs::write(root.join("a/file"), "text").unwrap();
    fs::write(root.join("a/.wh.name"), "no whiteout").unwrap();
    fs::hard_link(root.join("a/file"), root.join("a/b/again")).unwrap();
    symlink("../nowhere", root.join("a/link")).unwrap();
    fs::hard_link(root.join("a/link"), root.join("link2")).unwrap();
    let long = "n".repeat(200);
    fs::create_dir(root.join(&long)).unwrap();
    fs::write(root.join(&long).join(&long), vec![7; 3000]).unwrap();
    let mode = fs::Permissions::from_mode(0o4751);
    fs::set_permissions(root.join("a/file"), mode).unwrap();
    fs::set_permissions(root.join("a"), fs::Permissions::from_mode(0o1770)).unwrap();
    let sparse = File::create(root.join("sparse")).unwrap();
    sparse.write_all_at(b"begin", 0).unwrap();
    sparse.write_all_at(b"middle", 5 << 20).unwrap();
    sparse.set_len(9 << 20).unwrap();
    File::create(root.join("hole"))
        .unwrap()
        .set_len(1 << 20)
        .unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::lsetxattr(root.join("a"), "user.key", b"v\0alue", flags).ok();
    // Only root has these.
    drop(std::os::unix::fs::lchown(
        root.join("a/link"),
        Some(4_000_000),
        Some(7),
    ));
    drop(std::os::unix::fs::chown(
        root.join("sparse"),
        Some(33),
        Some(34),
    ));
    let fifo = rustix::fs::FileType::Fifo;
    let mode = rustix::fs::Mode::from_raw_mode(0o640);
    rustix::fs::mknodat(rustix::fs::CWD, root.join("fifo"), fifo, mode, 0).ok();
    let old = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000, 123_456_789);
    let times = fs::FileTimes::new().set_modified(old);
    File::open(root.join("a"))
        .unwrap()
        .set_times(times)
        .unwrap();
}

fn directories() -> (tempfile::TempDir, std::path::PathBuf, std::path::PathBuf) {
    let work = tempfile::tempdir().unwrap();
    let (from, to) = (work.path().join("from"), work.path().join("to"));
    fs::create_dir(&from).unwrap();
    fs::create_dir(&to).unwrap();
    (work, from, to)
}

#[test]
fn an_archive_brings_everything_back() {
    let (_work, from, to) = directories();
    fill(&from);
    let mut bytes = Vec::new();
    archive(&from, &mut bytes).unwrap();
    assert!(bytes.len() < 1 << 20, "holes take no space");
    restore(bytes.as_slice(), &to).unwrap();
    assert_eq!(listing(&from), listing(&to));
    let blocks = fs::metadata(to.join("sparse")).unwrap().blocks();
    assert!(blocks * 512 < 1 << 20, "{blocks} blocks of a sparse file");
    let mut again = Vec::new();
    archive(&to, &mut again).unwrap();
    assert!(bytes == again, "the same files are the same bytes");
}

#[test]
fn a_copy_is_the_same() {
    let (_work, from, to) = directories();
    fill(&from);
    copy(&from, &to).unwrap();
    assert_eq!(listing(&from), listing(&to));
    let blocks = fs::metadata(to.join("sparse")).unwrap().blocks();
    assert!(blocks * 512 < 1 << 20, "{blocks} blocks of a sparse file");
    let inode = |name: &str| fs::symlink_metadata(to.join(name)).unwrap().ino();
    assert_eq!(inode("a/file"), inode("a/b/again"));
}

#[test]
fn gnu_tar_reads_and_writes_the_same() {
    let (_work, from, to) = directories();
    fill(&from);
    let archive_path = from.with_extension("tar");
    archive(&from, File::create(&archive_path).unwrap()).unwrap();
    let tar = |words: &[&str]| {
        let done = std::process::Command::new("tar").args(words).output();
        let Ok(done) = done else {
            return false;
        };
        let told = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success(), "{words:?}: {told}");
        true
    };
    let (archived, target) = (archive_path.to_str().unwrap(), to.to_str().unwrap());
    let options = ["--xattrs", "--xattrs-include=*", "--numeric-owner"];
    if !tar(&[&options[..], &["-xpf", archived, "-C", target]].concat()) {
        return;
    }
    assert_eq!(listing(&from), listing(&to));
    let source = from.to_str().unwrap();
    let format = [
        "--format=pax",
        "--sparse",
        "-cf",
        archived,
        "-C",
        source,
        ".",
    ];
    tar(&[&options[..], &format].concat());
    let back = from.with_extension("back");
    fs::create_dir(&back).unwrap();
    restore(File::open(&archive_path).unwrap(), &back).unwrap();
    assert_eq!(listing(&from), listing(&back));
}

#[test]
fn an_archive_that_leads_out_is_refused() {
    let (work, from, to) = directories();
    symlink(work.path(), from.join("up")).unwrap();
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(0);
    header.set_entry_type(tar::EntryType::Symlink);
    builder.append_link(&mut header, "up", "..").unwrap();
    header.set_entry_type(tar::EntryType::Regular);
    builder
        .append_data(&mut header, "up/stolen", &b""[..])
        .unwrap();
    let bytes = builder.into_inner().unwrap();
    drop(restore(bytes.as_slice(), &to));
    assert!(!work.path().join("stolen").exists());
}
