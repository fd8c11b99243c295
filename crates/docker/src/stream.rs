//! What flows: progress messages, and the frames that carry stdout and stderr on one stream.

use crate::json::{wire, zero};

wire! {
    /// One line of a pull, load or import.
    pub struct JsonMessage {
        #[serde(skip_serializing_if = "zero")]
        pub stream: String,
        #[serde(skip_serializing_if = "zero")]
        pub status: String,
        #[serde(rename = "progressDetail", skip_serializing_if = "zero")]
        pub progress_detail: Option<ProgressDetail>,
        /// `progress_detail` as a bar, for clients that cannot draw one.
        #[serde(skip_serializing_if = "zero")]
        pub progress: String,
        #[serde(skip_serializing_if = "zero")]
        pub id: String,
        #[serde(rename = "errorDetail", skip_serializing_if = "zero")]
        pub error_detail: Option<ErrorDetail>,
        #[serde(skip_serializing_if = "zero")]
        pub error: String,
        #[serde(skip_serializing_if = "zero")]
        pub aux: Option<serde_json::Value>,
    }
}

wire! {
    pub struct ProgressDetail {
        #[serde(skip_serializing_if = "zero")]
        pub current: i64,
        #[serde(skip_serializing_if = "zero")]
        pub total: i64,
        #[serde(skip_serializing_if = "zero")]
        pub start: i64,
        #[serde(skip_serializing_if = "zero")]
        pub units: String,
    }
}

wire! {
    pub struct ErrorDetail {
        #[serde(skip_serializing_if = "zero")]
        pub code: i64,
        #[serde(skip_serializing_if = "zero")]
        pub message: String,
    }
}

/// Which stream a frame belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    Stdin = 0,
    Stdout = 1,
    Stderr = 2,
    /// An error of the daemon in place of output.
    SystemError = 3,
}

/// Bytes of a frame's header.
pub const FRAME_HEADER_BYTES: usize = 8;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unrecognized stream: {0}")]
pub struct UnknownChannel(pub u8);

/// The header of a frame: the channel, three zeros, the length as a big-endian `u32`.
pub fn frame_header(channel: Channel, length: u32) -> [u8; FRAME_HEADER_BYTES] {
    let [a, b, c, d] = length.to_be_bytes();
    [channel as u8, 0, 0, 0, a, b, c, d]
}

/// The channel and the length of the payload that follows.
pub fn parse_frame_header(
    header: [u8; FRAME_HEADER_BYTES],
) -> Result<(Channel, u32), UnknownChannel> {
    let [channel, _, _, _, a, b, c, d] = header;
    let channel = match channel {
        0 => Channel::Stdin,
        1 => Channel::Stdout,
        2 => Channel::Stderr,
        3 => Channel::SystemError,
        other => return Err(UnknownChannel(other)),
    };
    Ok((channel, u32::from_be_bytes([a, b, c, d])))
}

/// Appends whole frames that carry `payload`.
pub fn encode_frames(out: &mut Vec<u8>, channel: Channel, payload: &[u8]) {
    for chunk in payload.chunks(MAX_FRAME_PAYLOAD_BYTES) {
        let length = u32::try_from(chunk.len()).expect("a chunk is at most 16 MiB");
        out.extend_from_slice(&frame_header(channel, length));
        out.extend_from_slice(chunk);
    }
}

/// The largest payload that [`encode_frames`] puts into one frame.
pub const MAX_FRAME_PAYLOAD_BYTES: usize = 16 << 20;

/// Takes a stream of frames apart, however it is cut into reads.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    header: Vec<u8>,
    /// The frame under way: its channel and how much of its payload is still to come.
    open: Option<(Channel, usize)>,
}

impl FrameDecoder {
    /// Calls `sink` with each piece of payload in `input`, in order.
    pub fn feed(
        &mut self,
        mut input: &[u8],
        mut sink: impl FnMut(Channel, &[u8]),
    ) -> Result<(), UnknownChannel> {
        while !input.is_empty() {
            match self.open {
                Some((channel, left)) => {
                    let (payload, rest) = input.split_at(left.min(input.len()));
                    sink(channel, payload);
                    input = rest;
                    let left = left - payload.len();
                    self.open = (left > 0).then_some((channel, left));
                }
                None => {
                    let missing = FRAME_HEADER_BYTES - self.header.len();
                    let (part, rest) = input.split_at(missing.min(input.len()));
                    self.header.extend_from_slice(part);
                    input = rest;
                    if let Ok(header) = <[u8; FRAME_HEADER_BYTES]>::try_from(&self.header[..]) {
                        self.header.clear();
                        let (channel, length) = parse_frame_header(header)?;
                        self.open = (length > 0).then_some((channel, length as usize));
                    }
                }
            }
        }
        Ok(())
    }

    /// True if the stream may end here.
    pub fn is_between_frames(&self) -> bool {
        self.open.is_none() && self.header.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_cut() {
        let mut wire = Vec::new();
        encode_frames(&mut wire, Channel::Stdout, b"hello");
        encode_frames(&mut wire, Channel::Stderr, b"");
        encode_frames(&mut wire, Channel::Stderr, b"world");
        for size in 1..wire.len() {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let mut decoder = FrameDecoder::default();
            for piece in wire.chunks(size) {
                decoder
                    .feed(piece, |channel, payload| match channel {
                        Channel::Stdout => out.extend_from_slice(payload),
                        _ => err.extend_from_slice(payload),
                    })
                    .unwrap();
            }
            assert!(decoder.is_between_frames());
            assert_eq!((&out[..], &err[..]), (&b"hello"[..], &b"world"[..]));
        }
    }

    #[test]
    fn an_unknown_channel_is_refused() {
        let got = FrameDecoder::default().feed(&[9, 0, 0, 0, 0, 0, 0, 1], |_, _| ());
        assert_eq!(got, Err(UnknownChannel(9)));
    }
}
