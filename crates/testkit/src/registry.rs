//! Debian's docker-registry on loopback.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::image;
use crate::run::run;
use crate::wait::until;

/// A registry on loopback with its own storage.
pub struct Registry {
    pub directory: PathBuf,
    /// Address and port.
    pub host: String,
    child: Child,
}

impl Registry {
    /// Starts it at this port. `extra` is YAML below `http:` or at the top.
    #[track_caller]
    pub fn start(port: u16, extra: &str) -> Self {
        let directory =
            std::env::temp_dir().join(format!("berth-registry-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}/data\nhttp:\n  addr: 127.0.0.1:{port}\n{}",
            directory.display(),
            extra.replace("DIR", directory.to_str().unwrap())
        );
        std::fs::write(directory.join("config.yml"), config).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(directory.join("config.yml"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            child,
            directory,
            host: format!("127.0.0.1:{port}"),
        }
    }

    /// Copies an image of the tests to it; waits until it answers.
    #[track_caller]
    pub fn push(&self, name: &str, as_name: &str, flags: &str) {
        self.push_from(&image::layout(), name, as_name, flags);
    }

    /// The same out of another OCI layout.
    #[track_caller]
    pub fn push_from(&self, layout: &Path, name: &str, as_name: &str, flags: &str) {
        let line = format!(
            "skopeo copy -q {flags} oci:{}:{name} docker://{}/{as_name}",
            layout.display(),
            self.host
        );
        until("the push succeeds", || {
            (run(Command::new("bash").args(["-c", &line]), b"").code == 0).then_some(())
        });
    }
}

/// A port of loopback that nobody has now.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::fs::remove_dir_all(&self.directory).unwrap();
    }
}
