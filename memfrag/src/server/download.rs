//! A recording as a download: the file as it is now, cut behind its last whole chunk; or a copy of it that may leave the
//! machine.

use super::http::{Problem, Server};
use super::import::nameless;
use super::source::Source;
use crate::recording::{Reader, Redactor};
use bytes::Bytes;
use futures_util::stream;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use warp::http::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use warp::reply::{Reply, Response};

/// Bytes read at once.
const PIECE: u64 = 256 << 10;

/// Answers `GET /api/recording?source=N`, with `&redact` by a redacted copy.
///
/// # Errors
/// When there is no such source, or its file cannot be read or copied.
pub async fn recording(server: &Server, query: &str) -> Result<Response, Problem> {
    let (redact, query) = query.strip_suffix("&redact").map_or((false, query), |query| (true, query));
    let source = server.sources.get(number(query)?).ok_or(Problem::NotFound)?;
    let name = if redact { "redacted.mfrag".to_owned() } else { file_name(source.name()) };
    let (file, length) = if redact {
        let _place = server.copies.take().ok_or(Problem::Busy("other recordings are being redacted"))?;
        blocking(move || redacted(&source)).await?.map_err(Problem::Failed)?
    } else {
        blocking(move || whole(&source)).await?.map_err(Problem::Failed)?
    };
    let file = Arc::new(file);
    let pieces = stream::try_unfold(0, move |at| {
        let file = Arc::clone(&file);
        async move {
            if at >= length {
                return Ok(None);
            }
            let piece = tokio::task::spawn_blocking(move || {
                let mut piece = vec![0; PIECE.min(length - at) as usize];
                // A file that has become shorter ends the connection: the browser is to know that it is not whole.
                file.read_exact_at(&mut piece, at).map(|()| Bytes::from(piece))
            });
            let piece = piece.await.map_err(io::Error::other)??;
            let next = at + piece.len() as u64;
            Ok::<_, io::Error>(Some((piece, next)))
        }
    });
    let mut response = warp::reply::stream(pieces).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    if let Ok(value) = HeaderValue::from_str(&format!("attachment; filename=\"{name}\"")) {
        headers.insert(CONTENT_DISPOSITION, value);
    }
    Ok(response)
}

/// The number of a recording in a request's query.
pub(super) fn number(query: &str) -> Result<usize, Problem> {
    let number = query.strip_prefix("source=").and_then(|number| number.parse().ok());
    number.ok_or(Problem::Malformed("name the recording: ?source=N"))
}

/// The file, and how many of its bytes are whole now.
fn whole(source: &Source) -> Result<(File, u64), String> {
    let file = source.file().try_clone().map_err(|error| error.to_string())?;
    Ok((file, settled(source)?.whole_bytes()))
}

/// The recording as it is now. What is being written may become a chunk; a copy made now must do without.
fn settled(source: &Source) -> Result<Reader, String> {
    let mut reader = Reader::clone(&source.reader());
    reader.settle().map_err(|error| error.to_string())?;
    Ok(reader)
}

/// A redacted copy in a file without a name, and how many bytes it has.
fn redacted(source: &Source) -> Result<(File, u64), String> {
    let reader = settled(source)?;
    let copy = || -> io::Result<_> {
        let file = nameless()?;
        Redactor::new()?.write(&reader, file.try_clone()?, Path::new("the copy")).map_err(io::Error::other)?;
        let length = file.metadata()?.len();
        Ok((file, length))
    };
    copy().map_err(|error| format!("the recording cannot be copied: {error}"))
}

/// Runs what may wait for a disk.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Problem::Failed(error.to_string()))
}

/// A name that is safe in a header and in anybody's folder.
fn file_name(name: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "._-+".contains(c) { c } else { '_' };
    let stem = name.strip_suffix(".mfrag").unwrap_or(name);
    let stem: String = stem.trim_start_matches('.').chars().take(100).map(safe).collect();
    format!("{}.mfrag", if stem.is_empty() { "recording" } else { &stem })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_safe() {
        assert_eq!(file_name("memfrag.redis-server.12.mfrag"), "memfrag.redis-server.12.mfrag");
        assert_eq!(file_name("../../etc/passwd"), "_.._etc_passwd.mfrag");
        assert_eq!(file_name("a\"b\r\nSet-Cookie: x"), "a_b__Set-Cookie__x.mfrag");
        assert_eq!(file_name(".mfrag"), "recording.mfrag");
        assert_eq!(file_name("größe 1"), "gr__e_1.mfrag");
        assert!(file_name(&"x".repeat(1000)).len() < 120);
    }
}
