//! A peer: WebSockets as they come with hyper and tokio-tungstenite, all settings left alone. That is what
//! warp's own WebSocket is made of (its feature would add HTTP/2 to the usher that is measured, since features
//! of one build are shared). A broadcast and three commands of STOMP, without any check, is all it can do.

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

/// Tells this program to be that server.
pub(crate) const ARGUMENT: &str = "--upgraded-server";
const BEAT: Duration = Duration::from_secs(10);

/// Serves on a port of the loopback.
pub(crate) fn serve(port: u16) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let news = watch::Sender::new(String::new());
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            socket.set_nodelay(true).unwrap();
            let news = news.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request| answer(request, news.clone()));
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(socket), service)
                    .with_upgrades()
                    .await;
            });
        }
    });
}

async fn answer(
    mut request: Request<Incoming>,
    news: watch::Sender<String>,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let key = request.headers().get("sec-websocket-key").unwrap();
    let accept = derive_accept_key(key.as_bytes()).parse().unwrap();
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let upgraded = TokioIo::new(upgrade.await.unwrap());
        let socket = WebSocketStream::from_raw_socket(upgraded, Role::Server, None).await;
        converse(socket, news).await;
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

async fn converse<S>(mut socket: WebSocketStream<S>, news: watch::Sender<String>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let mut heard = news.subscribe();
    heard.mark_unchanged();
    let mut beats = tokio::time::interval(BEAT);
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
                    news.send_replace(text.replacen("SEND", "MESSAGE", 1));
                    continue;
                }
                Some(Ok(_)) => continue,
                Some(Err(_)) | None => return,
            },
            _ = heard.changed() => heard.borrow_and_update().clone(),
            _ = beats.tick() => "\n".to_owned(),
        };
        if socket.send(Message::text(text)).await.is_err() {
            return;
        }
    }
}
