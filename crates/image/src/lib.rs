//! Content-addressed blobs, layers, snapshots, archives and the distribution client.
