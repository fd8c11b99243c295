//! What the engine does with the files of containers.

use std::io::{Read, Write};

use berth_docker::container::{FilesystemChange, PathStat};

use super::Engine;
use crate::error::Result;
use crate::options::{CommitOptions, ExtractOptions};
use crate::{commit, files};

impl Engine {
    /// What is at a path of a container.
    pub async fn path_stat(&self, id: &str, path: &str) -> Result<PathStat> {
        files::stat(&self.shared, id, path).await
    }

    /// Writes what is at a path as an archive, to what `sink` makes of its description.
    pub async fn archive<W: Write>(
        &self,
        id: &str,
        path: &str,
        sink: impl FnOnce(PathStat) -> W + Send + 'static,
    ) -> Result<()> {
        files::archive(&self.shared, id, path, sink).await
    }

    /// Adds an archive's members to a directory of a container.
    pub async fn extract(
        &self,
        id: &str,
        path: &str,
        options: ExtractOptions,
        archive: impl Read + Send + 'static,
    ) -> Result<()> {
        files::extract(&self.shared, id, path, options, archive).await
    }

    /// What the container has changed in its root file system.
    pub async fn changes(&self, id: &str) -> Result<Vec<FilesystemChange>> {
        files::changes(&self.shared, id).await
    }

    /// Makes an image of a container. Returns its id.
    pub async fn commit(&self, id: &str, options: CommitOptions) -> Result<String> {
        commit::commit(&self.shared, id, options).await
    }

    /// Writes a container's root file system as an archive.
    pub async fn export(&self, id: &str, sink: impl Write + Send + 'static) -> Result<()> {
        files::export(&self.shared, id, sink).await
    }
}
