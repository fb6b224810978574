//! A behaviour for plain streams: opens one for any protocol id and hands over every inbound one.
//!
//! libp2p-stream does nearly the same, but queues one inbound stream per protocol and resets those that come faster.
//! A suite that opens fifty streams at once must not see resets which no program asked for, so the queue here has no
//! limit, and several streams are negotiated at the same time. It also never dials by itself.

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    future::{Ready, ready},
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol,
    core::{Endpoint, UpgradeInfo, transport::PortUse},
    swarm::{
        ConnectionClosed, ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent,
        ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, StreamUpgradeError,
        SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
        behaviour::ConnectionEstablished,
        handler::{
            ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
        },
    },
};
use tokio::sync::{mpsc, oneshot};

pub type InboundStream = (PeerId, StreamProtocol, Stream);
type Reply = oneshot::Sender<Result<Stream, String>>;

/// The protocol ids that inbound streams may ask for, shared with the handler of every connection.
#[derive(Clone, Default)]
struct Served(Arc<Mutex<Vec<StreamProtocol>>>);

impl Served {
    fn lock(&self) -> MutexGuard<'_, Vec<StreamProtocol>> {
        self.0.lock().expect("no holder of the lock can panic")
    }
}

pub struct Behaviour {
    served: Served,
    inbound: mpsc::UnboundedSender<InboundStream>,
    connections: HashMap<PeerId, Vec<ConnectionId>>,
    to_swarm: VecDeque<ToSwarm<Infallible, ToHandler>>,
}

impl Behaviour {
    pub fn new(protocols: &[StreamProtocol]) -> (Self, mpsc::UnboundedReceiver<InboundStream>) {
        let (inbound, receiver) = mpsc::unbounded_channel();
        let behaviour = Self {
            served: Served(Arc::new(Mutex::new(protocols.to_vec()))),
            inbound,
            connections: HashMap::new(),
            to_swarm: VecDeque::new(),
        };
        (behaviour, receiver)
    }

    /// Asks for a stream on an existing connection. The receiver fails when that connection ends first.
    pub fn open(
        &mut self,
        peer: PeerId,
        protocol: StreamProtocol,
    ) -> oneshot::Receiver<Result<Stream, String>> {
        let (reply, receiver) = oneshot::channel();
        match self.connections.get(&peer).and_then(|all| all.first()) {
            Some(connection) => self.to_swarm.push_back(ToSwarm::NotifyHandler {
                peer_id: peer,
                handler: NotifyHandler::One(*connection),
                event: ToHandler::Open(protocol, reply),
            }),
            None => drop(reply.send(Err(format!("not connected to {peer}")))),
        }
        receiver
    }

    /// Serves one more protocol, on existing connections too.
    pub fn serve(&mut self, protocol: StreamProtocol) {
        let mut served = self.served.lock();
        if served.contains(&protocol) {
            return;
        }
        served.push(protocol);
        drop(served);
        // A connection compares its protocol list only when it runs, so each must be woken.
        for (peer, connections) in &self.connections {
            for connection in connections {
                self.to_swarm.push_back(ToSwarm::NotifyHandler {
                    peer_id: *peer,
                    handler: NotifyHandler::One(*connection),
                    event: ToHandler::Wake,
                });
            }
        }
    }

    fn new_handler(&self, peer: PeerId) -> Handler {
        Handler {
            peer,
            served: self.served.clone(),
            inbound: self.inbound.clone(),
            wanted: VecDeque::new(),
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.new_handler(peer))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.new_handler(peer))
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id,
                connection_id,
                ..
            }) => self
                .connections
                .entry(peer_id)
                .or_default()
                .push(connection_id),
            FromSwarm::ConnectionClosed(ConnectionClosed {
                peer_id,
                connection_id,
                ..
            }) => {
                if let Some(connections) = self.connections.get_mut(&peer_id) {
                    connections.retain(|id| *id != connection_id);
                    if connections.is_empty() {
                        self.connections.remove(&peer_id);
                    }
                }
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        // No waker is kept: only the task that owns the swarm fills the queue, and it polls the swarm afterwards.
        self.to_swarm.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

#[derive(Debug)]
pub enum ToHandler {
    Open(StreamProtocol, Reply),
    Wake,
}

pub struct Handler {
    peer: PeerId,
    served: Served,
    inbound: mpsc::UnboundedSender<InboundStream>,
    wanted: VecDeque<(StreamProtocol, Reply)>,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = ToHandler;
    type ToBehaviour = Infallible;
    type InboundProtocol = Negotiate;
    type OutboundProtocol = Negotiate;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Reply;

    fn listen_protocol(&self) -> SubstreamProtocol<Negotiate> {
        SubstreamProtocol::new(Negotiate(self.served.lock().clone()), ())
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Negotiate, Reply, Infallible>> {
        match self.wanted.pop_front() {
            Some((protocol, reply)) => {
                Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                    protocol: SubstreamProtocol::new(Negotiate(vec![protocol]), reply),
                })
            }
            None => Poll::Pending,
        }
    }

    fn on_behaviour_event(&mut self, event: ToHandler) {
        match event {
            ToHandler::Open(protocol, reply) => self.wanted.push_back((protocol, reply)),
            ToHandler::Wake => {}
        }
    }

    // A failed send below means that nobody wants the stream any more; dropping it resets it.
    fn on_connection_event(&mut self, event: ConnectionEvent<Negotiate, Negotiate, (), Reply>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (protocol, stream),
                ..
            }) => drop(self.inbound.send((self.peer, protocol, stream))),
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: (_, stream),
                info,
            }) => drop(info.send(Ok(stream))),
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                let text = match error {
                    StreamUpgradeError::Timeout => "opening a stream timed out".to_owned(),
                    StreamUpgradeError::NegotiationFailed => "protocol not supported".to_owned(),
                    StreamUpgradeError::Io(error) => format!("opening a stream: {error}"),
                };
                let _ = info.send(Err(text));
            }
            _ => {}
        }
    }
}

/// Agrees on one of several protocol ids and does nothing else to the stream.
pub struct Negotiate(Vec<StreamProtocol>);

impl UpgradeInfo for Negotiate {
    type Info = StreamProtocol;
    type InfoIter = std::vec::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.clone().into_iter()
    }
}

impl libp2p::core::upgrade::InboundUpgrade<Stream> for Negotiate {
    type Output = (StreamProtocol, Stream);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((protocol, stream)))
    }
}

impl libp2p::core::upgrade::OutboundUpgrade<Stream> for Negotiate {
    type Output = (StreamProtocol, Stream);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((protocol, stream)))
    }
}
