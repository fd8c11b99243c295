//! A body that is a stream of JSON values: pull progress, events, statistics.

use std::marker::PhantomData;

use bytes::{Buf, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;

use crate::Error;

/// Values as they arrive. Whatever separates them, since daemons differ in that.
pub struct Messages<T> {
    body: Incoming,
    buffer: BytesMut,
    action: String,
    value: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Messages<T> {
    pub(crate) fn new(body: Incoming, action: String) -> Self {
        Self {
            body,
            buffer: BytesMut::new(),
            action,
            value: PhantomData,
        }
    }

    /// The next value, or `None` at the end of the stream.
    pub async fn next(&mut self) -> Result<Option<T>, Error> {
        loop {
            if let Some(value) = self.decode()? {
                return Ok(Some(value));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.buffer.extend_from_slice(data);
                    }
                }
                Some(Err(source)) => {
                    return Err(Error::Transport {
                        action: self.action.clone(),
                        source,
                    });
                }
                None => return self.finish(),
            }
        }
    }

    fn decode(&mut self) -> Result<Option<T>, Error> {
        let mut values = serde_json::Deserializer::from_slice(&self.buffer).into_iter::<T>();
        match values.next() {
            Some(Ok(value)) => {
                let used = values.byte_offset();
                self.buffer.advance(used);
                Ok(Some(value))
            }
            Some(Err(error)) if error.is_eof() => Ok(None),
            Some(Err(source)) => Err(Error::Decode {
                action: self.action.clone(),
                source,
            }),
            None => Ok(None),
        }
    }

    /// At the end of the body only white space may be left.
    fn finish(&mut self) -> Result<Option<T>, Error> {
        if self.buffer.iter().all(u8::is_ascii_whitespace) {
            return Ok(None);
        }
        serde_json::from_slice(&self.buffer.split())
            .map(Some)
            .map_err(|source| Error::Decode {
                action: self.action.clone(),
                source,
            })
    }
}
