//! Networks, and a container's endpoints on them.

use std::collections::BTreeMap;

use crate::json::{wire, zero};

wire! {
    /// A container on a network: what was asked for, then what it got.
    #[serde(rename_all = "PascalCase")]
    pub struct EndpointSettings {
        #[serde(rename = "IPAMConfig")]
        pub ipam_config: Option<EndpointIpamConfig>,
        pub links: Option<Vec<String>>,
        pub aliases: Option<Vec<String>>,
        pub mac_address: String,
        pub driver_opts: Option<BTreeMap<String, String>>,
        pub gw_priority: i64,
        #[serde(rename = "NetworkID")]
        pub network_id: String,
        #[serde(rename = "EndpointID")]
        pub endpoint_id: String,
        pub gateway: String,
        #[serde(rename = "IPAddress")]
        pub ip_address: String,
        #[serde(rename = "IPPrefixLen")]
        pub ip_prefix_len: i64,
        #[serde(rename = "IPv6Gateway")]
        pub ipv6_gateway: String,
        #[serde(rename = "GlobalIPv6Address")]
        pub global_ipv6_address: String,
        #[serde(rename = "GlobalIPv6PrefixLen")]
        pub global_ipv6_prefix_len: i64,
        #[serde(rename = "DNSNames")]
        pub dns_names: Option<Vec<String>>,
    }
}

wire! {
    pub struct EndpointIpamConfig {
        #[serde(rename = "IPv4Address", skip_serializing_if = "zero")]
        pub ipv4_address: String,
        #[serde(rename = "IPv6Address", skip_serializing_if = "zero")]
        pub ipv6_address: String,
        #[serde(rename = "LinkLocalIPs", skip_serializing_if = "zero")]
        pub link_local_ips: Vec<String>,
    }
}

wire! {
    #[serde(rename_all = "PascalCase")]
    pub struct Address {
        pub addr: String,
        pub prefix_len: i64,
    }
}

wire! {
    #[serde(rename_all = "PascalCase")]
    pub struct Network {
        pub name: String,
        pub id: String,
        pub created: String,
        pub scope: String,
        pub driver: String,
        #[serde(rename = "EnableIPv4")]
        pub enable_ipv4: bool,
        #[serde(rename = "EnableIPv6")]
        pub enable_ipv6: bool,
        #[serde(rename = "IPAM")]
        pub ipam: Ipam,
        pub internal: bool,
        pub attachable: bool,
        pub ingress: bool,
        pub config_from: ConfigReference,
        pub config_only: bool,
        pub containers: BTreeMap<String, NetworkContainer>,
        pub options: BTreeMap<String, String>,
        pub labels: BTreeMap<String, String>,
    }
}

wire! {
    #[serde(rename_all = "PascalCase")]
    pub struct ConfigReference {
        pub network: String,
    }
}

wire! {
    #[serde(rename_all = "PascalCase")]
    pub struct Ipam {
        pub driver: String,
        pub options: Option<BTreeMap<String, String>>,
        pub config: Option<Vec<IpamConfig>>,
    }
}

wire! {
    #[serde(rename_all = "PascalCase")]
    pub struct IpamConfig {
        #[serde(skip_serializing_if = "zero")]
        pub subnet: String,
        #[serde(rename = "IPRange", skip_serializing_if = "zero")]
        pub ip_range: String,
        #[serde(skip_serializing_if = "zero")]
        pub gateway: String,
        #[serde(skip_serializing_if = "zero")]
        pub auxiliary_addresses: BTreeMap<String, String>,
    }
}

wire! {
    #[serde(rename_all = "PascalCase")]
    pub struct NetworkContainer {
        pub name: String,
        #[serde(rename = "EndpointID")]
        pub endpoint_id: String,
        pub mac_address: String,
        /// With the prefix: `172.17.0.2/16`.
        #[serde(rename = "IPv4Address")]
        pub ipv4_address: String,
        #[serde(rename = "IPv6Address")]
        pub ipv6_address: String,
    }
}

wire! {
    /// The body of `POST /networks/create`.
    #[serde(rename_all = "PascalCase")]
    pub struct CreateRequest {
        pub name: String,
        pub driver: String,
        pub scope: String,
        #[serde(rename = "EnableIPv4", skip_serializing_if = "zero")]
        pub enable_ipv4: Option<bool>,
        #[serde(rename = "EnableIPv6", skip_serializing_if = "zero")]
        pub enable_ipv6: Option<bool>,
        #[serde(rename = "IPAM")]
        pub ipam: Option<Ipam>,
        pub internal: bool,
        pub attachable: bool,
        pub ingress: bool,
        pub config_only: bool,
        pub config_from: Option<ConfigReference>,
        pub options: Option<BTreeMap<String, String>>,
        pub labels: Option<BTreeMap<String, String>>,
    }
}

wire! {
    #[serde(rename_all = "PascalCase")]
    pub struct CreateResponse {
        pub id: String,
        pub warning: String,
    }
}

wire! {
    /// The body of `POST /networks/{id}/connect`.
    #[serde(rename_all = "PascalCase")]
    pub struct ConnectRequest {
        pub container: String,
        pub endpoint_config: Option<EndpointSettings>,
    }
}

wire! {
    /// The body of `POST /networks/{id}/disconnect`.
    #[serde(rename_all = "PascalCase")]
    pub struct DisconnectRequest {
        pub container: String,
        pub force: bool,
    }
}

wire! {
    #[serde(rename_all = "PascalCase")]
    pub struct PruneResponse {
        pub networks_deleted: Option<Vec<String>>,
    }
}
