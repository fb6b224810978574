//! Owns the swarm, follows its events and runs the jobs that commands send.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol, Swarm, autonat,
    core::transport::ListenerId,
    gossipsub, identify,
    identity::PublicKey,
    mdns,
    multiaddr::Protocol,
    relay,
    swarm::{
        ConnectionId, SwarmEvent,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

use crate::{
    autonat::Autonat,
    behaviour::{Behaviour, BehaviourEvent},
    clients,
    gossip::Counts,
    kad::Queries,
    output,
    partial::Eight,
    rendezvous::Rendezvous,
    served,
    transport::Connections,
};

/// Connections shall stay open until somebody closes them, streams or not.
const IDLE_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 3600);
/// As many as a yamux connection can have streams; the package's 128 would reset streams of a burst.
const MAX_NEGOTIATING: usize = 512;

type Job = Box<dyn FnOnce(&mut Node) + Send>;

/// What commands hold to reach the node.
#[derive(Clone)]
pub struct Handle {
    jobs: mpsc::UnboundedSender<Job>,
    muxer_keeps_resets: bool,
}

impl Handle {
    /// Runs `job` in the task that owns the swarm.
    pub async fn with<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Node) -> R + Send + 'static,
    ) -> Result<R, String> {
        let (reply, receiver) = oneshot::channel();
        let job: Job = Box::new(|node| drop(reply.send(job(node))));
        self.jobs.send(job).map_err(|_| "the node has ended")?;
        receiver.await.map_err(|_| "the node has ended".to_owned())
    }

    pub async fn open(&self, peer: PeerId, protocol: StreamProtocol) -> Result<Stream, String> {
        self.with(move |node| node.swarm.behaviour_mut().raw.open(peer, protocol))
            .await?
            .await
            .map_err(|_| "the connection closed".to_owned())?
    }

    /// Resets a stream to `peer` that neither side has closed: dropping it does that.
    ///
    /// The package's mplex only puts the reset into its buffer and sends it with the next frame of some other stream,
    /// which can take as long as the next ping. One empty echo stream makes the reset leave at once.
    pub async fn reset(&self, peer: PeerId, stream: Stream) -> Result<(), String> {
        drop(stream);
        if self.muxer_keeps_resets {
            let echo = self.open(peer, served::ECHO).await?;
            clients::echo(echo, 0, "0")
                .await
                .map_err(|e| format!("after a reset: {e}"))?;
        }
        Ok(())
    }
}

pub struct Node {
    pub swarm: Swarm<Behaviour>,
    pub public_key: PublicKey,
    /// What identify, or a push after it, last told about each connected peer.
    pub identified: HashMap<PeerId, identify::Info>,
    /// Connected peers that have answered a ping of the package itself.
    pub pinged: HashSet<PeerId>,
    pub rendezvous: Rendezvous,
    pub autonat: Autonat,
    pub queries: Queries,
    pub counts: Arc<Counts>,
    partials: HashMap<(gossipsub::TopicHash, Vec<u8>), Eight>,
    connections: HashMap<ConnectionId, PeerId>,
    dials: HashMap<ConnectionId, oneshot::Sender<Result<(), String>>>,
    identify_waiters: Vec<(PeerId, oneshot::Sender<identify::Info>)>,
    close_waiters: Vec<(PeerId, oneshot::Sender<()>)>,
    reservations: HashMap<ListenerId, (PeerId, oneshot::Sender<Result<(), String>>)>,
    jobs: mpsc::UnboundedReceiver<Job>,
}

impl Node {
    pub fn new(
        transport: Connections,
        behaviour: Behaviour,
        public_key: PublicKey,
        muxer: &str,
    ) -> (Self, Handle) {
        let config = libp2p::swarm::Config::with_tokio_executor()
            .with_idle_connection_timeout(IDLE_TIMEOUT)
            .with_max_negotiating_inbound_streams(MAX_NEGOTIATING);
        let (sender, jobs) = mpsc::unbounded_channel();
        let node = Self {
            swarm: Swarm::new(transport, behaviour, public_key.to_peer_id(), config),
            public_key,
            identified: HashMap::new(),
            pinged: HashSet::new(),
            rendezvous: Rendezvous::default(),
            autonat: Autonat::default(),
            partials: HashMap::new(),
            queries: Queries::default(),
            counts: Arc::default(),
            connections: HashMap::new(),
            dials: HashMap::new(),
            identify_waiters: Vec::new(),
            close_waiters: Vec::new(),
            reservations: HashMap::new(),
            jobs,
        };
        let handle = Handle {
            jobs: sender,
            muxer_keeps_resets: muxer == "mplex",
        };
        (node, handle)
    }

    /// Starts all listeners and waits for a concrete address of each. Returns the addresses with the peer id.
    pub async fn listen(&mut self, addrs: Vec<Multiaddr>) -> Result<Vec<String>, String> {
        let mut waiting = Vec::new();
        let wildcard = addrs.iter().any(is_wildcard);
        for addr in addrs {
            let id = self
                .swarm
                .listen_on(addr.clone())
                .map_err(|e| format!("listening on {addr}: {e:?}"))?;
            waiting.push(id);
        }
        while !waiting.is_empty() {
            match self.swarm.select_next_some().await {
                SwarmEvent::NewListenAddr { listener_id, .. } => {
                    waiting.retain(|id| *id != listener_id);
                }
                SwarmEvent::ListenerClosed {
                    reason: Err(error), ..
                } => return Err(format!("listening: {error}")),
                event => self.on_event(event),
            }
        }
        if wildcard {
            // One address per network interface follows, and nothing says which is the last.
            let more = async {
                loop {
                    let event = self.swarm.select_next_some().await;
                    self.on_event(event);
                }
            };
            let _ = tokio::time::timeout(Duration::from_millis(200), more).await;
        }
        let peer_id = *self.swarm.local_peer_id();
        Ok(self
            .swarm
            .listeners()
            .map(|addr| addr.clone().with(Protocol::P2p(peer_id)).to_string())
            .collect())
    }

    /// A relay tells those who reserve its external addresses, and would tell them none.
    pub fn trust_listen_addrs(&mut self) {
        let addrs: Vec<_> = self.swarm.listeners().cloned().collect();
        for addr in addrs {
            self.swarm.add_external_address(addr);
        }
    }

    /// Listens through the relay at `addr`; the receiver hears when the relay has granted that, or why not.
    pub fn reserve(
        &mut self,
        relay: PeerId,
        addr: Multiaddr,
    ) -> oneshot::Receiver<Result<(), String>> {
        let (reply, receiver) = oneshot::channel();
        match self.swarm.listen_on(addr.with(Protocol::P2pCircuit)) {
            Ok(listener) => drop(self.reservations.insert(listener, (relay, reply))),
            Err(error) => drop(reply.send(Err(error.to_string()))),
        }
        receiver
    }

    pub async fn run(mut self) {
        loop {
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_event(event),
                job = self.jobs.recv() => match job {
                    Some(job) => job(&mut self),
                    None => return,
                },
            }
        }
    }

    /// Dials; the receiver hears when the connection is up, or why not.
    pub fn dial(&mut self, peer: PeerId, addr: Multiaddr) -> oneshot::Receiver<Result<(), String>> {
        let (reply, receiver) = oneshot::channel();
        if self.swarm.is_connected(&peer) {
            let _ = reply.send(Ok(()));
            return receiver;
        }
        let opts = DialOpts::peer_id(peer)
            .addresses(vec![addr])
            .condition(PeerCondition::Always)
            .build();
        let connection = opts.connection_id();
        match self.swarm.dial(opts) {
            Ok(()) => drop(self.dials.insert(connection, reply)),
            Err(error) => drop(reply.send(Err(error.to_string()))),
        }
        receiver
    }

    /// Also waits for a connection, because the dialling side knows of it a moment before the other side does. The
    /// receiver fails when the peer disconnects first.
    pub fn wait_identified(&mut self, peer: PeerId) -> oneshot::Receiver<identify::Info> {
        let (reply, receiver) = oneshot::channel();
        match self.identified.get(&peer) {
            Some(info) => drop(reply.send(info.clone())),
            None => self.identify_waiters.push((peer, reply)),
        }
        receiver
    }

    /// The receiver hears when the last connection to `peer` is gone, or fails at once when there is none.
    pub fn wait_closed(&mut self, peer: PeerId) -> oneshot::Receiver<()> {
        let (reply, receiver) = oneshot::channel();
        if self.swarm.is_connected(&peer) {
            self.close_waiters.retain(|(_, reply)| !reply.is_closed());
            self.close_waiters.push((peer, reply));
        }
        receiver
    }

    /// Starts to close all connections to `peer`; see `wait_closed`.
    pub fn disconnect(&mut self, peer: PeerId) -> oneshot::Receiver<()> {
        let closed = self.wait_closed(peer);
        // An error only says that there is no connection.
        let _ = self.swarm.disconnect_peer_id(peer);
        closed
    }

    /// One entry per connection.
    pub fn connected_peers(&self) -> Vec<PeerId> {
        self.connections.values().copied().collect()
    }

    /// Serves one more stream protocol and tells all peers.
    pub fn add_protocol(&mut self, protocol: StreamProtocol) {
        let peers: Vec<_> = self.swarm.connected_peers().copied().collect();
        let behaviour = self.swarm.behaviour_mut();
        behaviour.raw.serve(protocol);
        behaviour.identify.push(peers);
    }

    pub fn pubsub(&mut self) -> Result<&mut gossipsub::Behaviour, String> {
        self.swarm
            .behaviour_mut()
            .pubsub
            .as_mut()
            .ok_or("pubsub is switched off".to_owned())
    }

    /// Adds parts to a message and tells the others.
    pub fn publish_partial(
        &mut self,
        topic: gossipsub::TopicHash,
        group: Vec<u8>,
        parts: &[u8],
    ) -> Result<(), String> {
        let message = self
            .partials
            .entry((topic.clone(), group.clone()))
            .or_insert_with(|| Eight::new(group.clone()));
        if message.add(parts) {
            output::line(&json!({
                "event": "partial",
                "topic": topic.as_str(),
                "group": BASE64_STANDARD.encode(group),
                "data": BASE64_STANDARD.encode(message.lacking(0)),
            }));
        }
        let message = message.clone();
        match self.pubsub()?.publish_partial(topic, message) {
            Ok(()) | Err(gossipsub::PublishError::NoPeersSubscribedToTopic) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished {
                peer_id,
                connection_id,
                ..
            } => {
                self.connections.insert(connection_id, peer_id);
                output::connection_event("connected", &peer_id);
                if let Some(reply) = self.dials.remove(&connection_id) {
                    let _ = reply.send(Ok(()));
                }
            }
            SwarmEvent::ConnectionClosed {
                peer_id,
                connection_id,
                num_established,
                cause,
                ..
            } => {
                if let Some(cause) = cause {
                    eprintln!("connection to {peer_id} closed: {cause}");
                }
                self.connections.remove(&connection_id);
                output::connection_event("disconnected", &peer_id);
                if num_established == 0 {
                    self.identified.remove(&peer_id);
                    self.pinged.remove(&peer_id);
                    self.identify_waiters.retain(|(peer, _)| *peer != peer_id);
                    for (_, reply) in self
                        .close_waiters
                        .extract_if(.., |(peer, _)| *peer == peer_id)
                    {
                        let _ = reply.send(());
                    }
                }
            }
            SwarmEvent::ListenerClosed {
                listener_id,
                reason,
                ..
            } => {
                if let Some((_, reply)) = self.reservations.remove(&listener_id) {
                    let _ = reply.send(Err(format!("the listener closed: {reason:?}")));
                }
            }
            SwarmEvent::OutgoingConnectionError {
                connection_id,
                error,
                ..
            } => {
                if let Some(reply) = self.dials.remove(&connection_id) {
                    let _ = reply.send(Err(error.to_string()));
                }
            }
            SwarmEvent::IncomingConnectionError {
                send_back_addr,
                error,
                ..
            } => eprintln!("inbound connection from {send_back_addr} failed: {error}"),
            SwarmEvent::Behaviour(event) => self.on_behaviour_event(event),
            _ => {}
        }
    }

    fn on_behaviour_event(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. }) => {
                for (_, reply) in self
                    .identify_waiters
                    .extract_if(.., |(peer, _)| *peer == peer_id)
                {
                    let _ = reply.send(info.clone());
                }
                self.on_identified(peer_id, &info);
                self.identified.insert(peer_id, info);
            }
            BehaviourEvent::Identify(identify::Event::Error { peer_id, error, .. }) => {
                eprintln!("identify with {peer_id} failed: {error}");
            }
            BehaviourEvent::Ping(event) => match event.result {
                Ok(_) => drop(self.pinged.insert(event.peer)),
                Err(error) => {
                    eprintln!("the package's own ping to {} failed: {error}", event.peer);
                }
            },
            BehaviourEvent::RelayClient(relay::client::Event::ReservationReqAccepted {
                relay_peer_id,
                ..
            }) => {
                for (_, (_, reply)) in self
                    .reservations
                    .extract_if(|_, (relay, _)| *relay == relay_peer_id)
                {
                    let _ = reply.send(Ok(()));
                }
            }
            BehaviourEvent::Dcutr(event) => {
                if let Err(error) = event.result {
                    eprintln!("no hole to {}: {error}", event.remote_peer_id);
                }
            }
            BehaviourEvent::Pubsub(gossipsub::Event::Message { message, .. })
                if output::is_quiet() =>
            {
                self.counts.add(message.topic);
            }
            BehaviourEvent::Pubsub(gossipsub::Event::Message { message, .. }) => {
                output::line(&json!({
                    "event": "message",
                    "topic": message.topic.as_str(),
                    "from": message.source.map(|peer| peer.to_string()),
                    "data": BASE64_STANDARD.encode(&message.data),
                }));
            }
            BehaviourEvent::Pubsub(gossipsub::Event::Partial {
                topic_hash,
                group_id,
                message,
                ..
            }) => {
                let parts = message.unwrap_or_default();
                if let Err(error) = self.publish_partial(topic_hash, group_id, &parts) {
                    eprintln!("a message in parts: {error}");
                }
            }
            BehaviourEvent::RendezvousClient(event) => self.rendezvous.on_event(event),
            BehaviourEvent::AutonatV1(autonat::Event::OutboundProbe(event)) => {
                self.autonat.on_v1(event);
            }
            BehaviourEvent::AutonatV2Client(event) => self.autonat.on_v2(event),
            BehaviourEvent::Kad(event) => self.on_dht_event(event),
            BehaviourEvent::Mdns(mdns::Event::Discovered(found)) => {
                for (peer, addr) in found {
                    output::line(&json!({
                        "event": "discovered",
                        "peer": peer.to_string(),
                        "addr": addr.to_string(),
                    }));
                }
            }
            _ => {}
        }
    }
}

fn is_wildcard(addr: &Multiaddr) -> bool {
    addr.iter().any(|part| match part {
        Protocol::Ip4(ip) => ip.is_unspecified(),
        Protocol::Ip6(ip) => ip.is_unspecified(),
        _ => false,
    })
}
