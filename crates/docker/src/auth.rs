//! Credentials for registries: the header `X-Registry-Auth` and the body of `POST /auth`.

use crate::json::{wire, zero};

wire! {
    #[serde(rename_all = "lowercase")]
    pub struct AuthConfig {
        #[serde(skip_serializing_if = "zero")]
        pub username: String,
        #[serde(skip_serializing_if = "zero")]
        pub password: String,
        /// `username:password` in base64; as the client's configuration file has it.
        #[serde(skip_serializing_if = "zero")]
        pub auth: String,
        #[serde(skip_serializing_if = "zero")]
        pub email: String,
        #[serde(skip_serializing_if = "zero")]
        pub serveraddress: String,
        /// In place of user name and password.
        #[serde(skip_serializing_if = "zero")]
        pub identitytoken: String,
        /// Sent to the registry as it is.
        #[serde(skip_serializing_if = "zero")]
        pub registrytoken: String,
    }
}

wire! {
    /// The answer of `POST /auth`.
    #[serde(rename_all = "PascalCase")]
    pub struct AuthResponse {
        pub identity_token: String,
        pub status: String,
    }
}
