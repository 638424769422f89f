//! Files that the manager serves under `/vdi/`, such as the browser client.

use std::path::{Component, Path};

use ::http::Response;
use ::http::header::{CONTENT_TYPE, HeaderValue};

use super::body::{Body, full};

/// The answer with the file that `path` names below `dir`, `index.html` for a folder; `None`
/// when there is none. The path is taken as it stands in the URI, without `%` decoding.
pub(super) fn read(dir: &Path, path: &str) -> Option<Response<Body>> {
    let below = Path::new(path.strip_prefix("/vdi/")?);
    if !below
        .components()
        .all(|part| matches!(part, Component::Normal(_)))
    {
        return None;
    }
    let mut file = dir.join(below);
    if path.ends_with('/') {
        file.push("index.html");
    }
    let mut response = Response::new(full(std::fs::read(&file).ok()?));
    let kind = HeaderValue::from_static(content_type(&file));
    response.headers_mut().insert(CONTENT_TYPE, kind);
    Some(response)
}

fn content_type(file: &Path) -> &'static str {
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("html" | "htm") => "text/html; charset=utf-8",
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("json") => "application/json",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("gif") => "image/gif",
        Some("ico") => "image/x-icon",
        Some("wasm") => "application/wasm",
        Some("txt" | "md") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}
