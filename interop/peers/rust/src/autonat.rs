//! What AutoNAT has found out, by who was asked. The package asks by itself, everybody it is connected to.

use std::collections::HashMap;

use libp2p::{
    PeerId,
    autonat::{OutboundProbeError, OutboundProbeEvent, ResponseError, v2},
};
use serde_json::{Value, json};
use tokio::sync::oneshot;

/// The last answer of each peer, and who waits for the first one.
#[derive(Default)]
pub struct Autonat {
    answers: HashMap<PeerId, Value>,
    waiters: Vec<(PeerId, oneshot::Sender<Value>)>,
}

impl Autonat {
    pub fn wait(&mut self, peer: PeerId) -> oneshot::Receiver<Value> {
        let (reply, receiver) = oneshot::channel();
        match self.answers.get(&peer) {
            Some(answer) => drop(reply.send(answer.clone())),
            None => self.waiters.push((peer, reply)),
        }
        receiver
    }

    pub fn on_v1(&mut self, event: OutboundProbeEvent) {
        match event {
            OutboundProbeEvent::Response { peer, address, .. } => {
                self.learn(
                    peer,
                    json!({"reachable": true, "addr": address.to_string()}),
                );
            }
            OutboundProbeEvent::Error {
                peer: Some(peer),
                error: OutboundProbeError::Response(ResponseError::DialError),
                ..
            } => self.learn(peer, json!({"reachable": false, "addr": null})),
            // It asks before it is connected to anybody who serves it, too.
            OutboundProbeEvent::Error { .. } | OutboundProbeEvent::Request { .. } => {}
        }
    }

    pub fn on_v2(&mut self, event: v2::client::Event) {
        let reachable = event.result.is_ok();
        let addr = event.tested_addr.to_string();
        self.learn(event.server, json!({"reachable": reachable, "addr": addr}));
    }

    fn learn(&mut self, peer: PeerId, answer: Value) {
        for (_, reply) in self.waiters.extract_if(.., |(asked, _)| *asked == peer) {
            let _ = reply.send(answer.clone());
        }
        self.answers.insert(peer, answer);
    }
}
