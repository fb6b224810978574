//! The stream protocols that every interop peer serves.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use futures::{AsyncReadExt, AsyncWriteExt, io::ReadHalf, io::WriteHalf, try_join};
use libp2p::{PeerId, Stream, StreamProtocol};
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, watch};

use crate::{
    node::Handle,
    pattern,
    perf::{self, PERF},
    raw_streams::InboundStream,
};

pub const ECHO: StreamProtocol = StreamProtocol::new("/interop/echo/1.0.0");
pub const DIGEST: StreamProtocol = StreamProtocol::new("/interop/digest/1.0.0");
pub const RESET: StreamProtocol = StreamProtocol::new("/interop/reset/1.0.0");
pub const WATCH: StreamProtocol = StreamProtocol::new("/interop/watch/1.0.0");
pub const SINK: StreamProtocol = StreamProtocol::new("/interop/sink/1.0.0");
pub const ALL: [StreamProtocol; 6] = [ECHO, DIGEST, RESET, WATCH, SINK, PERF];

const CHUNK: usize = 16 * 1024;
/// Chunks that an echo stream reads ahead of what it could write back.
const ECHO_CHUNKS: usize = 16;

/// What the `status` command tells, and the tap of the sinks.
pub struct State {
    pub pushed: AtomicU64,
    pub sunk: AtomicU64,
    pub watched: Mutex<Vec<&'static str>>,
    pub hold: watch::Sender<bool>,
}

impl State {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            pushed: AtomicU64::new(0),
            sunk: AtomicU64::new(0),
            watched: Mutex::new(Vec::new()),
            hold: watch::Sender::new(false),
        })
    }
}

/// Serves inbound streams, each in a task of its own.
pub async fn serve_all(
    mut inbound: mpsc::UnboundedReceiver<InboundStream>,
    node: Handle,
    state: Arc<State>,
) {
    while let Some((peer, protocol, stream)) = inbound.recv().await {
        let (node, state) = (node.clone(), state.clone());
        tokio::spawn(async move {
            if let Err(error) = serve(peer, &protocol, stream, &node, &state).await {
                eprintln!("{protocol} from {peer}: {error}");
            }
        });
    }
}

async fn serve(
    peer: PeerId,
    protocol: &StreamProtocol,
    mut stream: Stream,
    node: &Handle,
    state: &State,
) -> io::Result<()> {
    match protocol {
        name if *name == ECHO => echo(stream).await,
        name if *name == DIGEST => {
            let digest = digest_to_end(&mut stream, |_| ()).await?;
            stream.write_all(digest.as_bytes()).await?;
            stream.close().await
        }
        name if *name == RESET => {
            stream.read_exact(&mut [0; 4]).await?;
            node.reset(peer, stream).await.map_err(io::Error::other)
        }
        name if *name == WATCH => watch_stream(stream, peer, node, state).await,
        name if *name == SINK => sink(stream, state).await,
        name if *name == PERF => perf::serve(stream).await,
        // Only protocols from `add_protocol` are left.
        _ => stream.close().await,
    }
}

/// Two halves with a bounded queue between them, so a slow reader on the other side does not stop our reading at once
/// and a fast writer cannot fill our memory.
async fn echo(stream: Stream) -> io::Result<()> {
    let (reader, writer) = stream.split();
    let (sender, receiver) = mpsc::channel(ECHO_CHUNKS);
    try_join!(echo_read(reader, sender), echo_write(writer, receiver))?;
    Ok(())
}

async fn echo_read(mut reader: ReadHalf<Stream>, sender: mpsc::Sender<Vec<u8>>) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let n = reader.read(&mut buffer).await?;
        if n == 0 || sender.send(buffer[..n].to_vec()).await.is_err() {
            return Ok(());
        }
    }
}

async fn echo_write(
    mut writer: WriteHalf<Stream>,
    mut receiver: mpsc::Receiver<Vec<u8>>,
) -> io::Result<()> {
    while let Some(chunk) = receiver.recv().await {
        writer.write_all(&chunk).await?;
        // The other side may wait for exactly these bytes before it sends more.
        if receiver.is_empty() {
            writer.flush().await?;
        }
    }
    writer.close().await
}

async fn watch_stream(
    mut stream: Stream,
    peer: PeerId,
    node: &Handle,
    state: &State,
) -> io::Result<()> {
    let mut word = [0; 4];
    stream.read_exact(&mut word).await?;
    stream.write_all(&word).await?;
    stream.flush().await?;
    let outcome = outcome(&mut stream, peer, node).await?;
    state
        .watched
        .lock()
        .expect("no holder of the lock can panic")
        .push(outcome);
    stream.close().await
}

async fn sink(mut stream: Stream, state: &State) -> io::Result<()> {
    state.sunk.store(0, Relaxed);
    let mut hold = state.hold.subscribe();
    // The sender lives as long as the process, so waiting cannot fail.
    let _ = hold.wait_for(|held| !held).await;
    let digest = digest_to_end(&mut stream, |n| {
        state.sunk.fetch_add(n, Relaxed);
    })
    .await?;
    stream.write_all(digest.as_bytes()).await?;
    stream.close().await
}

async fn digest_to_end(stream: &mut Stream, mut count: impl FnMut(u64)) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    loop {
        let n = stream.read(&mut buffer).await?;
        if n == 0 {
            return Ok(pattern::hex(&hash.finalize()));
        }
        hash.update(&buffer[..n]);
        count(n as u64);
    }
}

/// What the next read brings: `reset`, `eof` or `data`.
///
/// Both muxers of the package report a reset as end of stream to a reader. Only a writer sees the difference, so an end
/// is followed by a write of nothing: it fails after a reset and sends at most an empty frame otherwise. This needs a
/// stream whose write side is still open. The end of the whole connection looks the same on its streams, but is an
/// error here, so that nobody takes a broken connection for a reset.
pub async fn outcome(stream: &mut Stream, peer: PeerId, node: &Handle) -> io::Result<&'static str> {
    let ended = match stream.read(&mut [0]).await {
        Ok(0) => stream.write(&[]).await.is_err(),
        Ok(_) => return Ok("data"),
        Err(_) => true,
    };
    if !ended {
        return Ok("eof");
    }
    // Streams hear of the end of their connection a moment before the node does.
    tokio::time::sleep(Duration::from_millis(20)).await;
    let connected = node.with(move |node| node.swarm.is_connected(&peer)).await;
    if connected.map_err(io::Error::other)? {
        Ok("reset")
    } else {
        Err(io::Error::other("the connection closed"))
    }
}
