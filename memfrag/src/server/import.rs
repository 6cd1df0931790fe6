//! A recording that a page sends.
//!
//! It goes piece by piece into a file that has no name, so that nothing is left of it when the server ends, and is
//! opened as any other: the parsers take whatever is in it.

use super::download::{blocking, number};
use super::http::{Problem, Server};
use super::limits;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::mpsc;
use warp::Buf;
use warp::http::HeaderMap;
use warp::http::header::{CONTENT_DISPOSITION, CONTENT_LENGTH};
use warp::reply::{Reply, Response};

/// Pieces that may wait for the disk.
const WAITING: usize = 8;

/// Answers `POST /api/import`.
///
/// # Errors
/// When the body is too large, no recording, or does not arrive.
pub async fn import<S, B>(server: &Arc<Server>, headers: &HeaderMap, body: S) -> Result<Response, Problem>
where
    S: Stream<Item = Result<B, warp::Error>> + Send,
    B: Buf + Send,
{
    const FULL: Problem = Problem::Busy("as many recordings are imported as the server takes; start another server");
    let limit = server.import_bytes;
    let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|announced| announced > limit) {
        return Err(Problem::TooLarge(limit));
    }
    if !server.sources.has_room() {
        return Err(FULL);
    }
    let file = receive(body, limit).await?;
    let name = name(headers);
    let sources = Arc::clone(&server.sources);
    let added = blocking(move || sources.add(file, name)).await?;
    let added = added.map_err(|error| Problem::NoRecording(error.to_string()))?.ok_or(FULL)?;
    Ok(warp::reply::json(&serde_json::json!({ "source": added })).into_response())
}

/// Answers `DELETE /api/recording?source=N`: forgets a recording that was imported, and with the last who watches it its
/// file is gone.
///
/// # Errors
/// When there is no such import.
pub fn remove(server: &Server, query: &str) -> Result<Response, Problem> {
    let number = number(query)?;
    if number == 0 {
        return Err(Problem::Malformed("the recording that the server was started with stays as long as the server"));
    }
    if !server.sources.remove(number) {
        return Err(Problem::NotFound);
    }
    Ok(warp::reply::json(&serde_json::json!({ "source": number })).into_response())
}

/// Writes the body into a file without a name.
async fn receive<S, B>(body: S, limit: u64) -> Result<File, Problem>
where
    S: Stream<Item = Result<B, warp::Error>> + Send,
    B: Buf + Send,
{
    let (pieces, mut to_write) = mpsc::channel::<Bytes>(WAITING);
    let writer = tokio::task::spawn_blocking(move || -> io::Result<File> {
        let mut file = nameless()?;
        while let Some(piece) = to_write.blocking_recv() {
            file.write_all(&piece)?;
        }
        Ok(file)
    });
    let mut body = std::pin::pin!(body);
    let mut received = 0;
    loop {
        let next = tokio::time::timeout(limits::IMPORT_IDLE, body.next()).await;
        let Some(piece) = next.map_err(|_| Problem::Malformed("nothing of the recording came for too long"))? else {
            break;
        };
        let mut piece = piece.map_err(|_| Problem::Malformed("the recording did not come whole"))?;
        received += piece.remaining() as u64;
        if received > limit {
            return Err(Problem::TooLarge(limit));
        }
        // The writer has gone when the disk is full; it says so below.
        if pieces.send(piece.copy_to_bytes(piece.remaining())).await.is_err() {
            break;
        }
    }
    drop(pieces);
    let written = writer.await.map_err(|error| Problem::Failed(error.to_string()))?;
    written.map_err(|error| Problem::Failed(format!("the recording cannot be kept: {error}; free some space")))
}

/// A file that vanishes when it is closed: in the folder for temporary files, else in the larger one.
pub fn nameless() -> io::Result<File> {
    tempfile::tempfile().or_else(|_| tempfile::tempfile_in(Path::new("/var/tmp")))
}

/// What the page calls the file. It is only shown.
fn name(headers: &HeaderMap) -> String {
    let header = headers.get(CONTENT_DISPOSITION).and_then(|value| value.to_str().ok());
    let name = header.and_then(|value| value.split_once("filename=\"")?.1.split_once('"'));
    let name: String = name.map_or("", |(name, _)| name).chars().filter(|c| !c.is_control()).take(200).collect();
    if name.is_empty() { "imported".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use warp::http::HeaderValue;

    #[test]
    fn the_name_is_what_the_page_says() {
        let of =
            |value: &'static str| name(&HeaderMap::from_iter([(CONTENT_DISPOSITION, HeaderValue::from_static(value))]));
        assert_eq!(of("attachment; filename=\"a b.mfrag\""), "a b.mfrag");
        assert_eq!(of("attachment"), "imported");
        assert_eq!(of("attachment; filename=\"\""), "imported");
        assert_eq!(of("attachment; filename=\"open"), "imported");
        assert_eq!(name(&HeaderMap::new()), "imported");
    }

    #[test]
    fn a_nameless_file_has_no_name() {
        use std::os::unix::fs::MetadataExt;
        assert_eq!(nameless().unwrap().metadata().unwrap().nlink(), 0);
    }
}
