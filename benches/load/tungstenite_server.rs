//! A server for comparison: hyper and tokio-tungstenite with default settings, as warp's WebSocket uses them.
//! (warp's own feature would add HTTP/2 to the measured usher, since a build shares features.) It supports a
//! broadcast and three STOMP commands and checks nothing.

use std::convert::Infallible;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

/// Argument that starts this program as that server.
pub(crate) const ARGUMENT: &str = "--tungstenite-server";
const HEART_BEAT: Duration = Duration::from_secs(10);

/// Serves on a port of the loopback interface.
pub(crate) fn serve(port: u16) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let broadcast = watch::Sender::new(String::new());
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            socket.set_nodelay(true).unwrap();
            let broadcast = broadcast.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request| upgrade(request, broadcast.clone()));
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(socket), service)
                    .with_upgrades()
                    .await;
            });
        }
    });
}

async fn upgrade(
    mut request: Request<Incoming>,
    broadcast: watch::Sender<String>,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let key = request.headers().get("sec-websocket-key").unwrap();
    let accept = derive_accept_key(key.as_bytes()).parse().unwrap();
    let on_upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let upgraded = TokioIo::new(on_upgrade.await.unwrap());
        let socket = WebSocketStream::from_raw_socket(upgraded, Role::Server, None).await;
        run_session(socket, broadcast).await;
    });
    let mut response = Response::new(Empty::new());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    headers.insert(
        SEC_WEBSOCKET_PROTOCOL,
        HeaderValue::from_static("v12.stomp"),
    );
    Ok(response)
}

async fn run_session<S>(mut socket: WebSocketStream<S>, broadcast: watch::Sender<String>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let mut updates = broadcast.subscribe();
    updates.mark_unchanged();
    let mut heart_beats = tokio::time::interval(HEART_BEAT);
    loop {
        let text = tokio::select! {
            message = socket.next() => match message {
                Some(Ok(Message::Text(text))) if text.starts_with("CONNECT") => {
                    "CONNECTED\nversion:1.2\n\n\0".to_owned()
                }
                Some(Ok(Message::Text(text))) if text.starts_with("SUBSCRIBE") => {
                    "RECEIPT\nreceipt-id:r\n\n\0".to_owned()
                }
                Some(Ok(Message::Text(text))) if text.starts_with("SEND") => {
                    broadcast.send_replace(text.replacen("SEND", "MESSAGE", 1));
                    continue;
                }
                Some(Ok(_)) => continue,
                Some(Err(_)) | None => return,
            },
            _ = updates.changed() => updates.borrow_and_update().clone(),
            _ = heart_beats.tick() => "\n".to_owned(),
        };
        if socket.send(Message::text(text)).await.is_err() {
            return;
        }
    }
}
