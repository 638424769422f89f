//! How a client links a channel: link message, the server's answer with its key, the ticket.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use testkit::command::{find_program, run_bounded};
use testkit::spice::{ChannelType, LINK_HEADER, link_length, link_message};

/// Where the link message has the number of the session.
const CONNECTION_ID: usize = 16;
/// What says that the client will name its way to authenticate, and that headers are short
/// (`SPICE_COMMON_CAP_PROTOCOL_AUTH_SELECTION`, `SPICE_COMMON_CAP_MINI_HEADER`).
const NEEDED: u32 = 1 | 1 << 3;
/// `SPICE_COMMON_CAP_AUTH_SPICE`, the way by ticket.
const AUTH_SPICE: u32 = 1;
/// Length of the server's RSA key of 1,024 bits (`SPICE_TICKET_PUBKEY_BYTES`), in bytes.
const KEY: usize = 162;
/// Length of the ticket that is sealed with it, in bytes.
const TICKET: usize = 128;
/// How long `openssl` may take.
const OPENSSL_LIMIT: Duration = Duration::from_secs(30);

/// The link message of a channel of this session; 0 begins one.
pub(super) fn message(channel: ChannelType, session: u32) -> Vec<u8> {
    let mut message = link_message(channel, 0);
    message[CONNECTION_ID..CONNECTION_ID + 4].copy_from_slice(&session.to_le_bytes());
    message
}

/// The length of the server's answer, once its first bytes are there.
pub(super) fn reply_length(start: &[u8]) -> Result<Option<usize>> {
    let Some(header) = start.first_chunk::<LINK_HEADER>() else {
        return Ok(None);
    };
    let length = link_length(*header).context("what answered is no Spice server")?;
    Ok(Some(length))
}

/// The server's key, out of its whole answer (`SpiceLinkReply`).
pub(super) fn key(reply: &[u8]) -> Result<&[u8]> {
    let rest = reply.get(LINK_HEADER..).unwrap_or_default();
    let word = |at: usize| -> Result<u32> {
        let bytes = rest.get(at..).and_then(<[u8]>::first_chunk);
        Ok(u32::from_le_bytes(*bytes.context("a short link reply")?))
    };
    let error = word(0)?;
    ensure!(error == 0, "the Spice server refuses with error {error}");
    let (common, offset) = (word(4 + KEY)?, word(12 + KEY)?);
    ensure!(common > 0, "a Spice server that has no capabilities");
    let capabilities = word(usize::try_from(offset)?)?;
    ensure!(
        capabilities & NEEDED == NEEDED,
        "a Spice server with the capabilities {capabilities:#x} only"
    );
    rest.get(4..4 + KEY).context("a short link reply")
}

/// What authenticates the client: the way by ticket, and an empty password sealed with the key.
/// Blocks for some milliseconds.
pub(super) fn ticket(key: &[u8]) -> Result<Vec<u8>> {
    let folder = tempfile::tempdir().context("a folder for a ticket")?;
    let path = |name| folder.path().join(name);
    fs::write(path("key"), key)?;
    // A string of C, with its end.
    fs::write(path("password"), [0])?;
    let mut openssl = Command::new(find_program("openssl").context("no openssl")?);
    openssl
        .args(["pkeyutl", "-encrypt", "-pubin", "-keyform", "DER"])
        .args(["-pkeyopt", "rsa_padding_mode:oaep"])
        .args(["-inkey", "key", "-in", "password", "-out", "ticket"])
        .current_dir(folder.path());
    run_bounded(openssl, OPENSSL_LIMIT).context("sealing a ticket")?;
    let ticket = fs::read(path("ticket"))?;
    ensure!(ticket.len() == TICKET, "a ticket of {} bytes", ticket.len());
    Ok([AUTH_SPICE.to_le_bytes().as_slice(), &ticket].concat())
}

/// Fails unless the server has let the client in.
pub(super) fn admitted(result: &[u8]) -> Result<()> {
    match result {
        [0, 0, 0, 0] => Ok(()),
        _ => bail!("the Spice server refuses the ticket: {result:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(error: u32, capabilities: u32) -> Vec<u8> {
        let mut body = error.to_le_bytes().to_vec();
        body.extend([9; KEY]);
        for word in [1, 0, 178, capabilities] {
            body.extend(u32::to_le_bytes(word));
        }
        let mut reply = b"REDQ\x02\0\0\0\x02\0\0\0".to_vec();
        reply.extend(u32::try_from(body.len()).unwrap().to_le_bytes());
        reply.extend(body);
        reply
    }

    #[test]
    fn the_key_is_taken_from_a_reply_that_suits() {
        let good = reply(0, NEEDED);
        assert_eq!(reply_length(&good[..15]).unwrap(), None);
        assert_eq!(reply_length(&good).unwrap(), Some(good.len()));
        assert_eq!(key(&good).unwrap(), [9; KEY]);
        assert!(key(&reply(7, NEEDED)).is_err());
        assert!(key(&reply(0, 1)).is_err());
        assert!(key(&good[..100]).is_err());
        assert!(reply_length(b"HTTP/1.1 400 Bad Request").is_err());
    }

    #[test]
    fn a_link_message_names_its_session() {
        let message = message(ChannelType::Inputs, 0x0102_0304);
        assert_eq!(message[16..22], [4, 3, 2, 1, 3, 0]);
    }
}
