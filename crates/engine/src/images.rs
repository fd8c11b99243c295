//! The image crate's errors as the engine's.

use berth_base::Chain;
use berth_image::Kind;

use crate::error::{Error, ErrorKind};

/// The same failure, in the same words.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub fn from_image(error: berth_image::Error) -> Error {
    let kind = match error.kind() {
        Kind::NotFound => ErrorKind::NotFound,
        Kind::Conflict => ErrorKind::Conflict,
        Kind::Invalid => ErrorKind::Invalid,
        Kind::Io => ErrorKind::Internal,
    };
    Error::new(kind, Chain(&error).to_string())
}
