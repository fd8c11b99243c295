//! A store in a directory of its own, and archives made byte by byte.

use std::path::{Path, PathBuf};

use berth_image::{Images, progress};
use berth_oci::Digest;
use berth_store::{Options, Store};

/// An image store that goes with the test.
pub struct Fixture {
    pub root: tempfile::TempDir,
    pub images: Images,
}

impl Fixture {
    pub fn new() -> Self {
        Self::in_directory(&std::env::temp_dir())
    }

    /// On a tmpfs, where many files cost little time.
    pub fn in_memory() -> Self {
        Self::in_directory(Path::new("/dev/shm"))
    }

    pub fn in_directory(directory: &Path) -> Self {
        let root = tempfile::Builder::new()
            .prefix("berth-image-test-")
            .tempdir_in(directory)
            .unwrap();
        let images = open(root.path());
        Self { root, images }
    }

    /// Opens the store again, as after a crash: nothing was closed in order.
    pub fn reopen(self) -> Self {
        let Self { root, images } = self;
        images.settle();
        drop(images);
        let images = open(root.path());
        Self { root, images }
    }

    pub fn load(&self, archive: &[u8]) -> berth_image::Result<Vec<berth_image::Loaded>> {
        self.images.load(archive, None, &progress::silent())
    }

    /// Loads an image with these layers (bottom first) under the name `test`.
    pub fn image(&self, layers: &[Vec<u8>]) -> berth_image::Image {
        self.load(&docker_archive("test:latest", layers)).unwrap();
        self.images.resolve("test", None).unwrap()
    }

    /// Unpacks one layer and returns its directory, or the whole chain of errors.
    pub fn layer(&self, layer: &[u8]) -> Result<PathBuf, String> {
        let loaded = self.load(&docker_archive("test:latest", &[layer.to_vec()]));
        loaded.map_err(|error| berth_base::Chain(&error).to_string())?;
        Ok(self.images.resolve("test", None).unwrap().layers[0].clone())
    }

    /// Every path below the root that holds content, relative and sorted.
    pub fn content(&self) -> Vec<String> {
        self.images.settle();
        let mut found = Vec::new();
        for directory in ["blobs/sha256", "layers", "snapshots", "ingest", "trash"] {
            let entries = std::fs::read_dir(self.root.path().join(directory)).unwrap();
            for entry in entries {
                found.push(format!(
                    "{directory}/{}",
                    entry.unwrap().file_name().display()
                ));
            }
        }
        found.sort();
        found
    }
}

fn open(root: &Path) -> Images {
    let store = Store::open(&root.join("store"), Options::default()).unwrap();
    Images::open(root, store).unwrap()
}

/// Builds tar archives, broken ones too.
#[derive(Default, Clone)]
pub struct Tar(pub Vec<u8>);

#[derive(Clone)]
pub struct Member<'a> {
    pub path: &'a str,
    pub kind: u8,
    pub link: &'a str,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub data: &'a [u8],
    pub device: (u32, u32),
    pub pax: &'a [(&'a str, &'a [u8])],
}

pub fn file<'a>(path: &'a str, data: &'a [u8]) -> Member<'a> {
    Member {
        path,
        kind: b'0',
        link: "",
        mode: 0o644,
        uid: 0,
        gid: 0,
        data,
        device: (0, 0),
        pax: &[],
    }
}

pub fn directory(path: &str) -> Member<'_> {
    Member {
        kind: b'5',
        mode: 0o755,
        ..file(path, b"")
    }
}

pub fn link<'a>(kind: u8, path: &'a str, target: &'a str) -> Member<'a> {
    Member {
        kind,
        link: target,
        ..file(path, b"")
    }
}

impl Tar {
    pub fn of(members: &[Member<'_>]) -> Vec<u8> {
        let mut tar = Self::default();
        members.iter().for_each(|member| tar.add(member));
        tar.finish()
    }

    pub fn add(&mut self, member: &Member<'_>) {
        if !member.pax.is_empty() {
            let mut records = Vec::new();
            for (key, value) in member.pax {
                let rest = key.len() + value.len() + 3;
                let mut length = rest + 1;
                while length != rest + length.to_string().len() {
                    length = rest + length.to_string().len();
                }
                records.extend(format!("{length} {key}=").bytes());
                records.extend(*value);
                records.push(b'\n');
            }
            self.header(
                "pax",
                &Member {
                    kind: b'x',
                    ..file("", b"")
                },
                records.len(),
            );
            self.data(&records);
        }
        self.header(member.path, member, member.data.len());
        self.data(member.data);
    }

    pub fn finish(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }

    fn header(&mut self, path: &str, member: &Member<'_>, size: usize) {
        let mut block = [0u8; 512];
        block[..path.len()].copy_from_slice(path.as_bytes());
        let mut field = |at: usize, text: String| {
            block[at..at + text.len()].copy_from_slice(text.as_bytes());
        };
        field(100, format!("{:07o}", member.mode));
        field(108, format!("{:07o}", member.uid));
        field(116, format!("{:07o}", member.gid));
        field(124, format!("{size:011o}"));
        field(136, format!("{:011o}", 1_000_000_000));
        field(157, member.link.to_owned());
        field(257, "ustar\x0000".to_owned());
        field(329, format!("{:07o}", member.device.0));
        field(337, format!("{:07o}", member.device.1));
        block[156] = member.kind;
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        self.0.extend(block);
    }

    fn data(&mut self, data: &[u8]) {
        self.0.extend(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }
}

/// The configuration of an image with these uncompressed layers.
pub fn config(layers: &[Vec<u8>]) -> Vec<u8> {
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
    let history: Vec<_> = layers
        .iter()
        .map(|_| serde_json::json!({"created_by": "a step", "created": "2024-01-02T03:04:05Z"}))
        .collect();
    serde_json::json!({
        "architecture": berth_oci::Platform::host().architecture,
        "os": "linux",
        "created": "2024-01-02T03:04:05Z",
        "config": {"Cmd": ["sh"], "Labels": {"tier": "front"}},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": history,
    })
    .to_string()
    .into_bytes()
}

/// An archive as Docker before 25 wrote it: `manifest.json` only.
pub fn docker_archive(name: &str, layers: &[Vec<u8>]) -> Vec<u8> {
    docker_archive_of(name, layers, &config(layers))
}

pub fn docker_archive_of(name: &str, layers: &[Vec<u8>], config: &[u8]) -> Vec<u8> {
    let paths: Vec<String> = (0..layers.len())
        .map(|n| format!("{n}/layer.tar"))
        .collect();
    let manifest = serde_json::json!([
        {"Config": "config.json", "RepoTags": [name], "Layers": paths}]);
    let manifest = manifest.to_string();
    let mut tar = Tar::default();
    for (path, layer) in paths.iter().zip(layers) {
        tar.add(&file(path, layer));
    }
    tar.add(&file("config.json", config));
    tar.add(&file("manifest.json", manifest.as_bytes()));
    tar.finish()
}

/// A directory of the test's temporary files, and GNU tar run in it.
pub fn gnu_tar(directory: &Path, arguments: &[&str]) -> Vec<u8> {
    let output = std::process::Command::new("tar")
        .arg("-C")
        .arg(directory)
        .args(["-cf", "-"])
        .args(arguments)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}
