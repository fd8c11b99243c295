//! Plain, gzip and zstd streams, told apart by their first bytes, decompressed and hashed in a
//! thread of their own.

use std::io::{self, BufReader, Cursor, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use berth_oci::{Algorithm, Digest, Hasher};

use super::Error;

const CHUNK: usize = 256 << 10;
/// Chunks on their way between the threads: 1 MiB.
const QUEUE: usize = 4;
/// Enough to tell the compressions apart.
const MAGIC: usize = 6;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

/// Finds the compression by the first bytes.
pub(crate) fn sniff(magic: &[u8]) -> Result<Compression, Error> {
    Ok(match magic {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
        // A skippable frame, as zstd:chunked may begin with.
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
        [b'B', b'Z', b'h', ..] => return Err(Error::Compression("bzip2")),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => return Err(Error::Compression("xz")),
        _ => Compression::None,
    })
}

/// The decompressed stream.
pub(crate) fn decoder<'a>(
    mut source: impl Read + Send + 'a,
) -> Result<(Compression, Box<dyn Read + Send + 'a>), Error> {
    let mut magic = Vec::with_capacity(MAGIC);
    source
        .by_ref()
        .take(MAGIC as u64)
        .read_to_end(&mut magic)
        .map_err(read_error)?;
    let compression = sniff(&magic)?;
    let source = Cursor::new(magic).chain(source);
    let stream: Box<dyn Read + Send> = match compression {
        Compression::None => Box::new(source),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(
            BufReader::with_capacity(CHUNK, source),
        )),
        Compression::Zstd => Box::new(
            zstd::stream::read::Decoder::with_buffer(BufReader::with_capacity(CHUNK, source))
                .map_err(read_error)?,
        ),
    };
    Ok((compression, stream))
}

/// Lets `consume` read the decompressed stream, and returns the digest of all of it.
pub(crate) fn pipeline(
    source: impl Read + Send,
    consume: impl FnOnce(&mut Chunks) -> Result<(), Error>,
) -> Result<Digest, Error> {
    std::thread::scope(|scope| {
        let (full, filled) = sync_channel(QUEUE);
        let (empty, emptied) = sync_channel(QUEUE + 2);
        let producer = std::thread::Builder::new()
            .name("image-decompress".to_owned())
            .spawn_scoped(scope, move || produce(source, &full, &emptied))
            .map_err(|source| Error::Archive("start a thread".to_owned(), Some(source)))?;
        let mut chunks = Chunks {
            filled,
            empty,
            current: Vec::new(),
            position: 0,
        };
        let consumed = consume(&mut chunks);
        // A producer that still writes sees that nobody reads.
        drop(chunks);
        let produced = producer.join().unwrap_or(Err(Error::Lost));
        match (consumed, produced) {
            (Ok(()), produced) => produced,
            // What stopped the producer is why the consumer saw an end.
            (Err(Error::Archive(..)), Err(error)) if !matches!(error, Error::Lost) => Err(error),
            (Err(error), _) => Err(error),
        }
    })
}

fn produce(
    source: impl Read + Send,
    full: &SyncSender<Vec<u8>>,
    emptied: &Receiver<Vec<u8>>,
) -> Result<Digest, Error> {
    let (_, mut stream) = decoder(source)?;
    let mut hasher = Hasher::new(Algorithm::Sha256);
    loop {
        let mut chunk = emptied.try_recv().unwrap_or_default();
        chunk.resize(CHUNK, 0);
        let length = fill(&mut stream, &mut chunk)?;
        if length == 0 {
            return Ok(hasher.finish());
        }
        chunk.truncate(length);
        hasher.update(&chunk);
        if full.send(chunk).is_err() {
            return Err(Error::Lost);
        }
    }
}

/// Fills the buffer unless the stream ends: fewer and larger chunks for the other thread.
fn fill(stream: &mut impl Read, buffer: &mut [u8]) -> Result<usize, Error> {
    let mut filled = 0;
    while filled < buffer.len() {
        match stream.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(read_error(error)),
        }
    }
    Ok(filled)
}

fn read_error(error: io::Error) -> Error {
    let text = match error.kind() {
        io::ErrorKind::UnexpectedEof => "unexpected EOF",
        _ => "read the compressed stream",
    };
    Error::Archive(text.to_owned(), Some(error))
}

/// The consumer's side of the pipeline.
pub(crate) struct Chunks {
    filled: Receiver<Vec<u8>>,
    empty: SyncSender<Vec<u8>>,
    current: Vec<u8>,
    position: usize,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position == self.current.len() {
            let Ok(next) = self.filled.recv() else {
                return Ok(0);
            };
            let used = std::mem::replace(&mut self.current, next);
            // A full return queue only costs an allocation.
            drop(self.empty.try_send(used));
            self.position = 0;
        }
        let length = buffer.len().min(self.current.len() - self.position);
        buffer[..length].copy_from_slice(&self.current[self.position..self.position + length]);
        self.position += length;
        Ok(length)
    }
}
