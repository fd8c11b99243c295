//! `docker login`: whether a registry takes somebody's credentials.

use berth_http::Client;
use berth_oci::reference::DEFAULT_DOMAIN;
use http::StatusCode;

use super::auth::Authorizer;
use super::endpoint::{Endpoint, client_config, endpoints};
use super::failure::{Cause, Failure};
use super::pull::EndScope;
use super::refusal::{Code, Refusal};
use super::repository::Repository;
use super::{Credentials, Distribution};

/// The names under which clients know Docker Hub.
const HUB_NAMES: &[&str] = &["", "docker.io", "index.docker.io"];

/// A registry took the credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedIn {
    /// A refresh token of the token server, to be kept in place of the password. Few give one.
    pub identity_token: Option<String>,
}

/// A login that did not succeed. Its text is what Docker's daemon says.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    #[error("unable to parse server address: {0:?} names no registry")]
    Address(String),
    #[error("{0}")]
    Failed(Failure),
    /// The registry answered with something else than 200.
    #[error(
        "login attempt to {uri} failed with status: {} {}",
        status.as_u16(),
        status.canonical_reason().unwrap_or_default()
    )]
    Status { uri: String, status: StatusCode },
}

impl LoginError {
    /// Whether it is the credentials that were refused, in words of the token server.
    pub fn is_unauthorized(&self) -> bool {
        let Self::Failed(Failure::Request { cause, .. }) = self else {
            return false;
        };
        let refused = |refusal: &Refusal| {
            matches!(
                refusal,
                Refusal::Coded {
                    code: Code::Unauthorized,
                    ..
                }
            )
        };
        matches!(cause.as_ref(), Cause::Token(refusal) if refused(refusal))
    }
}

impl Distribution {
    /// Asks a registry (`host[:port]`, or an address as clients keep it, like
    /// `https://index.docker.io/v1/`) whether it takes these credentials. Nothing is kept.
    ///
    /// Mirrors are left out: the credentials of Docker Hub are none of their business.
    pub async fn login(
        &self,
        address: &str,
        credentials: &Credentials,
    ) -> Result<LoggedIn, LoginError> {
        let domain = domain(address)?;
        let shared = &self.0;
        let found = endpoints(
            &self.registries(),
            &shared.config.proxies,
            &shared.resolver,
            &domain,
        )
        .await;
        let mut last = None;
        for endpoint in found.iter().filter(|endpoint| !endpoint.mirror) {
            let error = match self.login_at(endpoint, credentials).await {
                Ok(logged_in) => return Ok(logged_in),
                Err(error) => error,
            };
            tracing::debug!(endpoint = endpoint.base, %error, "login");
            // Docker goes on with plain HTTP after a registry that answered over TLS refused: it
            // would send the password in the clear, and hide the reason.
            if error.is_unauthorized() || matches!(error, LoginError::Status { .. }) {
                return Err(error);
            }
            last = Some(error);
        }
        Err(last.unwrap_or_else(|| LoginError::Address(address.to_owned())))
    }

    async fn login_at(
        &self,
        endpoint: &Endpoint,
        credentials: &Credentials,
    ) -> Result<LoggedIn, LoginError> {
        let shared = &self.0;
        let config = client_config(&shared.config, &shared.resolver, endpoint)
            .map_err(LoginError::Failed)?;
        // A scope of its own: its connections end with this login.
        let connections = shared.scope.child();
        let _end = EndScope(connections.clone());
        let registry = Repository::new(
            Client::new(config, &connections),
            endpoint.base.clone(),
            String::new(),
            Authorizer::for_login(credentials.clone(), shared.user_agent.clone()),
            shared,
        );
        registry.ping().await.map_err(LoginError::Failed)?;
        let (uri, status) = registry.knock().await.map_err(LoginError::Failed)?;
        if status != StatusCode::OK {
            return Err(LoginError::Status { uri, status });
        }
        Ok(LoggedIn {
            identity_token: registry.identity_token().await,
        })
    }
}

/// The registry that an address of a client means.
fn domain(address: &str) -> Result<String, LoginError> {
    let rest = address
        .strip_prefix("https://")
        .or_else(|| address.strip_prefix("http://"))
        .unwrap_or(address);
    let host = rest.split('/').next().unwrap_or_default();
    if HUB_NAMES.contains(&host) {
        return Ok(DEFAULT_DOMAIN.to_owned());
    }
    match host.parse::<http::uri::Authority>() {
        Ok(authority) if !authority.host().is_empty() && !host.contains('@') => Ok(host.to_owned()),
        _ => Err(LoginError::Address(address.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(address: &str, expect: Option<&str>) {
        assert_eq!(domain(address).ok().as_deref(), expect, "{address}");
    }

    #[test]
    fn addresses_of_clients_name_registries() {
        check("", Some(DEFAULT_DOMAIN));
        check("https://index.docker.io/v1/", Some(DEFAULT_DOMAIN));
        check("docker.io", Some(DEFAULT_DOMAIN));
        check("localhost:5000", Some("localhost:5000"));
        check("http://10.0.0.1:5000/v2/", Some("10.0.0.1:5000"));
        check("[::1]:5000", Some("[::1]:5000"));
        check("user@host", None);
        check("a b", None);
    }
}
