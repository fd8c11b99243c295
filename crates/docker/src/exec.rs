//! Further commands in a running container.

use crate::json::{StrSlice, wire, zero};

wire! {
    /// The body of `POST /containers/{id}/exec`.
    #[serde(rename_all = "PascalCase")]
    pub struct CreateRequest {
        pub user: String,
        pub privileged: bool,
        pub tty: bool,
        /// Rows, then columns.
        #[serde(skip_serializing_if = "zero")]
        pub console_size: Option<[u32; 2]>,
        pub attach_stdin: bool,
        pub attach_stderr: bool,
        pub attach_stdout: bool,
        pub detach: bool,
        pub detach_keys: String,
        pub env: Option<Vec<String>>,
        pub working_dir: String,
        pub cmd: Option<StrSlice>,
    }
}

wire! {
    #[serde(rename_all = "PascalCase")]
    pub struct CreateResponse {
        pub id: String,
    }
}

wire! {
    /// The body of `POST /exec/{id}/start`.
    #[serde(rename_all = "PascalCase")]
    pub struct StartRequest {
        pub detach: bool,
        pub tty: bool,
        #[serde(skip_serializing_if = "zero")]
        pub console_size: Option<[u32; 2]>,
    }
}

wire! {
    /// The answer of `GET /exec/{id}/json`.
    pub struct Inspect {
        #[serde(rename = "ID")]
        pub id: String,
        #[serde(rename = "Running")]
        pub running: bool,
        #[serde(rename = "ExitCode")]
        pub exit_code: Option<i64>,
        #[serde(rename = "ProcessConfig")]
        pub process_config: ProcessConfig,
        #[serde(rename = "OpenStdin")]
        pub open_stdin: bool,
        #[serde(rename = "OpenStderr")]
        pub open_stderr: bool,
        #[serde(rename = "OpenStdout")]
        pub open_stdout: bool,
        #[serde(rename = "CanRemove")]
        pub can_remove: bool,
        #[serde(rename = "ContainerID")]
        pub container_id: String,
        #[serde(rename = "DetachKeys")]
        pub detach_keys: Option<String>,
        #[serde(rename = "Pid")]
        pub pid: i64,
    }
}

wire! {
    pub struct ProcessConfig {
        pub tty: bool,
        pub entrypoint: String,
        pub arguments: Vec<String>,
        #[serde(skip_serializing_if = "zero")]
        pub privileged: Option<bool>,
        #[serde(skip_serializing_if = "zero")]
        pub user: String,
    }
}
