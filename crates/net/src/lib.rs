//! Bridges, endpoints, address management, port publishing and the firewall.
