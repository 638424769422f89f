//! What the gateway is asked at its socket for administrators.

use std::net::SocketAddr;

use ::http::header::{CONTENT_TYPE, HOST};
use ::http::{Method, Request, Response};
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::net::UnixStream;

use super::Gateway;
use crate::http::HttpConnection;

impl Gateway {
    /// Sends a request with a body of JSON, as a program in any language would.
    pub async fn ask_socket(
        &self,
        method: Method,
        target: &str,
        body: impl Into<Bytes>,
    ) -> Result<Response<Bytes>> {
        let socket = self.runtime_dir().join("admin.sock");
        let stream = UnixStream::connect(&socket).await;
        let stream = stream.with_context(|| socket.display().to_string())?;
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header(HOST, "localhost")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body.into()))?;
        HttpConnection::over(stream).await?.send(request).await
    }

    /// A ticket for a host.
    pub async fn ticket(&self, host: SocketAddr) -> Result<String> {
        let order = json!({"host": host.ip().to_string(), "port": host.port()});
        self.ticket_as(&order).await
    }

    /// A ticket for a host, which is a host name itself.
    pub async fn host_name_ticket(&self, host: SocketAddr) -> Result<String> {
        let (host, port) = (host.ip().to_string(), host.port());
        let order = json!({"host": host, "port": port, "host_name": true});
        self.ticket_as(&order).await
    }

    async fn ticket_as(&self, order: &Value) -> Result<String> {
        let asked = self.ask_socket(Method::POST, "/tickets", order.to_string());
        let answer = asked.await?;
        ensure!(answer.status().is_success(), "no ticket: {answer:?}");
        let answer: Value = serde_json::from_slice(answer.body())?;
        let ticket = answer["ticket"]
            .as_str()
            .context("an answer with a ticket")?;
        Ok(ticket.to_owned())
    }
}
