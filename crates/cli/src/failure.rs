//! How commands end: with an exit code, or with words for stderr and an exit code.

use berth_docker_client as client;

/// The exit code of a command that could do what it should.
pub type Outcome = Result<u8, Failure>;

#[derive(Debug)]
pub struct Failure {
    /// Empty when everything has been said.
    pub message: String,
    pub code: u8,
    /// No daemon answered, so that there is nothing to look up in any help.
    pub unreachable: bool,
}

impl Failure {
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            code: 1,
            unreachable: false,
        }
    }

    /// Ends with a code and no words.
    pub fn silent(code: u8) -> Self {
        Self {
            code,
            ..Self::new("")
        }
    }

    #[must_use]
    pub fn code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Self {
        let unreachable = matches!(
            error,
            client::Error::Unreachable { .. } | client::Error::Denied { .. }
        );
        let message = match &error {
            client::Error::Unreachable { .. } => error.to_string(),
            error => berth_base::Chain(error).to_string(),
        };
        Self {
            unreachable,
            ..Self::new(message)
        }
    }
}

/// A reader of our output that went away is no mistake of anybody's.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self::silent(BROKEN_PIPE),
            _ => Self::new(error.to_string()),
        }
    }
}

/// What a shell reports for a process that SIGPIPE ended.
const BROKEN_PIPE: u8 = 128 + 13;

impl From<crate::template::Error> for Failure {
    fn from(error: crate::template::Error) -> Self {
        Self::new(format!("template parsing error: {error}"))
    }
}
