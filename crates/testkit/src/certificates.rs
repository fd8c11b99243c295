//! A certificate authority of a test's own, by openssl.

use std::path::{Path, PathBuf};

use crate::sh;

/// An authority, and a certificate of it for a server and for a client, as files in PEM.
pub struct Certificates {
    directory: PathBuf,
}

impl Certificates {
    /// Makes them in `directory`: `ca.pem`, and `cert.pem` with `key.pem` for `names`, each as
    /// openssl's `subjectAltName` spells it (`DNS:box`, `IP:127.0.0.1`). The certificate serves
    /// for a server and for a client.
    #[track_caller]
    pub fn make(directory: impl Into<PathBuf>, names: &str) -> Self {
        let directory = directory.into();
        sh(&format!(
            "mkdir -p {d}; cd {d}
             key='-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'
             openssl req -x509 $key -keyout ca-key.pem -out ca.pem -days 2 -subj /CN=authority-$RANDOM$RANDOM 2>/dev/null
             openssl req $key -keyout key.pem -out request.pem -subj /CN=party 2>/dev/null
             printf 'subjectAltName={names}\\nextendedKeyUsage=serverAuth,clientAuth' >extensions
             openssl x509 -req -in request.pem -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days 2 \
                 -extfile extensions -out cert.pem 2>/dev/null",
            d = directory.display()
        ));
        Self { directory }
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn authority(&self) -> String {
        self.path("ca.pem")
    }

    pub fn certificate(&self) -> String {
        self.path("cert.pem")
    }

    pub fn key(&self) -> String {
        self.path("key.pem")
    }

    fn path(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }
}
