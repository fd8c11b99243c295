//! Credentials that a request brings, and `POST /auth`.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use berth_docker::auth::{AuthConfig, AuthResponse};
use berth_image::distribution::Credentials;
use http::HeaderMap;

use crate::call::Call;
use crate::error::Error;
use crate::respond::{self, Answer};

const HEADER: &str = "x-registry-auth";

/// Clients pad, or do not; both are read.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);

/// Asks the registry whether it takes somebody's credentials (`docker login`).
pub async fn login(mut call: Call) -> Answer {
    let Some(auth) = call.json::<AuthConfig>().await? else {
        return Err(Error::invalid(
            "invalid JSON: got EOF while reading request body",
        ));
    };
    let auth = expand(auth);
    let address = auth.serveraddress.clone();
    let distribution = call.shared.distribution.clone();
    let logged_in = distribution.login(&address, &credentials(auth)).await?;
    respond::ok(&AuthResponse {
        status: "Login Succeeded".to_owned(),
        identity_token: logged_in.identity_token.unwrap_or_default(),
    })
}

/// What is sent to the registry.
pub fn credentials(auth: AuthConfig) -> Credentials {
    if !auth.identitytoken.is_empty() {
        Credentials::Identity {
            token: auth.identitytoken,
        }
    } else if !auth.registrytoken.is_empty() {
        Credentials::Bearer {
            token: auth.registrytoken,
        }
    } else if !auth.username.is_empty() {
        Credentials::Password {
            user: auth.username,
            password: auth.password,
        }
    } else {
        Credentials::Anonymous
    }
}

/// What the header `X-Registry-Auth` says. One that cannot be read is as good as none, since
/// clients send empty objects, `null` and worse when they have no credentials.
pub fn registry(headers: &HeaderMap) -> AuthConfig {
    let Some(value) = headers.get(HEADER) else {
        return AuthConfig::default();
    };
    let bytes = URL_SAFE
        .decode(value.as_bytes())
        .or_else(|_| STANDARD.decode(value.as_bytes()));
    let Ok(bytes) = bytes else {
        return AuthConfig::default();
    };
    let Ok(auth) = serde_json::from_slice::<Option<AuthConfig>>(&bytes) else {
        return AuthConfig::default();
    };
    expand(auth.unwrap_or_default())
}

/// Clients may pass on their configuration file's `auth` in place of name and password.
fn expand(mut auth: AuthConfig) -> AuthConfig {
    if auth.username.is_empty()
        && !auth.auth.is_empty()
        && let Ok(pair) = STANDARD.decode(&auth.auth)
        && let Ok(pair) = String::from_utf8(pair)
        && let Some((name, password)) = pair.split_once(':')
    {
        auth.username = name.to_owned();
        auth.password = password.trim_end_matches('\0').to_owned();
    }
    auth
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn check(header: &str, name: &str, password: &str) {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, HeaderValue::from_str(header).unwrap());
        let auth = registry(&headers);
        assert_eq!((&*auth.username, &*auth.password), (name, password));
    }

    #[test]
    fn credentials_are_read_in_every_spelling() {
        let json = br#"{"username":"me","password":"a?>b"}"#;
        check(
            &base64::engine::general_purpose::URL_SAFE.encode(json),
            "me",
            "a?>b",
        );
        check(
            &base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(json),
            "me",
            "a?>b",
        );
        check(&STANDARD.encode(json), "me", "a?>b");
        check(
            &STANDARD.encode(br#"{"auth":"bWU6c2VjcmV0"}"#),
            "me",
            "secret",
        );
        check(&STANDARD.encode("null"), "", "");
        check("not base64", "", "");
        check("", "", "");
    }
}
