//! Names, ids, sizes, times and the printer of error chains: small things that every layer says the same way.
