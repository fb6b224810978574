//! The command line of the interop contract, and the answer to `--features`.

use std::time::Duration;

use libp2p::{Multiaddr, StreamProtocol, pnet::PreSharedKey};
use serde_json::{Value, json};

pub const TRANSPORTS: &[&str] = &["tcp", "ws", "wss", "quic-v1"];
pub const SECURITIES: &[&str] = &["noise", "tls", "plaintext"];
pub const MUXERS: &[&str] = &["yamux", "mplex"];
pub const KEY_TYPES: &[&str] = &["ed25519", "secp256k1", "ecdsa", "rsa"];
pub const PUBSUBS: &[&str] = &["floodsub", "gossipsub", "none"];
pub const SIGNATURES: &[&str] = &["strict", "none"];
pub const MESSAGE_IDS: &[&str] = &["default", "first8"];
pub const DHTS: &[&str] = &["server", "client", "none"];
pub const RELAYS: &[&str] = &["none", "client", "server", "punch"];
pub const AUTONATS: &[&str] = &["v1", "v2", "none"];
pub const MDNS: &[&str] = &["on", "ipv6", "off"];
/// As the package has it.
const PROVIDER_TTL: Duration = Duration::from_secs(48 * 60 * 60);
pub const RENDEZVOUS: &[&str] = &["client", "server", "none"];

#[derive(Clone)]
pub struct Args {
    pub listen: Vec<Multiaddr>,
    pub transport: String,
    pub security: String,
    pub muxer: String,
    pub key_type: String,
    pub pubsub: String,
    pub signatures: String,
    pub message_id: String,
    pub dht: String,
    pub dht_protocol: StreamProtocol,
    pub provider_ttl: Duration,
    pub relay: String,
    pub rendezvous: String,
    pub autonat: String,
    pub mdns: String,
    pub psk: Option<PreSharedKey>,
    /// Files of the web's certificates, for wss: ours with its key, and that of whom to trust.
    pub certificate: Option<String>,
    pub authority: Option<String>,
    pub quiet: bool,
    pub features: bool,
}

impl Args {
    /// Reads `--flag value` and `--flag=value`; an unknown flag or value is an error text.
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut args = Args {
            listen: Vec::new(),
            transport: TRANSPORTS[0].into(),
            security: SECURITIES[0].into(),
            muxer: MUXERS[0].into(),
            key_type: KEY_TYPES[0].into(),
            pubsub: PUBSUBS[0].into(),
            signatures: SIGNATURES[0].into(),
            message_id: MESSAGE_IDS[0].into(),
            dht: "none".into(),
            dht_protocol: StreamProtocol::new("/interop/kad/1.0.0"),
            provider_ttl: PROVIDER_TTL,
            relay: RELAYS[0].into(),
            rendezvous: "none".into(),
            autonat: "none".into(),
            mdns: "off".into(),
            psk: None,
            certificate: None,
            authority: None,
            quiet: false,
            features: false,
        };
        let mut listen = Vec::new();
        while let Some(word) = words.next() {
            let switch = match word.as_str() {
                "--features" => Some(&mut args.features),
                "--quiet" => Some(&mut args.quiet),
                _ => None,
            };
            if let Some(switch) = switch {
                *switch = true;
                continue;
            }
            let (flag, value) = match word.split_once('=') {
                Some((flag, value)) => (flag.to_owned(), value.to_owned()),
                None => {
                    let value = words.next().ok_or(format!("{word} needs a value"))?;
                    (word, value)
                }
            };
            match flag.as_str() {
                "--transport" => args.transport = one_of(TRANSPORTS, &flag, value)?,
                "--listen" => listen.push(value),
                "--security" => args.security = one_of(SECURITIES, &flag, value)?,
                "--muxer" => args.muxer = one_of(MUXERS, &flag, value)?,
                "--key-type" => args.key_type = one_of(KEY_TYPES, &flag, value)?,
                "--pubsub" => args.pubsub = one_of(PUBSUBS, &flag, value)?,
                "--signatures" => args.signatures = one_of(SIGNATURES, &flag, value)?,
                "--message-id" => args.message_id = one_of(MESSAGE_IDS, &flag, value)?,
                "--dht" => args.dht = one_of(DHTS, &flag, value)?,
                "--dht-protocol" => {
                    args.dht_protocol = StreamProtocol::try_from_owned(value)
                        .map_err(|e| format!("--dht-protocol: {e}"))?;
                }
                "--provider-ttl" => {
                    let seconds = value.parse().map_err(|e| format!("--provider-ttl: {e}"))?;
                    args.provider_ttl = Duration::from_secs(seconds);
                }
                "--relay" => args.relay = one_of(RELAYS, &flag, value)?,
                "--rendezvous" => args.rendezvous = one_of(RENDEZVOUS, &flag, value)?,
                "--autonat" => args.autonat = one_of(AUTONATS, &flag, value)?,
                "--mdns" => args.mdns = one_of(MDNS, &flag, value)?,
                "--psk" => args.psk = Some(pre_shared_key(&value)?),
                "--certificate" => args.certificate = Some(value),
                "--authority" => args.authority = Some(value),
                _ => return Err(format!("unknown flag {flag}")),
            }
        }
        if listen.is_empty() {
            let addr = match args.transport.as_str() {
                "ws" => "/ip4/127.0.0.1/tcp/0/ws",
                "wss" => "/ip4/127.0.0.1/tcp/0/wss",
                "quic-v1" => "/ip4/127.0.0.1/udp/0/quic-v1",
                _ => "/ip4/127.0.0.1/tcp/0",
            };
            listen.push(addr.to_owned());
        }
        for text in listen.iter().filter(|text| *text != "none") {
            let addr = text.parse().map_err(|e| format!("--listen {text}: {e}"))?;
            args.listen.push(addr);
        }
        Ok(args)
    }
}

/// The package reads the format of key files.
fn pre_shared_key(text: &str) -> Result<PreSharedKey, String> {
    format!("/key/swarm/psk/1.0.0/\n/base16/\n{text}")
        .parse()
        .map_err(|e| format!("--psk: {e}"))
}

fn one_of(allowed: &[&str], flag: &str, value: String) -> Result<String, String> {
    if allowed.contains(&value.as_str()) {
        Ok(value)
    } else {
        Err(format!(
            "{flag} {value}: this peer has {}",
            allowed.join(", ")
        ))
    }
}

impl Args {
    /// The same for a node that only dials and speaks no more than it must.
    pub fn for_dialler(&self) -> Self {
        Self {
            listen: Vec::new(),
            pubsub: "none".into(),
            dht: "none".into(),
            relay: "none".into(),
            rendezvous: "none".into(),
            autonat: "none".into(),
            mdns: "off".into(),
            ..self.clone()
        }
    }
}

/// `rust-libp2p v<version>`, read from the lock file: it cannot differ from what was built.
pub fn version() -> String {
    let lock = include_str!("../Cargo.lock");
    let version = lock
        .split_once("name = \"libp2p\"\nversion = \"")
        .and_then(|(_, rest)| rest.split_once('"'))
        .map_or("unknown", |(version, _)| version);
    format!("rust-libp2p v{version}")
}

pub fn features() -> Value {
    let plaintext_limit = "the package reads a plaintext handshake of at most 100 bytes";
    json!({
        "name": "rust",
        "version": version(),
        "transports": TRANSPORTS,
        "securities": SECURITIES,
        "muxers": MUXERS,
        "key_types": KEY_TYPES,
        "pubsub": PUBSUBS,
        "psk": true,
        "signatures": SIGNATURES,
        "message_ids": MESSAGE_IDS,
        "extensions": ["partial"],
        "dht": DHTS[..2],
        "dht_namespaces": ["pk", "test", "example"],
        "relay": RELAYS,
        "rendezvous": RENDEZVOUS[..2],
        "autonat": AUTONATS[..2],
        "mdns": MDNS[..1],
        "unsupported": {
            "plaintext+rsa": plaintext_limit,
            "plaintext+ecdsa": plaintext_limit,
            "ipv6": "libp2p-mdns answers over IPv6 with its link-local address, and only at times with others",
        },
    })
}
