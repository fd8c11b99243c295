//! Docker Engine API wire types. No I/O.
