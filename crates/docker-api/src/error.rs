//! Errors on the wire: the one place where kinds become status codes.

use berth_base::Chain;
use berth_engine::ErrorKind;
use http::StatusCode;

/// What a client is told when a request fails: `{"message": ...}` under this status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub status: StatusCode,
    pub message: String,
}

impl Error {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
        }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// What gorilla's router, and so dockerd, says of a path or method that it does not know.
    pub fn page_not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "page not found")
    }
}

impl From<berth_engine::Error> for Error {
    fn from(error: berth_engine::Error) -> Self {
        let status = match error.kind {
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Conflict => StatusCode::CONFLICT,
            ErrorKind::Invalid => StatusCode::BAD_REQUEST,
            ErrorKind::NotModified => StatusCode::NOT_MODIFIED,
            ErrorKind::Forbidden => StatusCode::FORBIDDEN,
            ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            ErrorKind::NotImplemented => StatusCode::NOT_IMPLEMENTED,
            ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.message)
    }
}

impl From<berth_image::Error> for Error {
    fn from(error: berth_image::Error) -> Self {
        Self::new(image_status(error.kind()), Chain(&error).to_string())
    }
}

/// A failed pull says all of it in its own text.
impl From<berth_image::distribution::Error> for Error {
    fn from(error: berth_image::distribution::Error) -> Self {
        Self::new(image_status(error.kind()), error.to_string())
    }
}

impl From<berth_image::distribution::LoginError> for Error {
    fn from(error: berth_image::distribution::LoginError) -> Self {
        let status = match &error {
            error if error.is_unauthorized() => StatusCode::UNAUTHORIZED,
            berth_image::distribution::LoginError::Address(_) => StatusCode::BAD_REQUEST,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}

fn image_status(kind: berth_image::Kind) -> StatusCode {
    match kind {
        berth_image::Kind::NotFound => StatusCode::NOT_FOUND,
        berth_image::Kind::Conflict => StatusCode::CONFLICT,
        berth_image::Kind::Invalid => StatusCode::BAD_REQUEST,
        berth_image::Kind::Io => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl From<berth_oci::reference::InvalidReference> for Error {
    fn from(error: berth_oci::reference::InvalidReference) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<berth_docker::json::Error> for Error {
    fn from(error: berth_docker::json::Error) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<berth_docker::filters::Error> for Error {
    fn from(error: berth_docker::filters::Error) -> Self {
        Self::invalid(error.to_string())
    }
}
