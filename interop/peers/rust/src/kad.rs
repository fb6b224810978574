//! Commands of the DHT. The package checks no values and prefers none, so the namespaces mean nothing here.

use std::collections::HashMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use libp2p::{
    PeerId, identify,
    kad::{
        Behaviour, Config, Event, GetClosestPeersError, GetProvidersOk, GetRecordOk, Mode,
        PeerInfo, QueryId, QueryResult, Quorum, Record, store::MemoryStore,
    },
};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::{args::Args, node::Node};

pub type Kad = Behaviour<MemoryStore>;
type Answer = Result<Value, String>;

pub fn behaviour(peer_id: PeerId, args: &Args) -> Option<Kad> {
    let mode = match args.dht.as_str() {
        "server" => Mode::Server,
        "client" => Mode::Client,
        _ => return None,
    };
    let store = MemoryStore::new(peer_id);
    let mut config = Config::new(args.dht_protocol.clone());
    config.set_provider_record_ttl(Some(args.provider_ttl));
    let mut kad = Behaviour::with_config(peer_id, store, config);
    kad.set_mode(Some(mode));
    Some(kad)
}

/// What is asked of the network.
pub enum Query {
    FindPeer(PeerId),
    Closest(Vec<u8>),
    Put(Vec<u8>, Vec<u8>),
    Get(Vec<u8>),
    Provide(Vec<u8>),
    FindProviders(Vec<u8>, usize),
}

struct Waiting {
    reply: oneshot::Sender<Answer>,
    wanted: Option<PeerId>,
    count: usize,
    providers: Vec<PeerId>,
}

/// Who waits for which query.
#[derive(Default)]
pub struct Queries {
    waiting: HashMap<QueryId, Waiting>,
}

impl Queries {
    /// Takes an event; returns the query that needs to go on no longer.
    pub fn on_event(&mut self, event: Event) -> Option<QueryId> {
        let Event::OutboundQueryProgressed {
            id, result, step, ..
        } = event
        else {
            return None;
        };
        let waiting = self.waiting.get_mut(&id)?;
        let answer = match result {
            QueryResult::GetClosestPeers(Ok(found)) => Some(waiting.peers(found.peers)),
            QueryResult::GetClosestPeers(Err(GetClosestPeersError::Timeout { peers, .. })) => {
                Some(waiting.peers(peers))
            }
            QueryResult::GetRecord(Ok(GetRecordOk::FoundRecord(found))) => Some(Ok(
                json!({"data": BASE64_STANDARD.encode(found.record.value)}),
            )),
            QueryResult::GetRecord(Err(error)) => Some(Err(error.to_string())),
            QueryResult::GetRecord(Ok(_)) => step.last.then(|| Err("not found".into())),
            QueryResult::PutRecord(result) => {
                Some(result.map(|_| json!({})).map_err(|error| error.to_string()))
            }
            QueryResult::StartProviding(result) => {
                Some(result.map(|_| json!({})).map_err(|error| error.to_string()))
            }
            QueryResult::GetProviders(result) => waiting.providers(result.ok(), step.last),
            _ => None,
        }?;
        let waiting = self.waiting.remove(&id)?;
        let _ = waiting.reply.send(answer);
        Some(id)
    }
}

impl Waiting {
    fn peers(&self, found: Vec<PeerInfo>) -> Answer {
        let Some(wanted) = self.wanted else {
            let peers: Vec<_> = found.iter().map(|peer| peer.peer_id.to_string()).collect();
            return Ok(json!({"peers": peers}));
        };
        let peer = found.into_iter().find(|peer| peer.peer_id == wanted);
        let addrs = peer.ok_or("not found")?.addrs;
        let addrs: Vec<_> = addrs.iter().map(ToString::to_string).collect();
        Ok(json!({"addrs": addrs}))
    }

    fn providers(&mut self, found: Option<GetProvidersOk>, last: bool) -> Option<Answer> {
        if let Some(GetProvidersOk::FoundProviders { providers, .. }) = found {
            for peer in providers {
                if !self.providers.contains(&peer) {
                    self.providers.push(peer);
                }
            }
        }
        let peers: Vec<_> = self.providers.iter().map(ToString::to_string).collect();
        (last || peers.len() >= self.count).then(|| Ok(json!({"peers": peers})))
    }
}

impl Node {
    pub fn kad(&mut self) -> Result<&mut Kad, String> {
        let kad = self.swarm.behaviour_mut().kad.as_mut();
        kad.ok_or("started with --dht none".to_owned())
    }

    pub fn ask_dht(&mut self, query: Query) -> Result<oneshot::Receiver<Answer>, String> {
        let kad = self.kad()?;
        let (mut wanted, mut count) = (None, 0);
        let id = match query {
            Query::FindPeer(peer) => {
                wanted = Some(peer);
                kad.get_closest_peers(peer)
            }
            Query::Closest(key) => kad.get_closest_peers(key),
            Query::Put(key, value) => kad
                .put_record(Record::new(key, value), Quorum::One)
                .map_err(|error| error.to_string())?,
            Query::Get(key) => kad.get_record(key.into()),
            Query::Provide(key) => kad
                .start_providing(key.into())
                .map_err(|error| error.to_string())?,
            Query::FindProviders(key, enough) => {
                count = enough;
                kad.get_providers(key.into())
            }
        };
        let (reply, receiver) = oneshot::channel();
        let providers = Vec::new();
        self.queries.waiting.insert(
            id,
            Waiting {
                reply,
                wanted,
                count,
                providers,
            },
        );
        Ok(receiver)
    }

    pub fn dht_table(&mut self) -> Result<Value, String> {
        let mut peers = Vec::new();
        for bucket in self.kad()?.kbuckets() {
            for entry in bucket.iter() {
                peers.push(entry.node.key.preimage().to_string());
            }
        }
        Ok(json!({"peers": peers}))
    }

    /// The package leaves it to applications to tell the DHT who serves it, and where.
    pub fn on_identified(&mut self, peer: PeerId, info: &identify::Info) {
        if let Ok(kad) = self.kad()
            && kad
                .protocol_names()
                .iter()
                .any(|name| info.protocols.contains(name))
        {
            for addr in &info.listen_addrs {
                kad.add_address(&peer, addr.clone());
            }
        }
    }

    pub fn on_dht_event(&mut self, event: Event) {
        if let Some(id) = self.queries.on_event(event)
            && let Ok(kad) = self.kad()
            && let Some(mut query) = kad.query_mut(&id)
        {
            query.finish();
        }
    }
}
