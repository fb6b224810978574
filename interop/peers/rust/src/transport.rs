//! One transport with exactly one security protocol and exactly one muxer, as the command line asks.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};
use libp2p::{
    PeerId, Transport,
    core::{
        muxing::StreamMuxerBox,
        transport::{Boxed, timeout::TransportTimeout},
        upgrade::Version,
    },
    identity::Keypair,
    noise, plaintext,
    pnet::{PnetConfig, PreSharedKey},
    quic, relay, tcp, tls, yamux,
};
use libp2p_websocket::tls as websocket_tls;

use crate::args::Args;

/// Time for the connection, security and muxer together; the same as in libp2p's own builder.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

pub type Connections = Boxed<(PeerId, StreamMuxerBox)>;

/// The transport, and with `--relay client` or `punch` circuits beside it and what looks after them.
pub fn with_circuits(
    keypair: &Keypair,
    args: &Args,
) -> Result<(Connections, Option<relay::client::Behaviour>), String> {
    let direct = build(keypair, args)?;
    if !["client", "punch"].contains(&args.relay.as_str()) {
        return Ok((direct, None));
    }
    let (circuits, client) = relay::client::new(keypair.public().to_peer_id());
    let circuits = upgraded(circuits, keypair, &args.security, &args.muxer)?;
    let both = circuits
        .or_transport(direct)
        .map(|either, _| either.into_inner());
    Ok((both.boxed(), Some(client)))
}

/// QUIC has its own security and muxer; there the last two arguments mean nothing.
fn build(keypair: &Keypair, args: &Args) -> Result<Connections, String> {
    let (security, muxer, psk) = (args.security.as_str(), args.muxer.as_str(), args.psk);
    let tcp = tcp::tokio::Transport::new(tcp::Config::default());
    match args.transport.as_str() {
        "tcp" => protected(tcp, psk, keypair, security, muxer),
        "ws" => protected(
            libp2p_websocket::Config::new(tcp),
            psk,
            keypair,
            security,
            muxer,
        ),
        "wss" => {
            let mut websocket = libp2p_websocket::Config::new(tcp);
            websocket.set_tls_config(web_tls(args)?);
            protected(websocket, psk, keypair, security, muxer)
        }
        "quic-v1" if psk.is_some() => Err("QUIC has no private networks".into()),
        "quic-v1" => {
            let quic = quic::tokio::Transport::new(quic::Config::new(keypair))
                .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)));
            Ok(TransportTimeout::new(quic, CONNECT_TIMEOUT).boxed())
        }
        other => Err(format!("no transport {other}")),
    }
}

fn protected<T>(
    raw: T,
    psk: Option<PreSharedKey>,
    keypair: &Keypair,
    security: &str,
    muxer: &str,
) -> Result<Connections, String>
where
    T: Transport + Send + Unpin + 'static,
    T::Output: futures::AsyncRead + futures::AsyncWrite + Send + Unpin + 'static,
    T::Error: Send + Sync + 'static,
    T::Dial: Send + 'static,
    T::ListenerUpgrade: Send + 'static,
{
    match psk {
        None => upgraded(raw, keypair, security, muxer),
        Some(psk) => upgraded(
            raw.and_then(move |socket, _| PnetConfig::new(psk).handshake(socket)),
            keypair,
            security,
            muxer,
        ),
    }
}

/// Reads the certificates of the web: ours, and that of whom to trust.
fn web_tls(args: &Args) -> Result<websocket_tls::Config, String> {
    let read = |path: &Option<String>| {
        let path = path
            .as_ref()
            .ok_or("wss needs --certificate and --authority")?;
        std::fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))
    };
    let (own, authority) = (read(&args.certificate)?, read(&args.authority)?);
    let key = websocket_tls::PrivateKey::new(pem(&own, "PRIVATE KEY")?);
    let certificate = websocket_tls::Certificate::new(pem(&own, "CERTIFICATE")?);
    let trusted = websocket_tls::Certificate::new(pem(&authority, "CERTIFICATE")?);
    let mut builder = websocket_tls::Config::builder();
    builder
        .server(key, [certificate])
        .map_err(|e| format!("certificate: {e}"))?;
    builder
        .add_trust(&trusted)
        .map_err(|e| format!("authority: {e}"))?;
    Ok(builder.finish())
}

/// The first block with this label, decoded.
fn pem(text: &str, label: &str) -> Result<Vec<u8>, String> {
    text.split_once(&format!("-----BEGIN {label}-----"))
        .and_then(|(_, rest)| rest.split_once("-----END"))
        .and_then(|(body, _)| {
            BASE64_STANDARD
                .decode(body.split_whitespace().collect::<String>())
                .ok()
        })
        .ok_or(format!("no {label} in the file"))
}

fn upgraded<T>(
    raw: T,
    keypair: &Keypair,
    security: &str,
    muxer: &str,
) -> Result<Connections, String>
where
    T: Transport + Send + Unpin + 'static,
    T::Output: futures::AsyncRead + futures::AsyncWrite + Send + Unpin + 'static,
    T::Error: Send + Sync + 'static,
    T::Dial: Send + 'static,
    T::ListenerUpgrade: Send + 'static,
{
    // A macro, because each combination is a type of its own until it is boxed. V1Lazy is what libp2p's builder uses.
    macro_rules! boxed_with {
        ($security:expr, $muxer:expr) => {
            raw.upgrade(Version::V1Lazy)
                .authenticate($security)
                .multiplex($muxer)
                .timeout(CONNECT_TIMEOUT)
                .boxed()
        };
    }
    let noise = || noise::Config::new(keypair).map_err(|e| format!("noise: {e}"));
    let tls = || tls::Config::new(keypair).map_err(|e| format!("tls: {e}"));
    let plaintext = || plaintext::Config::new(keypair);
    let (yamux, mplex) = (yamux::Config::default, libp2p_mplex::Config::default);
    Ok(match (security, muxer) {
        ("noise", "yamux") => boxed_with!(noise()?, yamux()),
        ("noise", "mplex") => boxed_with!(noise()?, mplex()),
        ("tls", "yamux") => boxed_with!(tls()?, yamux()),
        ("tls", "mplex") => boxed_with!(tls()?, mplex()),
        ("plaintext", "yamux") => boxed_with!(plaintext(), yamux()),
        ("plaintext", "mplex") => boxed_with!(plaintext(), mplex()),
        _ => return Err(format!("nothing with {security} and {muxer}")),
    })
}
