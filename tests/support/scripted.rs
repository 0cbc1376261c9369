//! A minimal carrier for cases that the simulator does not cover: broken connections, responses on any path.

use std::future::Future;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A carrier that passes each request to `respond`: head, number of the connection, number of the request on it, stream.
/// `None` closes the connection.
pub(crate) async fn scripted<F>(
    respond: impl Fn(String, usize, usize, TcpStream) -> F + Clone + Send + 'static,
) -> String
where
    F: Future<Output = Option<TcpStream>> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        for connection in 0.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            let respond = respond.clone();
            tokio::spawn(async move {
                for n in 0.. {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        match stream.read_u8().await {
                            Ok(byte) => head.push(byte),
                            Err(_) => return,
                        }
                    }
                    match respond(String::from_utf8(head).unwrap(), connection, n, stream).await {
                        Some(open) => stream = open,
                        None => return,
                    }
                }
            });
        }
    });
    url
}

/// Responds 200 with this body.
pub(crate) async fn say(mut stream: TcpStream, body: &str) -> Option<TcpStream> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + body).as_bytes()).await.ok()?;
    Some(stream)
}
