//! All protocols of the peer: the package's identify, ping and gossipsub, and plain streams for the rest.

use std::time::Duration;

use libp2p::{
    StreamProtocol, autonat, dcutr, gossipsub, identify,
    identity::Keypair,
    mdns, ping, relay, rendezvous,
    swarm::{NetworkBehaviour, behaviour::toggle::Toggle},
};
use tokio::sync::mpsc;

use crate::{
    args::Args,
    kad::{self, Kad},
    raw_streams::{self, InboundStream},
};

const PROTOCOL_VERSION: &str = "ipfs/0.1.0";
const MAX_PUBSUB_RPC: usize = 1024 * 1024;
const AUTONAT_INTERVAL: Duration = Duration::from_millis(200);

// `raw` comes first: a new protocol must reach a connection before the identify push that tells about it.
#[derive(NetworkBehaviour)]
pub struct Behaviour {
    pub raw: raw_streams::Behaviour,
    pub identify: identify::Behaviour,
    pub ping: ping::Behaviour,
    pub pubsub: Toggle<gossipsub::Behaviour>,
    pub relay: Toggle<relay::Behaviour>,
    pub relay_client: Toggle<relay::client::Behaviour>,
    pub dcutr: Toggle<dcutr::Behaviour>,
    pub rendezvous_client: Toggle<rendezvous::client::Behaviour>,
    pub rendezvous_server: Toggle<rendezvous::server::Behaviour>,
    pub mdns: Toggle<mdns::tokio::Behaviour>,
    pub autonat_v1: Toggle<autonat::Behaviour>,
    pub autonat_v2_client: Toggle<autonat::v2::client::Behaviour>,
    pub autonat_v2_server: Toggle<autonat::v2::server::Behaviour>,
    pub kad: Toggle<Kad>,
}

impl Behaviour {
    pub fn new(
        keypair: &Keypair,
        args: &Args,
        relay_client: Option<relay::client::Behaviour>,
        protocols: &[StreamProtocol],
    ) -> Result<(Self, mpsc::UnboundedReceiver<InboundStream>), String> {
        let (raw, inbound) = raw_streams::Behaviour::new(protocols);
        // Without a signed peer record, which the package makes in the obsolete form of RFC 0003: go ignores such a
        // record, and js throws the whole identify message away because of it.
        let identify = identify::Behaviour::new(
            identify::Config::new(PROTOCOL_VERSION.into(), keypair.public())
                .with_push_listen_addr_updates(true),
        );
        let pubsub = match args.pubsub.as_str() {
            "none" => None,
            _ => Some(new_pubsub(keypair, args)?),
        };
        let client = (args.rendezvous == "client")
            .then(|| rendezvous::client::Behaviour::new(keypair.clone()));
        let server = (args.rendezvous == "server")
            .then(|| rendezvous::server::Behaviour::new(rendezvous::server::Config::default()));
        let peer_id = keypair.public().to_peer_id();
        let mdns_config = mdns::Config {
            enable_ipv6: args.mdns == "ipv6",
            ..Default::default()
        };
        let mdns = (args.mdns != "off")
            .then(|| mdns::tokio::Behaviour::new(mdns_config, peer_id))
            .transpose()
            .map_err(|e| format!("mdns: {e}"))?;
        let behaviour = Self {
            raw,
            identify,
            ping: ping::Behaviour::default(),
            pubsub: pubsub.into(),
            relay: (args.relay == "server")
                .then(|| relay::Behaviour::new(keypair.public().to_peer_id(), Default::default()))
                .into(),
            relay_client: relay_client.into(),
            dcutr: (args.relay == "punch")
                .then(|| dcutr::Behaviour::new(peer_id))
                .into(),
            rendezvous_client: client.into(),
            rendezvous_server: server.into(),
            mdns: mdns.into(),
            autonat_v1: (args.autonat == "v1")
                .then(|| autonat::Behaviour::new(peer_id, autonat_v1()))
                .into(),
            autonat_v2_client: (args.autonat == "v2").then(autonat_v2_client).into(),
            autonat_v2_server: (args.autonat == "v2")
                .then(autonat::v2::server::Behaviour::default)
                .into(),
            kad: kad::behaviour(peer_id, args).into(),
        };
        Ok((behaviour, inbound))
    }
}

/// Asks whoever is connected, soon and again, and believes addresses of this machine.
fn autonat_v1() -> autonat::Config {
    autonat::Config {
        boot_delay: AUTONAT_INTERVAL,
        retry_interval: AUTONAT_INTERVAL,
        throttle_server_period: AUTONAT_INTERVAL,
        only_global_ips: false,
        ..Default::default()
    }
}

fn autonat_v2_client() -> autonat::v2::client::Behaviour {
    let config = autonat::v2::client::Config::default().with_probe_interval(AUTONAT_INTERVAL);
    autonat::v2::client::Behaviour::new(rand::make_rng(), config)
}

/// The package has no floodsub that signs, but its gossipsub speaks floodsub, as StrictSign, to peers which know no
/// more than that.
fn new_pubsub(keypair: &Keypair, args: &Args) -> Result<gossipsub::Behaviour, String> {
    let mut config = gossipsub::ConfigBuilder::default();
    config
        .validation_mode(gossipsub::ValidationMode::Strict)
        .max_transmit_size(MAX_PUBSUB_RPC)
        .message_id_fn(message_id);
    let mut author = gossipsub::MessageAuthenticity::Signed(keypair.clone());
    if args.signatures == "none" {
        config.validation_mode(gossipsub::ValidationMode::Anonymous);
        author = gossipsub::MessageAuthenticity::Anonymous;
    }
    if args.message_id == "first8" {
        config.message_id_fn(first_bytes);
    }
    if args.pubsub == "floodsub" {
        config.support_floodsub();
    }
    let config = config.build().map_err(|e| format!("pubsub: {e}"))?;
    gossipsub::Behaviour::new(author, config).map_err(|e| format!("pubsub: {e}"))
}

/// Author and sequence number as bytes, like the other implementations; the package's own default is a text of the two.
fn message_id(message: &gossipsub::Message) -> gossipsub::MessageId {
    let mut id = message
        .source
        .map(|peer| peer.to_bytes())
        .unwrap_or_default();
    id.extend_from_slice(&message.sequence_number.unwrap_or_default().to_be_bytes());
    gossipsub::MessageId::from(id)
}

/// For messages that say in their first eight bytes what tells them apart.
fn first_bytes(message: &gossipsub::Message) -> gossipsub::MessageId {
    gossipsub::MessageId::from(&message.data[..message.data.len().min(8)])
}
