//! The page: the files of `web/dist`, built into the program and found by their exact names.
//!
//! No path is ever made from a request. A debug build reads the same files from the source tree, so that the page can
//! be changed without building the program.

use bytes::Bytes;
use include_dir::{Dir, include_dir};

static EMBEDDED: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/../web/dist");

/// A file of the page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asset {
    /// What is in it.
    pub content: Bytes,
    /// Its `Content-Type`.
    pub kind: &'static str,
}

/// The file that a request's path names; `None` when there is none.
pub fn find(path: &str) -> Option<Asset> {
    let name = match path.strip_prefix('/')? {
        "" => "index.html",
        name => name,
    };
    let (content, kind) = (content(name)?, kind(name)?);
    Some(Asset { content, kind })
}

#[cfg(not(debug_assertions))]
fn content(name: &str) -> Option<Bytes> {
    embedded(name)
}

#[cfg(debug_assertions)]
fn content(name: &str) -> Option<Bytes> {
    let Ok(files) = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../web/dist")) else {
        return embedded(name);
    };
    let file = files.flatten().find(|file| file.file_name().to_str() == Some(name))?;
    std::fs::read(file.path()).ok().map(Bytes::from)
}

/// Only files that lie directly in the folder.
fn embedded(name: &str) -> Option<Bytes> {
    let file = EMBEDDED.files().find(|file| file.path().to_str() == Some(name))?;
    Some(Bytes::from_static(file.contents()))
}

/// What is not known is not served.
fn kind(name: &str) -> Option<&'static str> {
    Some(match name.rsplit_once('.')?.1 {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "txt" => "text/plain; charset=utf-8",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_found_by_its_names() {
        let index = find("/").expect("there is a page");
        assert_eq!(index.kind, "text/html; charset=utf-8");
        assert!(index.content.starts_with(b"<!doctype html>"));
        assert_eq!(find("/index.html"), Some(index));
        assert!(embedded("index.html").is_some());
        for file in EMBEDDED.files() {
            let name = file.path().to_str().expect("a plain name");
            assert!(find(&format!("/{name}")).is_some(), "{name} has a type that is not known");
        }
    }

    #[test]
    fn nothing_else_is_found() {
        for path in [
            "",
            "index.html",
            "//index.html",
            "/./index.html",
            "/../dist/index.html",
            "/../src/index.html",
            "/..%2fsrc%2findex.html",
            "/%69ndex.html",
            "/index.html/",
            "/index.html\0",
            "/INDEX.HTML",
            "/etc/passwd",
            "/../../Cargo.toml",
        ] {
            assert_eq!(find(path), None, "{path}");
        }
    }
}
