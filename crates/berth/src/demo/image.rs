//! The demo's root file system, as an archive: this binary and the few files that it needs.

use std::io;

use anyhow::{Context, Result};

const PASSWD: &str = "root:x:0:0:root:/:/berth\n";
const GROUP: &str = "root:x:0:\n";

/// A tar archive.
pub fn archive() -> Result<Vec<u8>> {
    let program = std::fs::read("/proc/self/exe").context("read this program")?;
    let mut archive = tar::Builder::new(Vec::with_capacity(program.len() + 16_384));
    add(&mut archive, "berth", 0o755, &program)?;
    add(&mut archive, "etc/passwd", 0o644, PASSWD.as_bytes())?;
    add(&mut archive, "etc/group", 0o644, GROUP.as_bytes())?;
    archive.into_inner().context("write the archive")
}

fn add(archive: &mut tar::Builder<Vec<u8>>, path: &str, mode: u32, content: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(u64::try_from(content.len())?);
    header.set_mtime(0);
    let added: io::Result<()> = archive.append_data(&mut header, path, content);
    added.with_context(|| format!("add {path} to the archive"))
}
