//! Commands of rendezvous clients: one question at a time for each kind, answered by the package's events.

use base64::{Engine, prelude::BASE64_STANDARD};
use libp2p::{
    PeerId,
    rendezvous::{
        Cookie, Namespace,
        client::{Behaviour, Event},
    },
};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::node::Node;

type Answer = Result<Value, String>;

/// Who waits for the answer of the registration and of the discovery that are under way.
#[derive(Default)]
pub struct Rendezvous {
    registering: Option<oneshot::Sender<Answer>>,
    discovering: Option<oneshot::Sender<Answer>>,
}

impl Rendezvous {
    pub fn on_event(&mut self, event: Event) {
        match event {
            Event::Registered { ttl, .. } => {
                answer(&mut self.registering, Ok(json!({"ttl": ttl})));
            }
            Event::RegisterFailed { error, .. } => {
                answer(&mut self.registering, Err(format!("{error:?}")));
            }
            Event::Discovered {
                registrations,
                cookie,
                ..
            } => {
                let found: Vec<_> = registrations
                    .iter()
                    .map(|registration| {
                        let addrs = registration.record.addresses().iter();
                        json!({
                            "peer": registration.record.peer_id().to_string(),
                            "namespace": registration.namespace.to_string(),
                            "addrs": addrs.map(ToString::to_string).collect::<Vec<_>>(),
                            "ttl": registration.ttl,
                        })
                    })
                    .collect();
                let cookie = BASE64_STANDARD.encode(cookie.into_wire_encoding());
                let found = json!({"registrations": found, "cookie": cookie});
                answer(&mut self.discovering, Ok(found));
            }
            Event::DiscoverFailed { error, .. } => {
                answer(&mut self.discovering, Err(format!("{error:?}")));
            }
            Event::Expired { .. } => {}
        }
    }
}

fn answer(waiting: &mut Option<oneshot::Sender<Answer>>, answer: Answer) {
    if let Some(reply) = waiting.take() {
        let _ = reply.send(answer);
    }
}

impl Node {
    pub fn register(
        &mut self,
        peer: PeerId,
        namespace: Namespace,
        ttl: Option<u64>,
    ) -> Result<oneshot::Receiver<Answer>, String> {
        // The package registers external addresses only, and nobody has told this peer of any.
        let listening: Vec<_> = self.swarm.listeners().cloned().collect();
        for addr in listening {
            self.swarm.add_external_address(addr);
        }
        self.client()?
            .register(namespace, peer, ttl)
            .map_err(|e| e.to_string())?;
        let (reply, receiver) = oneshot::channel();
        self.rendezvous.registering = Some(reply);
        Ok(receiver)
    }

    pub fn unregister(&mut self, peer: PeerId, namespace: Namespace) -> Result<(), String> {
        self.client()?.unregister(namespace, peer);
        Ok(())
    }

    pub fn discover(
        &mut self,
        peer: PeerId,
        namespace: Option<Namespace>,
        cookie: Option<Vec<u8>>,
        limit: Option<u64>,
    ) -> Result<oneshot::Receiver<Answer>, String> {
        let cookie = cookie
            .map(Cookie::from_wire_encoding)
            .transpose()
            .map_err(|e| e.to_string())?;
        self.client()?.discover(namespace, cookie, limit, peer);
        let (reply, receiver) = oneshot::channel();
        self.rendezvous.discovering = Some(reply);
        Ok(receiver)
    }

    fn client(&mut self) -> Result<&mut Behaviour, String> {
        let client = self.swarm.behaviour_mut().rendezvous_client.as_mut();
        client.ok_or("this peer is no rendezvous client".to_owned())
    }
}
