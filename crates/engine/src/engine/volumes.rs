//! What the engine does with volumes.

use std::io::Read;

use berth_docker::filters::Filters;
use berth_docker::volume::{Copied, CreateRequest, List, PruneResponse, Volume};

use super::Engine;
use crate::error::Result;
use crate::volume::{Backup, CopyKind};

impl Engine {
    pub async fn volume_create(&self, request: CreateRequest) -> Result<Volume> {
        self.shared.volumes.create(&self.shared, request).await
    }

    pub fn volume_list(&self, filters: &Filters) -> Result<List> {
        self.shared.volumes.list(&self.shared, filters)
    }

    pub fn volume_inspect(&self, name: &str) -> Result<Volume> {
        self.shared.volumes.inspect(name)
    }

    pub async fn volume_remove(&self, name: &str, force: bool) -> Result<()> {
        self.shared.volumes.remove(&self.shared, name, force).await
    }

    pub async fn volume_prune(&self, filters: &Filters) -> Result<PruneResponse> {
        self.shared.volumes.prune(&self.shared, filters).await
    }

    /// Copies a volume into a new one. With `pause` the containers that write to it wait.
    pub async fn volume_copy(
        &self,
        source: &str,
        kind: CopyKind,
        name: &str,
        pause: bool,
    ) -> Result<Copied> {
        let volumes = &self.shared.volumes;
        volumes.copy(&self.shared, source, kind, name, pause).await
    }

    pub async fn volume_rename(&self, old: &str, new: &str) -> Result<Volume> {
        self.shared.volumes.rename(&self.shared, old, new).await
    }

    pub async fn volume_backup(&self, name: &str, pause: bool) -> Result<Backup> {
        self.shared.volumes.backup(&self.shared, name, pause).await
    }

    pub async fn volume_restore(
        &self,
        name: &str,
        archive: impl Read + Send + 'static,
        force: bool,
    ) -> Result<Volume> {
        let volumes = &self.shared.volumes;
        volumes.restore(&self.shared, name, archive, force).await
    }
}
