//! What long operations tell while they run, in the shape of Docker's progress messages.

use std::sync::Arc;

/// One message. An empty `id` speaks of the whole operation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// The short id of the layer, or the tag.
    pub id: String,
    pub status: String,
    /// Bytes done and to do; no total means that it is not known.
    pub current: Option<u64>,
    pub total: Option<u64>,
    /// Plain text of a `stream` message, instead of a status.
    pub stream: Option<String>,
}

/// Receives the messages; called from several threads, and should not block.
pub type Reporter = Arc<dyn Fn(Progress) + Send + Sync>;

impl Progress {
    pub fn status(id: impl Into<String>, status: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            status: status.into(),
            ..Self::default()
        }
    }

    pub fn of(id: impl Into<String>, status: impl Into<String>, current: u64, total: u64) -> Self {
        Self {
            current: Some(current),
            total: Some(total),
            ..Self::status(id, status)
        }
    }

    pub fn stream(text: impl Into<String>) -> Self {
        Self {
            stream: Some(text.into()),
            ..Self::default()
        }
    }
}

/// A reporter that nobody listens to.
pub fn silent() -> Reporter {
    Arc::new(|_| {})
}
