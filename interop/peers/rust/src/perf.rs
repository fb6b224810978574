//! The perf protocol of the specifications, and connections by the hundred: what a benchmark measures.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Instant,
};

use futures::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, StreamExt, TryStreamExt,
    future::try_join_all, stream,
};
use libp2p::{Multiaddr, PeerId, Stream, StreamProtocol};
use serde_json::{Value, json};

use crate::node::Handle;

pub const PERF: StreamProtocol = StreamProtocol::new("/perf/1.0.0");
pub const CHUNK: u64 = 64 * 1024;
const HEADER: usize = 8;

/// What one stream carries, and how.
#[derive(Clone, Copy)]
pub struct Sizes {
    pub upload: u64,
    pub download: u64,
    pub chunk: u64,
}

pub struct Measured {
    pub seconds: f64,
    pub latencies_ms: Vec<f64>,
}

impl Measured {
    pub fn to_json(&self) -> Value {
        json!({"seconds": self.seconds, "latencies_ms": self.latencies_ms})
    }
}

pub async fn serve(mut stream: Stream) -> io::Result<()> {
    let mut header = [0; HEADER];
    stream.read_exact(&mut header).await?;
    read_away(&mut stream).await?;
    write_blank(&mut stream, &[], u64::from_be_bytes(header), CHUNK).await?;
    stream.close().await
}

/// `total` measurements, `parallel` at a time.
pub async fn measure(
    node: &Handle,
    peer: PeerId,
    sizes: Sizes,
    total: u64,
    parallel: usize,
) -> Result<Measured, String> {
    let started = Instant::now();
    let latencies_ms = stream::iter(0..total)
        .map(|_| async move {
            let opened = Instant::now();
            once(node.open(peer, PERF).await?, sizes)
                .await
                .map_err(|e| e.to_string())?;
            Ok::<_, String>(opened.elapsed().as_secs_f64() * 1000.0)
        })
        .buffer_unordered(parallel)
        .try_collect()
        .await?;
    Ok(Measured {
        seconds: started.elapsed().as_secs_f64(),
        latencies_ms,
    })
}

/// Connects `total` times from several nodes that do nothing else. A latency does not include the disconnecting.
pub async fn connect_many(
    workers: &[Handle],
    peer: PeerId,
    addr: &Multiaddr,
    total: u64,
    identify: bool,
) -> Result<Measured, String> {
    let begun = AtomicU64::new(0);
    let started = Instant::now();
    let latencies = try_join_all(workers.iter().map(|worker| async {
        let mut latencies = Vec::new();
        while begun.fetch_add(1, Relaxed) < total {
            let dialled = Instant::now();
            connect_once(worker, peer, addr.clone(), identify).await?;
            latencies.push(dialled.elapsed().as_secs_f64() * 1000.0);
            let closed = worker.with(move |node| node.disconnect(peer)).await?;
            let _ = closed.await;
        }
        Ok::<_, String>(latencies)
    }))
    .await?;
    Ok(Measured {
        seconds: started.elapsed().as_secs_f64(),
        latencies_ms: latencies.concat(),
    })
}

async fn connect_once(
    node: &Handle,
    peer: PeerId,
    addr: Multiaddr,
    identify: bool,
) -> Result<(), String> {
    node.with(move |node| node.dial(peer, addr))
        .await?
        .await
        .map_err(|_| "the dial was given up")??;
    let tiny = Sizes {
        upload: 0,
        download: 1,
        chunk: CHUNK,
    };
    once(node.open(peer, PERF).await?, tiny)
        .await
        .map_err(|e| e.to_string())?;
    if identify {
        node.with(move |node| node.wait_identified(peer))
            .await?
            .await
            .map_err(|_| "disconnected before identify finished")?;
    }
    Ok(())
}

/// One measurement on an open stream.
async fn once(mut stream: Stream, sizes: Sizes) -> io::Result<()> {
    let header = sizes.download.to_be_bytes();
    write_blank(&mut stream, &header, sizes.upload, sizes.chunk).await?;
    stream.close().await?;
    let received = read_away(&mut stream).await?;
    if received == sizes.download {
        Ok(())
    } else {
        let text = format!("{received} bytes came instead of {}", sizes.download);
        Err(io::Error::other(text))
    }
}

/// Reads to the end; returns how much there was.
async fn read_away(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<u64> {
    let mut buffer = vec![0; CHUNK as usize];
    let mut bytes = 0;
    loop {
        match reader.read(&mut buffer).await? {
            0 => return Ok(bytes),
            n => bytes += n as u64,
        }
    }
}

/// Writes `first` and then `size` bytes more, `chunk` bytes at a time.
async fn write_blank(
    writer: &mut (impl AsyncWrite + Unpin),
    first: &[u8],
    size: u64,
    chunk: u64,
) -> io::Result<()> {
    let mut left = first.len() as u64 + size;
    let mut blank = vec![0; left.min(chunk.max(HEADER as u64)) as usize];
    blank[..first.len()].copy_from_slice(first);
    while left > 0 {
        blank.truncate(left as usize);
        writer.write_all(&blank).await?;
        left -= blank.len() as u64;
    }
    Ok(())
}
