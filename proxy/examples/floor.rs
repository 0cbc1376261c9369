//! The floor that the proxy is measured against: a hyper server that answers a constant and does nothing else.
//!
//! `cargo run --release --example floor -- 127.0.0.1:0` prints its address, as `cmiot-proxy serve` does.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

const BODY: &[u8] = "{\"status\":\"0\",\"message\":\"正确\",\"result\":[{\"STATUS\":\"00\"}]}".as_bytes();

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let listener = TcpListener::bind(address).await?;
    println!("gateway http://{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let answer = service_fn(|_: Request<hyper::body::Incoming>| async {
            let mut response = Response::new(Full::new(Bytes::from_static(BODY)));
            let kind = HeaderValue::from_static("application/json;charset=UTF-8");
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            Ok::<_, Infallible>(response)
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
    }
}
