//! Credentials and tokens: what goes into the `Authorization` header of one repository's requests
//! (the token protocol of the distribution project, and plain basic authentication).

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use berth_http::Client;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::challenge::Challenge;
use super::failure::{Cause, Failure};
use super::refusal::Refusal;
use super::repository;

/// How long a token is good for when its server does not say (token specification).
const DEFAULT_LIFETIME: Duration = Duration::from_secs(60);
/// Longer than any pull; what a server says beyond it makes no difference.
const LONGEST_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// A token is not used in the last seconds of its life: the request has to arrive yet.
const EXPIRY_MARGIN: Duration = Duration::from_secs(5);
/// No token server answers with more.
const ANSWER_LIMIT_BYTES: usize = 1 << 20;
const CLIENT_ID: &str = "berth";

/// Who the user is to the registry.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Credentials {
    #[default]
    Anonymous,
    Password {
        user: String,
        password: String,
    },
    /// A refresh token of the token server.
    Identity {
        token: String,
    },
    /// A bearer token, sent as it is.
    Bearer {
        token: String,
    },
}

impl std::fmt::Debug for Credentials {
    /// Without the secrets.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Password { .. } => "Password",
            Self::Identity { .. } => "Identity",
            Self::Bearer { .. } => "Bearer",
        })
    }
}

/// Authorizes the requests of one pull.
#[derive(Debug)]
pub struct Authorizer {
    credentials: Credentials,
    /// Empty for a login, which is about no repository.
    scope: String,
    user_agent: HeaderValue,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    demand: Demand,
    token: Option<Token>,
    /// A refresh token that came with a token.
    identity_token: Option<String>,
}

/// What the registry demands.
#[derive(Debug, Clone, Default)]
enum Demand {
    #[default]
    Nothing,
    Basic,
    Bearer {
        realm: String,
        service: String,
    },
}

#[derive(Debug, Clone)]
struct Token {
    value: String,
    good_until: Instant,
    refresh: Option<String>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
    #[serde(default)]
    refresh_token: String,
    #[serde(default)]
    expires_in: u64,
}

impl Authorizer {
    /// For pulling from the repository at `path`.
    pub fn new(credentials: Credentials, path: &str, user_agent: HeaderValue) -> Self {
        Self {
            credentials,
            scope: format!("repository:{path}:pull"),
            user_agent,
            state: Mutex::default(),
        }
    }

    /// For finding out whether the credentials are good.
    pub fn for_login(credentials: Credentials, user_agent: HeaderValue) -> Self {
        Self {
            credentials,
            scope: String::new(),
            user_agent,
            state: Mutex::default(),
        }
    }

    /// The refresh token that the token server gave with the last token, if it gave one.
    pub async fn identity_token(&self) -> Option<String> {
        self.state.lock().await.identity_token.clone()
    }

    /// Takes note of what an answer demands; `true` when that changes what the next request says.
    ///
    /// `refused` is the header that the refused request carried.
    pub async fn learn(&self, challenges: &[Challenge], refused: Option<&HeaderValue>) -> bool {
        let demand = challenges.iter().find_map(|challenge| {
            match (challenge.scheme.as_str(), challenge.get("realm")) {
                ("bearer", realm) if !realm.is_empty() => Some(Demand::Bearer {
                    realm: realm.to_owned(),
                    service: challenge.get("service").to_owned(),
                }),
                ("basic", _) => Some(Demand::Basic),
                _ => None,
            }
        });
        let Some(demand) = demand else { return false };
        let mut state = self.state.lock().await;
        let changes = match (&state.demand, &demand) {
            (Demand::Nothing, _) | (Demand::Basic, Demand::Bearer { .. }) => true,
            // A token that was refused is replaced once; another request may have done it already.
            (Demand::Bearer { .. }, Demand::Bearer { .. }) => match &state.token {
                Some(token) if refused.is_some_and(|refused| *refused != token.value) => {
                    return true;
                }
                _ => state.token.take().is_some(),
            },
            (_, Demand::Basic | Demand::Nothing) => false,
        };
        state.demand = demand;
        changes
    }

    /// The header for the next request, fetching a token first where one is needed.
    pub async fn header(&self, client: &Client) -> Result<Option<HeaderValue>, Cause> {
        if let Credentials::Bearer { token } = &self.credentials {
            return secret(format!("Bearer {token}")).map(Some);
        }
        // Held while the token is fetched: requests side by side need only one.
        let mut state = self.state.lock().await;
        match &state.demand {
            Demand::Nothing => Ok(None),
            Demand::Basic => match self.basic() {
                Some(value) => secret(value).map(Some),
                None => Err(Cause::NoCredentials),
            },
            Demand::Bearer { realm, service } => {
                let now = Instant::now();
                if let Some(token) = &state.token
                    && now < token.good_until
                {
                    return secret(token.value.clone()).map(Some);
                }
                let token = self.fetch(client, realm, service, now).await?;
                let value = token.value.clone();
                state.identity_token.clone_from(&token.refresh);
                state.token = Some(token);
                secret(value).map(Some)
            }
        }
    }

    fn basic(&self) -> Option<String> {
        match &self.credentials {
            Credentials::Password { user, password } => {
                let encoded = STANDARD.encode(format!("{user}:{password}"));
                Some(format!("Basic {encoded}"))
            }
            _ => None,
        }
    }

    async fn fetch(
        &self,
        client: &Client,
        realm: &str,
        service: &str,
        now: Instant,
    ) -> Result<Token, Cause> {
        let request = self.token_request(realm, service)?;
        let method = repository::go_name(request.method());
        let uri = request.uri().clone();
        let failed = |cause: Cause| {
            Cause::Nested(Box::new(Failure::Request {
                method,
                uri: uri.to_string(),
                cause: Box::new(cause),
            }))
        };
        let answer = if request.method() == Method::GET {
            let headers = request.headers().clone();
            client.fetch(Method::GET, uri.clone(), headers).await
        } else {
            client.send(request).await
        };
        let answer = answer.map_err(|error| failed(Cause::Transport(error)))?;
        let (head, body) = answer.into_parts();
        let body = berth_http::body::read(body, ANSWER_LIMIT_BYTES).await;
        let body = body.map_err(|error| failed(Cause::Other(error.to_string())))?;
        if !head.status.is_success() {
            return Err(Cause::Token(Refusal::read(
                head.status,
                &head.headers,
                &body,
            )));
        }
        let answer: TokenAnswer = serde_json::from_slice(&body)
            .map_err(|_| failed(Cause::Other("unable to decode token response".to_owned())))?;
        let token = match (answer.token.as_str(), answer.access_token.as_str()) {
            ("", "") => {
                let text = "authorization server did not include a token in the response";
                return Err(failed(Cause::Other(text.to_owned())));
            }
            ("", token) | (token, _) => token,
        };
        let lifetime =
            Duration::from_secs(answer.expires_in).clamp(DEFAULT_LIFETIME, LONGEST_LIFETIME);
        Ok(Token {
            value: format!("Bearer {token}"),
            good_until: now + lifetime - EXPIRY_MARGIN,
            refresh: Some(answer.refresh_token).filter(|token| !token.is_empty()),
        })
    }

    /// The request for a token: `GET` with basic credentials, `POST` with a refresh token.
    fn token_request(
        &self,
        realm: &str,
        service: &str,
    ) -> Result<Request<berth_http::Body>, Cause> {
        let mut fields = vec![("scope", self.scope.as_str()), ("service", service)];
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, self.user_agent.clone());
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let (method, uri, body) = match &self.credentials {
            Credentials::Identity { token } => {
                fields.push(("client_id", CLIENT_ID));
                fields.push(("grant_type", "refresh_token"));
                fields.push(("refresh_token", token));
                let form = HeaderValue::from_static("application/x-www-form-urlencoded");
                headers.insert(CONTENT_TYPE, form);
                let body = berth_http::body::full(encode(&fields));
                (Method::POST, realm.to_owned(), body)
            }
            credentials => {
                if let Credentials::Password { user, .. } = credentials {
                    fields.insert(0, ("account", user));
                }
                if self.scope.is_empty() {
                    fields.push(("client_id", CLIENT_ID));
                    fields.push(("offline_token", "true"));
                }
                if let Some(basic) = self.basic() {
                    headers.insert(AUTHORIZATION, secret(basic)?);
                }
                let joint = if realm.contains('?') { '&' } else { '?' };
                let uri = format!("{realm}{joint}{}", encode(&fields));
                (Method::GET, uri, berth_http::body::empty())
            }
        };
        let bad = |_| Cause::Other(format!("invalid token auth challenge realm: {realm:?}"));
        let uri: Uri = uri.parse().map_err(bad)?;
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        Ok(request)
    }
}

fn encode(fields: &[(&str, &str)]) -> String {
    let encoded: Vec<String> = fields
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)))
        .collect();
    encoded.join("&")
}

fn secret(value: String) -> Result<HeaderValue, Cause> {
    let mut value = HeaderValue::try_from(value)
        .map_err(|_| Cause::Other("the credentials cannot be sent in a header".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}
