//! Events.

use std::collections::BTreeMap;

use crate::json::{wire, zero};

wire! {
    /// One line of `GET /events`.
    pub struct Message {
        /// Status, id and from stand for `Action`, `Actor.ID` and the attribute `image`, in
        /// events of containers and images only; versions before 1.52 have them.
        #[serde(skip_serializing_if = "zero")]
        pub status: String,
        #[serde(skip_serializing_if = "zero")]
        pub id: String,
        #[serde(skip_serializing_if = "zero")]
        pub from: String,
        /// `container`, `image`, `network`, `volume` or `daemon`.
        #[serde(rename = "Type")]
        pub kind: String,
        #[serde(rename = "Action")]
        pub action: String,
        #[serde(rename = "Actor")]
        pub actor: Actor,
        #[serde(skip_serializing_if = "zero")]
        pub scope: String,
        /// Seconds since the epoch.
        #[serde(skip_serializing_if = "zero")]
        pub time: i64,
        /// Nanoseconds since the epoch.
        #[serde(rename = "timeNano", skip_serializing_if = "zero")]
        pub time_nano: i64,
    }
}

wire! {
    pub struct Actor {
        #[serde(rename = "ID")]
        pub id: String,
        #[serde(rename = "Attributes")]
        pub attributes: BTreeMap<String, String>,
    }
}
