//! What the engine does with networks.

use berth_docker::filters::Filters;
use berth_docker::network;
use berth_docker::reach::ReachablePort;

use super::Engine;
use crate::container::Command;
use crate::error::{Error, Result};
use crate::record::Phase;

impl Engine {
    /// `detailed`: with the containers of each.
    pub fn network_list(&self, filters: &Filters, detailed: bool) -> Result<Vec<network::Network>> {
        crate::network::list(&self.shared, filters, detailed)
    }

    /// Which ports are reachable, from where, and who holds them.
    pub async fn ports(&self) -> Result<Vec<ReachablePort>> {
        self.blocking(crate::reachable::ports).await
    }

    pub async fn network_create(
        &self,
        request: network::CreateRequest,
    ) -> Result<network::CreateResponse> {
        crate::network::create(&self.shared, request).await
    }

    pub async fn network_remove(&self, id: &str) -> Result<()> {
        crate::network::remove(&self.shared, id).await
    }

    pub async fn network_prune(&self, filters: &Filters) -> Result<network::PruneResponse> {
        crate::network::prune(&self.shared, filters).await
    }

    pub async fn network_connect(&self, id: &str, request: network::ConnectRequest) -> Result<()> {
        let handle = self.find(&request.container)?;
        let network = self.shared.networks.find(id)?;
        let settings = Box::new(request.endpoint_config.unwrap_or_default());
        let connect = |reply| Command::Connect {
            network,
            settings,
            reply,
        };
        handle.ask(connect).await
    }

    pub async fn network_disconnect(
        &self,
        id: &str,
        request: network::DisconnectRequest,
    ) -> Result<()> {
        let found = self.shared.networks.find(id);
        let handle = match self.find(&request.container) {
            // Nothing is left of a container that is gone.
            Err(_) if request.force => {
                found?;
                let message = format!("endpoint {} not found", request.container);
                return Err(Error::not_found(message));
            }
            found => found?,
        };
        let running = matches!(handle.view().state.phase, Phase::Running { .. });
        let network = match found {
            Err(error) if running && !request.force => return Err(error),
            found => found.ok(),
        };
        let disconnect = |reply| Command::Disconnect {
            name: id.to_owned(),
            network,
            reply,
        };
        handle.ask(disconnect).await
    }

    pub fn network_inspect(&self, id: &str) -> Result<network::Network> {
        crate::network::inspect(&self.shared, id)
    }
}
