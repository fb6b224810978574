//! One transport with exactly one security protocol and exactly one muxer, as the command line asks.

use std::time::Duration;

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
    quic, tcp, tls, yamux,
};

/// Time for the connection, security and muxer together; the same as in libp2p's own builder.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

pub type Connections = Boxed<(PeerId, StreamMuxerBox)>;

/// QUIC has its own security and muxer; there the last two arguments mean nothing.
pub fn build(
    keypair: &Keypair,
    transport: &str,
    security: &str,
    muxer: &str,
    psk: Option<PreSharedKey>,
) -> Result<Connections, String> {
    let tcp = tcp::tokio::Transport::new(tcp::Config::default());
    match transport {
        "tcp" => protected(tcp, psk, keypair, security, muxer),
        "ws" => protected(libp2p_websocket::Config::new(tcp), psk, keypair, security, muxer),
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
