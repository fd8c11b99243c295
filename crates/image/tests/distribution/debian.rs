//! Debian's docker-registry, filled by skopeo: plain, with TLS, and with basic authentication.
