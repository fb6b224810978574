//! The commands of the contract.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use futures::{StreamExt, stream};
use libp2p::{
    Multiaddr, PeerId, StreamProtocol,
    gossipsub::{IdentTopic, PublishError},
    multiaddr::Protocol,
    ping,
    rendezvous::Namespace,
};
use serde_json::{Map, Value, json};

use crate::{
    args::Args,
    clients, gossip,
    kad::Query,
    launch,
    node::Handle,
    pattern,
    perf::{self, Sizes},
    served::{self, State},
};

const IDENTIFY_TIMEOUT: Duration = Duration::from_secs(10);
const AUTONAT_TIMEOUT: Duration = Duration::from_secs(20);
const CLOSED_TIMEOUT: Duration = Duration::from_secs(1);
const STREAMS_SIZE: u64 = 100;

type Results = Map<String, Value>;

#[derive(Clone)]
pub struct Commands {
    pub node: Handle,
    pub state: Arc<State>,
    pub args: Arc<Args>,
}

/// The arguments of one command.
pub struct Arguments(pub Value);

impl Arguments {
    pub fn text(&self, name: &str) -> Result<&str, String> {
        self.0[name].as_str().ok_or(format!("{name}: no text"))
    }

    fn bytes(&self, name: &str) -> Result<Vec<u8>, String> {
        BASE64_STANDARD
            .decode(self.text(name)?)
            .map_err(|e| format!("{name}: {e}"))
    }

    fn number(&self, name: &str) -> Result<u64, String> {
        self.0[name].as_u64().ok_or(format!("{name}: no number"))
    }

    fn number_or(&self, name: &str, default: u64) -> u64 {
        self.0[name].as_u64().unwrap_or(default)
    }

    /// An address and the peer it ends in.
    fn addr(&self) -> Result<(PeerId, Multiaddr), String> {
        let addr: Multiaddr = self
            .text("addr")?
            .parse()
            .map_err(|e| format!("addr: {e}"))?;
        match addr.iter().last() {
            Some(Protocol::P2p(peer)) => Ok((peer, addr)),
            _ => Err("addr must end in /p2p/ID".into()),
        }
    }

    /// The decimal text of the seed, which is all that the pattern needs.
    fn seed(&self) -> Result<String, String> {
        match &self.0["seed"] {
            Value::Number(n) if !n.is_f64() => Ok(n.to_string()),
            _ => Err("seed: no whole number".into()),
        }
    }

    fn peer(&self) -> Result<PeerId, String> {
        self.text("peer")?.parse().map_err(|e| format!("peer: {e}"))
    }

    fn namespace(&self) -> Result<Namespace, String> {
        Namespace::new(self.text("namespace")?.to_owned()).map_err(text)
    }

    fn topic(&self) -> Result<IdentTopic, String> {
        Ok(IdentTopic::new(self.text("topic")?))
    }
}

impl Commands {
    pub async fn run(&self, name: &str, args: &Arguments) -> Result<Results, String> {
        let results = match name {
            "dial" => self.dial(args).await?,
            "reserve" => self.reserve(args).await?,
            "ping" => self.while_connected(args, self.ping(args)).await?,
            "identify" => self.identify(args).await?,
            "known_protocols" => self.known_protocols(args).await?,
            "add_protocol" => self.add_protocol(args).await?,
            "echo" => self.while_connected(args, self.echo(args)).await?,
            "streams" => self.while_connected(args, self.streams(args)).await?,
            "half_close" => self.while_connected(args, self.half_close(args)).await?,
            "expect_reset" => self.while_connected(args, self.expect_reset(args)).await?,
            "send_reset" => self.while_connected(args, self.send_reset(args)).await?,
            "push" => self.while_connected(args, self.push(args)).await?,
            "perf" => self.while_connected(args, self.perf(args)).await?,
            "connect_many" => self.connect_many(args).await?,
            "status" => self.status(),
            "sink_hold" => self.hold(true),
            "sink_release" => self.hold(false),
            "connections" => self.connections().await?,
            "disconnect" => self.disconnect(args).await?,
            "subscribe" => self.subscribe(args).await?,
            "unsubscribe" => self.unsubscribe(args).await?,
            "publish" => self.publish(args).await?,
            "publish_many" => self.publish_many(args).await?,
            "collect" => self.collect(args).await?,
            "autonat" => self.autonat(args).await?,
            "publish_partial" => self.publish_partial(args).await?,
            "rendezvous_register" => self.rendezvous_register(args).await?,
            "rendezvous_unregister" => self.rendezvous_unregister(args).await?,
            "rendezvous_discover" => self.rendezvous_discover(args).await?,
            "dht_table" => self.node.with(|node| node.dht_table()).await??,
            "dht_find_peer" => self.dht(Query::FindPeer(args.peer()?)).await?,
            "dht_closest" => self.dht(Query::Closest(args.bytes("key")?)).await?,
            "dht_put" => {
                let (key, data) = (args.bytes("key")?, args.bytes("data")?);
                self.dht(Query::Put(key, data)).await?
            }
            "dht_get" => self.dht(Query::Get(args.bytes("key")?)).await?,
            "dht_provide" => self.dht(Query::Provide(args.bytes("key")?)).await?,
            "dht_find_providers" => {
                let (key, count) = (args.bytes("key")?, args.number("count")? as usize);
                self.dht(Query::FindProviders(key, count)).await?
            }
            "dht_put_pk" => self.dht_put_pk().await?,
            "topic_peers" => self.topic_peers(args).await?,
            _ => return Err(format!("unknown command {name}")),
        };
        match results {
            Value::Object(results) => Ok(results),
            _ => unreachable!("every command makes an object"),
        }
    }

    /// Closes all connections in an orderly way, so that the other sides see an end and not a broken connection.
    pub async fn close_node(&self) {
        let close_all = async {
            for peer in self.node.with(|node| node.connected_peers()).await? {
                let closed = self.node.with(move |node| node.disconnect(peer)).await?;
                let _ = closed.await;
            }
            Ok::<_, String>(())
        };
        let _ = tokio::time::timeout(Duration::from_secs(5), close_all).await;
    }

    /// Runs a command on streams, but not for long after its last connection ended: a writer on the package's mplex
    /// that waits for its turn never hears of that end.
    async fn while_connected(
        &self,
        args: &Arguments,
        command: impl Future<Output = Result<Value, String>>,
    ) -> Result<Value, String> {
        let peer = args.peer()?;
        let closed = self.node.with(move |node| node.wait_closed(peer)).await?;
        tokio::pin!(command);
        tokio::select! {
            biased;
            result = &mut command => return result,
            Ok(()) = closed => {}
        }
        // What arrived before the end may still make an answer.
        tokio::time::timeout(CLOSED_TIMEOUT, command)
            .await
            .unwrap_or(Err("the connection closed".into()))
    }

    async fn dial(&self, args: &Arguments) -> Result<Value, String> {
        let (peer, addr) = args.addr()?;
        self.node
            .with(move |node| node.dial(peer, addr))
            .await?
            .await
            .map_err(|_| "the dial was given up")??;
        Ok(json!({"peer_id": peer.to_string()}))
    }

    async fn reserve(&self, args: &Arguments) -> Result<Value, String> {
        let (relay, addr) = args.addr()?;
        self.node
            .with(move |node| node.reserve(relay, addr))
            .await?
            .await
            .map_err(|_| "the reservation was given up")??;
        Ok(json!({}))
    }

    /// The package pings by its own clock only, so this is a ping client of ours against the other side's server.
    async fn ping(&self, args: &Arguments) -> Result<Value, String> {
        let peer = args.peer()?;
        // The package pings every new connection, and as the answering side keeps only the newest ping stream. So let
        // its own one come first, but do not insist.
        for _ in 0..40 {
            let pinged = self.node.with(move |node| node.pinged.contains(&peer));
            if pinged.await? {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let stream = self.node.open(peer, ping::PROTOCOL_NAME).await?;
        let rtts = clients::ping(stream, args.number("count")?).await;
        Ok(json!({"rtts_ms": rtts.map_err(text)?}))
    }

    async fn identify(&self, args: &Arguments) -> Result<Value, String> {
        let peer = args.peer()?;
        let waiting = self
            .node
            .with(move |node| node.wait_identified(peer))
            .await?;
        let info = tokio::time::timeout(IDENTIFY_TIMEOUT, waiting)
            .await
            .map_err(|_| "identify did not finish in time")?
            .map_err(|_| "disconnected before identify finished")?;
        let observed = Some(&info.observed_addr).filter(|addr| !addr.is_empty());
        Ok(json!({
            "agent": info.agent_version,
            "protocol_version": info.protocol_version,
            "protocols": texts(&info.protocols),
            "listen_addrs": texts(&info.listen_addrs),
            "observed_addr": observed.map(|addr| addr.to_string()),
        }))
    }

    async fn known_protocols(&self, args: &Arguments) -> Result<Value, String> {
        let peer = args.peer()?;
        let known = move |node: &mut crate::node::Node| {
            let info = node.identified.get(&peer);
            info.map_or(Vec::new(), |info| texts(&info.protocols))
        };
        Ok(json!({"protocols": self.node.with(known).await?}))
    }

    async fn add_protocol(&self, args: &Arguments) -> Result<Value, String> {
        let protocol = StreamProtocol::try_from_owned(args.text("protocol")?.to_owned())
            .map_err(|e| format!("protocol: {e}"))?;
        self.node
            .with(move |node| node.add_protocol(protocol))
            .await?;
        Ok(json!({}))
    }

    async fn echo(&self, args: &Arguments) -> Result<Value, String> {
        let stream = self.node.open(args.peer()?, served::ECHO).await?;
        let echoed = clients::echo(stream, args.number("size")?, &args.seed()?)
            .await
            .map_err(text)?;
        Ok(json!({"sha256": echoed.sha256, "bytes": echoed.bytes, "seconds": echoed.seconds}))
    }

    async fn streams(&self, args: &Arguments) -> Result<Value, String> {
        let (peer, total) = (args.peer()?, args.number("total")?);
        let parallel = args.number("parallel")?.max(1) as usize;
        let results: Vec<_> = stream::iter(0..total)
            .map(|i| self.one_echo(peer, i))
            .buffer_unordered(parallel)
            .collect()
            .await;
        let completed = results.iter().filter(|result| result.is_ok()).count();
        match results.into_iter().find_map(Result::err) {
            Some(error) => Err(format!("{completed} of {total} completed; {error}")),
            None => Ok(json!({"completed": completed})),
        }
    }

    /// One short echo stream, checked. The seed differs so that streams cannot be mixed up unseen.
    async fn one_echo(&self, peer: PeerId, index: u64) -> Result<(), String> {
        let seed = index.to_string();
        let stream = self.node.open(peer, served::ECHO).await?;
        let echoed = clients::echo(stream, STREAMS_SIZE, &seed)
            .await
            .map_err(text)?;
        let block = pattern::block(&seed);
        let expected = pattern::sha256(pattern::piece(&block, 0, STREAMS_SIZE));
        if echoed.sha256 == expected {
            Ok(())
        } else {
            Err(format!("stream {index} brought other bytes back"))
        }
    }

    async fn half_close(&self, args: &Arguments) -> Result<Value, String> {
        let stream = self.node.open(args.peer()?, served::DIGEST).await?;
        let response = clients::ask(stream, args.number("size")?, &args.seed()?, None).await;
        Ok(json!({"response": response.map_err(text)?}))
    }

    async fn expect_reset(&self, args: &Arguments) -> Result<Value, String> {
        let peer = args.peer()?;
        let mut stream = self.node.open(peer, served::RESET).await?;
        clients::ask_for_reset(&mut stream).await.map_err(text)?;
        let outcome = served::outcome(&mut stream, peer, &self.node).await;
        Ok(json!({"outcome": outcome.map_err(text)?}))
    }

    async fn send_reset(&self, args: &Arguments) -> Result<Value, String> {
        let peer = args.peer()?;
        let mut stream = self.node.open(peer, served::WATCH).await?;
        clients::be_watched(&mut stream).await.map_err(text)?;
        self.node.reset(peer, stream).await?;
        Ok(json!({}))
    }

    async fn push(&self, args: &Arguments) -> Result<Value, String> {
        let (size, seed) = (args.number("size")?, args.seed()?);
        self.state.pushed.store(0, Relaxed);
        let started = Instant::now();
        let stream = self.node.open(args.peer()?, served::SINK).await?;
        let response = clients::ask(stream, size, &seed, Some(&self.state.pushed))
            .await
            .map_err(text)?;
        Ok(json!({"response": response, "seconds": started.elapsed().as_secs_f64()}))
    }

    async fn perf(&self, args: &Arguments) -> Result<Value, String> {
        let sizes = Sizes {
            upload: args.number("upload")?,
            download: args.number("download")?,
            chunk: args.number_or("chunk", perf::CHUNK),
        };
        let (total, parallel) = (args.number_or("total", 1), args.number_or("parallel", 1));
        let measured =
            perf::measure(&self.node, args.peer()?, sizes, total, parallel as usize).await?;
        Ok(measured.to_json())
    }

    async fn connect_many(&self, args: &Arguments) -> Result<Value, String> {
        let (peer, addr) = args.addr()?;
        let (total, identify) = (args.number("total")?, args.0["identify"] == true);
        let mut workers = Vec::new();
        // What these are asked to serve would come out of `inbound`, which is dropped: nobody dials them.
        for _ in 0..args.number("parallel")?.max(1) {
            workers.push(launch(&self.args.for_dialler()).await?.node);
        }
        let measured = perf::connect_many(&workers, peer, &addr, total, identify).await?;
        Ok(measured.to_json())
    }

    fn status(&self) -> Value {
        let watched = self.state.watched.lock();
        json!({
            "pushed": self.state.pushed.load(Relaxed),
            "sunk": self.state.sunk.load(Relaxed),
            "watch": *watched.expect("no holder of the lock can panic"),
        })
    }

    fn hold(&self, held: bool) -> Value {
        self.state.hold.send_replace(held);
        json!({})
    }

    async fn connections(&self) -> Result<Value, String> {
        let peers = self.node.with(|node| node.connected_peers()).await?;
        Ok(json!({"peers": texts(&peers)}))
    }

    async fn disconnect(&self, args: &Arguments) -> Result<Value, String> {
        let peer = args.peer()?;
        let closed = self.node.with(move |node| node.disconnect(peer)).await?;
        let _ = closed.await;
        Ok(json!({}))
    }

    async fn subscribe(&self, args: &Arguments) -> Result<Value, String> {
        let (topic, partial) = (args.topic()?, args.0["partial"] == true);
        let subscribe = move |node: &mut crate::node::Node| {
            let pubsub = node.pubsub()?;
            if partial {
                pubsub.enable_partials_for_topic(topic.hash(), true);
            }
            pubsub.subscribe(&topic).map_err(text)
        };
        self.node.with(subscribe).await??;
        Ok(json!({}))
    }

    async fn unsubscribe(&self, args: &Arguments) -> Result<Value, String> {
        let topic = args.topic()?;
        self.node
            .with(move |node| Ok::<_, String>(node.pubsub()?.unsubscribe(&topic)))
            .await??;
        Ok(json!({}))
    }

    async fn publish(&self, args: &Arguments) -> Result<Value, String> {
        let (topic, data) = (args.topic()?, args.bytes("data")?);
        let publish = move |node: &mut crate::node::Node| match node.pubsub()?.publish(topic, data)
        {
            // Nobody listens: for a flood that is a success, and the other implementations say so too.
            Ok(_) | Err(PublishError::NoPeersSubscribedToTopic) => Ok(()),
            Err(error) => Err(text(error)),
        };
        self.node.with(publish).await??;
        Ok(json!({}))
    }

    async fn publish_many(&self, args: &Arguments) -> Result<Value, String> {
        let (total, size) = (args.number("total")?, args.number("size")?);
        gossip::publish_many(&self.node, args.topic()?, total, size as usize).await
    }

    async fn collect(&self, args: &Arguments) -> Result<Value, String> {
        let (topic, total) = (args.topic()?.hash(), args.number("total")?);
        let patience =
            Duration::from_secs_f64(args.0["patience"].as_f64().ok_or("patience: no number")?);
        let counts = self.node.with(|node| node.counts.clone()).await?;
        Ok(counts.collect(&topic, total, patience).await)
    }

    async fn publish_partial(&self, args: &Arguments) -> Result<Value, String> {
        let topic = args.topic()?.hash();
        let (group, parts) = (args.bytes("group")?, args.bytes("data")?);
        self.node
            .with(move |node| node.publish_partial(topic, group, &parts))
            .await??;
        Ok(json!({}))
    }

    async fn topic_peers(&self, args: &Arguments) -> Result<Value, String> {
        let topic = args.topic()?.hash();
        let list = move |node: &mut crate::node::Node| {
            let subscribed = node.pubsub()?.all_peers();
            let peers = subscribed.filter(|(_, topics)| topics.contains(&&topic));
            Ok::<_, String>(peers.map(|(peer, _)| peer.to_string()).collect::<Vec<_>>())
        };
        Ok(json!({"peers": self.node.with(list).await??}))
    }

    async fn autonat(&self, args: &Arguments) -> Result<Value, String> {
        let peer = args.peer()?;
        let waiting = self.node.with(move |node| node.autonat.wait(peer)).await?;
        tokio::time::timeout(AUTONAT_TIMEOUT, waiting)
            .await
            .map_err(|_| "no answer in time")?
            .map_err(text)
    }

    async fn dht(&self, query: Query) -> Result<Value, String> {
        self.node
            .with(move |node| node.ask_dht(query))
            .await??
            .await
            .map_err(|_| "the query was given up")?
    }

    async fn dht_put_pk(&self) -> Result<Value, String> {
        let public = self.node.with(|node| node.public_key.clone()).await?;
        let key = [b"/pk/".to_vec(), public.to_peer_id().to_bytes()].concat();
        let value = public.encode_protobuf();
        self.dht(Query::Put(key.clone(), value)).await?;
        Ok(json!({"key": BASE64_STANDARD.encode(key)}))
    }

    async fn rendezvous_register(&self, args: &Arguments) -> Result<Value, String> {
        let (peer, namespace) = (args.peer()?, args.namespace()?);
        let ttl = args.0["ttl"].as_u64();
        self.node
            .with(move |node| node.register(peer, namespace, ttl))
            .await??
            .await
            .map_err(|_| "the registration was given up")?
    }

    async fn rendezvous_unregister(&self, args: &Arguments) -> Result<Value, String> {
        let (peer, namespace) = (args.peer()?, args.namespace()?);
        self.node
            .with(move |node| node.unregister(peer, namespace))
            .await??;
        Ok(json!({}))
    }

    async fn rendezvous_discover(&self, args: &Arguments) -> Result<Value, String> {
        let peer = args.peer()?;
        let namespace = match &args.0["namespace"] {
            Value::Null => None,
            _ => Some(args.namespace()?),
        };
        let cookie = match args.0["cookie"].as_str() {
            None => None,
            Some(encoded) => Some(BASE64_STANDARD.decode(encoded).map_err(text)?),
        };
        let limit = args.0["limit"].as_u64();
        self.node
            .with(move |node| node.discover(peer, namespace, cookie, limit))
            .await??
            .await
            .map_err(|_| "the discovery was given up")?
    }
}

fn text(error: impl ToString) -> String {
    error.to_string()
}

fn texts(items: &[impl ToString]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}
