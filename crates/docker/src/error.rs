//! The body of every answer that is not a success.

use crate::json::wire;

wire! {
    pub struct ErrorResponse {
        pub message: String,
    }
}
