//! Reads an archive member by member from a stream, through one large buffer.

use std::io::Read;

use super::header::Header;
use super::pax::Pax;
use super::{BLOCK, Entry, EntryKind, Error, Segment, Time, sparse};

/// Large, since every refill is a system call or a wait for another thread.
const BUFFER: usize = 256 << 10;
/// A long name or a PAX header that is larger is hostile: paths end at 4 KiB, xattrs at 64 KiB.
const MAX_EXTENSION: u64 = 1 << 20;

/// No file is larger: offsets are signed.
const MAX_SIZE: u64 = i64::MAX as u64 - BLOCK as u64;

pub(crate) struct Reader<R> {
    source: R,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// Bytes of the current member that are not taken yet, and the padding after them.
    left: u64,
    padding: u64,
}

impl<R: Read> Reader<R> {
    pub(crate) fn new(source: R) -> Self {
        Self {
            source,
            buffer: vec![0; BUFFER].into_boxed_slice(),
            start: 0,
            end: 0,
            left: 0,
            padding: 0,
        }
    }

    /// The next member, after skipping what is left of the one before; `None` at the end.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>, Error> {
        let mut extensions = Extensions::default();
        loop {
            self.skip_rest()?;
            let mut block = [0; BLOCK];
            if !self.read_block_or_end(&mut block)? {
                return Ok(None);
            }
            let Some(header) = Header::parse(&block)? else {
                return Ok(None);
            };
            let fields = Fields::new(&header)?;
            match header.type_flag() {
                b'x' => {
                    let data = self.extension(&fields)?;
                    extensions.pax = Pax::parse(&data).map_err(|p| fields.problem(p))?;
                }
                // Global headers carry comments (git) and nothing that layers use.
                b'g' => self.extent(fields.size),
                b'L' => {
                    extensions.path = Some(super::header::text(&self.extension(&fields)?).into())
                }
                b'K' => {
                    extensions.link = Some(super::header::text(&self.extension(&fields)?).into())
                }
                b'V' => self.extent(0),
                flag => return self.member(flag, &header, fields, extensions).map(Some),
            }
        }
    }

    /// The next piece of the member's data, empty at its end. Take it with [`Reader::consume`].
    pub(crate) fn data(&mut self) -> Result<&[u8], Error> {
        if self.left == 0 {
            return Ok(&[]);
        }
        if self.start == self.end && !self.refill()? {
            return Err(Error::Truncated);
        }
        let available = self.end - self.start;
        let length = usize::try_from(self.left).map_or(available, |left| left.min(available));
        Ok(&self.buffer[self.start..self.start + length])
    }

    pub(crate) fn consume(&mut self, length: usize) {
        self.start += length;
        self.left -= length as u64;
    }

    /// The rest of the member's data, which must not be more than `limit`.
    pub(crate) fn read_all(&mut self, limit: u64) -> Result<Vec<u8>, Error> {
        if self.left > limit {
            return Err(Error::Header);
        }
        let mut data = Vec::with_capacity(usize::try_from(self.left).unwrap_or(0));
        loop {
            let piece = self.data()?;
            if piece.is_empty() {
                return Ok(data);
            }
            let length = piece.len();
            data.extend_from_slice(piece);
            self.consume(length);
        }
    }

    /// Reads the source to its end, past the end of the archive.
    pub(crate) fn drain(&mut self) -> Result<(), Error> {
        self.start = self.end;
        while self.refill()? {
            self.start = self.end;
        }
        Ok(())
    }

    fn member(
        &mut self,
        flag: u8,
        header: &Header<'_>,
        fields: Fields,
        extensions: Extensions,
    ) -> Result<Entry, Error> {
        let Extensions { path, link, pax } = extensions;
        let sparse_name = pax.sparse.name.clone();
        let path = sparse_name
            .or(pax.path.clone())
            .or(path)
            .unwrap_or_else(|| header.path());
        let fields = Fields {
            path: path.clone(),
            ..fields
        };
        let kind = match flag {
            b'0' | 0 | b'7' if path.ends_with(b"/") => EntryKind::Directory,
            b'0' | 0 | b'7' | b'S' => EntryKind::File,
            b'1' => EntryKind::HardLink,
            b'2' => EntryKind::Symlink,
            b'3' => EntryKind::CharDevice,
            b'4' => EntryKind::BlockDevice,
            b'5' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            _ => return Err(fields.problem("unsupported type of entry")),
        };
        // Only files have data; the sizes of the others are decoration.
        let stored = match kind {
            EntryKind::File => pax.size.unwrap_or(fields.size),
            _ => 0,
        };
        if stored > MAX_SIZE {
            return Err(fields.problem("malformed size"));
        }
        self.extent(stored);
        let sparse = match kind {
            EntryKind::File => self.sparse_map(flag, header, &pax, &fields)?,
            _ => None,
        };
        let size = sparse.as_ref().map_or(stored, |(size, _)| *size);
        let (major, minor) = header.device().unwrap_or_default();
        let device = match kind {
            EntryKind::CharDevice | EntryKind::BlockDevice => (
                u32::try_from(major).map_err(|_| fields.problem("malformed device number"))?,
                u32::try_from(minor).map_err(|_| fields.problem("malformed device number"))?,
            ),
            _ => (0, 0),
        };
        Ok(Entry {
            link: pax.link.or(link).unwrap_or_else(|| header.link()),
            kind,
            mode: fields.mode,
            uid: pax.uid.unwrap_or(fields.uid),
            gid: pax.gid.unwrap_or(fields.gid),
            size,
            mtime: pax.mtime.unwrap_or(fields.mtime),
            device,
            xattrs: pax.xattrs,
            sparse: sparse.map(|(_, map)| map),
            path,
        })
    }

    /// The real size and the map of a sparse file, after taking what of the map lies in the data.
    fn sparse_map(
        &mut self,
        flag: u8,
        header: &Header<'_>,
        pax: &Pax,
        fields: &Fields,
    ) -> Result<Option<(u64, Vec<Segment>)>, Error> {
        let (size, map) = if flag == b'S' {
            self.gnu_map(header, fields)?
        } else if (pax.sparse.major, pax.sparse.minor) == (Some(1), Some(0)) {
            let size = pax.sparse.real_size.unwrap_or(self.left);
            let available = self.left;
            let mut taken = 0;
            let (map, _) = sparse::read_v1(
                |block| {
                    taken += BLOCK as u64;
                    if taken > available {
                        return Err(Error::Truncated);
                    }
                    self.read_block(block)
                },
                |problem| fields.problem(problem),
            )?;
            self.left = available - taken;
            (size, map)
        } else if let Some(map) = &pax.sparse.map {
            let size = pax.sparse.real_size.unwrap_or(self.left);
            (size, map.clone())
        } else {
            return Ok(None);
        };
        if size > MAX_SIZE || !sparse::is_sound(&map, size, self.left) {
            return Err(fields.problem("malformed sparse map"));
        }
        Ok(Some((size, map)))
    }

    fn gnu_map(
        &mut self,
        header: &Header<'_>,
        fields: &Fields,
    ) -> Result<(u64, Vec<Segment>), Error> {
        let malformed = || fields.problem("malformed sparse map");
        let (first, mut more, size) = header.gnu_sparse().ok_or_else(malformed)?;
        let size = u64::try_from(size).map_err(|_| malformed())?;
        let mut map = Vec::new();
        sparse::add_gnu(&mut map, first).map_err(|p| fields.problem(p))?;
        while more {
            let mut block = [0; BLOCK];
            self.read_block(&mut block)?;
            sparse::add_gnu(&mut map, &block[..504]).map_err(|p| fields.problem(p))?;
            more = block[504] != 0;
        }
        Ok((size, map))
    }

    fn extension(&mut self, fields: &Fields) -> Result<Vec<u8>, Error> {
        if fields.size > MAX_EXTENSION {
            return Err(fields.problem("oversized extended header"));
        }
        self.extent(fields.size);
        self.read_all(MAX_EXTENSION)
    }

    fn extent(&mut self, size: u64) {
        self.left = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
    }

    fn skip_rest(&mut self) -> Result<(), Error> {
        let mut skip = self.left + self.padding;
        while skip > 0 {
            if self.start == self.end && !self.refill()? {
                // Some writers leave the last padding out.
                return if self.left == 0 {
                    Ok(())
                } else {
                    Err(Error::Truncated)
                };
            }
            let available = (self.end - self.start) as u64;
            let step = skip.min(available);
            self.start += usize::try_from(step).unwrap_or(usize::MAX);
            self.left -= step.min(self.left);
            skip -= step;
        }
        self.extent(0);
        Ok(())
    }

    fn read_block(&mut self, block: &mut [u8; BLOCK]) -> Result<(), Error> {
        if self.read_block_or_end(block)? {
            Ok(())
        } else {
            Err(Error::Truncated)
        }
    }

    /// `false` at the end of the source, which is an end of the archive even without zero blocks.
    fn read_block_or_end(&mut self, block: &mut [u8; BLOCK]) -> Result<bool, Error> {
        let mut filled = 0;
        while filled < BLOCK {
            if self.start == self.end && !self.refill()? {
                return if filled == 0 {
                    Ok(false)
                } else {
                    Err(Error::Truncated)
                };
            }
            let step = (BLOCK - filled).min(self.end - self.start);
            block[filled..filled + step]
                .copy_from_slice(&self.buffer[self.start..self.start + step]);
            self.start += step;
            filled += step;
        }
        Ok(true)
    }

    /// Fills the empty buffer; `false` at the end of the source.
    fn refill(&mut self) -> Result<bool, Error> {
        loop {
            match self.source.read(&mut self.buffer) {
                Ok(length) => {
                    (self.start, self.end) = (0, length);
                    return Ok(length > 0);
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                    return Err(Error::Truncated);
                }
                Err(error) => return Err(Error::Read(error)),
            }
        }
    }
}

/// What extension members say about the member that follows them.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: Pax,
}

/// The numbers of a header.
struct Fields {
    path: Vec<u8>,
    mode: u32,
    uid: u64,
    gid: u64,
    size: u64,
    mtime: Time,
}

impl Fields {
    fn new(header: &Header<'_>) -> Result<Self, Error> {
        let path = header.path();
        let problem = |problem| Error::Field {
            path: String::from_utf8_lossy(&path).into_owned(),
            problem,
        };
        let positive = |value: Option<i64>, text| {
            value
                .and_then(|value| u64::try_from(value).ok())
                .ok_or_else(|| problem(text))
        };
        Ok(Self {
            size: Some(positive(header.size(), "malformed size")?)
                .filter(|size| *size <= MAX_SIZE)
                .ok_or_else(|| problem("malformed size"))?,
            mode: u32::try_from(positive(header.mode(), "malformed mode")? & 0o7777)
                .map_err(|_| problem("malformed mode"))?,
            uid: positive(header.uid(), "malformed uid")?,
            gid: positive(header.gid(), "malformed gid")?,
            mtime: Time {
                seconds: header.mtime().ok_or_else(|| problem("malformed mtime"))?,
                nanos: 0,
            },
            path,
        })
    }

    fn problem(&self, problem: &'static str) -> Error {
        Error::Field {
            path: String::from_utf8_lossy(&self.path).into_owned(),
            problem,
        }
    }
}
