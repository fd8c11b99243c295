//! The command line: docker's words over the Docker API.
