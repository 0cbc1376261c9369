//! The files of the page, embedded: style, scripts. `assets/README.md` has their origins, licences and hashes.

use axum::body::Body;
use axum::extract::Path;
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};

/// A file.
struct Asset {
    name: &'static str,
    media_type: &'static str,
    content: &'static [u8],
}

macro_rules! asset {
    ($name:literal, $media_type:literal) => {
        Asset {
            name: $name,
            media_type: $media_type,
            content: include_bytes!(concat!("../../../assets/", $name)),
        }
    };
}

const ASSETS: [Asset; 5] = [
    asset!("page.css", "text/css; charset=utf-8"),
    asset!("page.js", "text/javascript; charset=utf-8"),
    asset!("icon.svg", "image/svg+xml"),
    asset!("htmx.min.js", "text/javascript; charset=utf-8"),
    asset!("htmx-ext-sse.min.js", "text/javascript; charset=utf-8"),
];

pub(super) async fn serve(Path(name): Path<String>) -> Response<Body> {
    let Some(asset) = ASSETS.iter().find(|asset| asset.name == name) else {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_FOUND;
        return response;
    };
    let mut response = Response::new(Body::from(asset.content));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(asset.media_type));
    // Another version of the proxy has another style.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, max-age=300"));
    response
}

#[cfg(test)]
mod tests {
    use ring::digest::{SHA256, digest};

    use super::*;

    #[test]
    fn the_files_are_small_and_those_of_others_have_the_hashes_that_are_written_down() {
        let total: usize = ASSETS.iter().map(|asset| asset.content.len()).sum();
        assert!(total <= 150 << 10, "{total} bytes");
        let written = include_str!("../../../assets/README.md");
        for asset in ASSETS.iter().filter(|asset| asset.name.contains(".min.")) {
            let hash = data_encoding::HEXLOWER.encode(digest(&SHA256, asset.content).as_ref());
            assert!(written.contains(&hash), "{}: {hash}", asset.name);
        }
    }

    #[test]
    fn no_file_of_ours_evaluates_text_or_loads_from_elsewhere() {
        for asset in ASSETS.iter().filter(|asset| !asset.name.contains(".min.")) {
            let text = std::str::from_utf8(asset.content).unwrap();
            let text = text.replace("http://www.w3.org/2000/svg", "");
            for word in ["http:", "eval(", "Function(", "https:", "@import", "url("] {
                assert!(!text.contains(word), "{}: {word}", asset.name);
            }
        }
    }
}
