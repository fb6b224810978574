//! The dialling side of the stream protocols.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Instant,
};

use futures::{AsyncReadExt, AsyncWrite, AsyncWriteExt, try_join};
use libp2p::Stream;
use sha2::{Digest, Sha256};

use crate::pattern;

/// The longest answer of a digest or sink stream that is read: twice what it should be.
const MAX_ANSWER: u64 = 128;

pub struct Echoed {
    pub sha256: String,
    pub bytes: u64,
    pub seconds: f64,
}

/// Writes the pattern and reads it back at the same time.
pub async fn echo(stream: Stream, size: u64, seed: &str) -> io::Result<Echoed> {
    let started = Instant::now();
    let (mut reader, mut writer) = stream.split();
    let write = async {
        write_pattern(&mut writer, size, seed, None).await?;
        writer.close().await
    };
    let read = async {
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 64 * 1024];
        let mut bytes = 0;
        loop {
            let n = reader.read(&mut buffer).await?;
            if n == 0 {
                return Ok((hash, bytes));
            }
            hash.update(&buffer[..n]);
            bytes += n as u64;
        }
    };
    let ((), (hash, bytes)) = try_join!(write, read)?;
    Ok(Echoed {
        sha256: pattern::hex(&hash.finalize()),
        bytes,
        seconds: started.elapsed().as_secs_f64(),
    })
}

/// Writes the pattern, half-closes and reads a text answer. `written` counts what the stream accepted.
pub async fn ask(
    mut stream: Stream,
    size: u64,
    seed: &str,
    written: Option<&AtomicU64>,
) -> io::Result<String> {
    write_pattern(&mut stream, size, seed, written).await?;
    stream.close().await?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut answer).await?;
    Ok(answer)
}

pub async fn ask_for_reset(stream: &mut Stream) -> io::Result<()> {
    stream.write_all(b"rst?").await?;
    stream.flush().await
}

/// Gets a watch stream to where the other side watches it.
pub async fn be_watched(stream: &mut Stream) -> io::Result<()> {
    stream.write_all(b"look").await?;
    stream.flush().await?;
    stream.read_exact(&mut [0; 4]).await
}

/// Round-trip times in milliseconds.
pub async fn ping(mut stream: Stream, count: u64) -> io::Result<Vec<f64>> {
    let mut rtts = Vec::new();
    for _ in 0..count {
        let sent: [u8; 32] = rand::random();
        let mut received = [0; 32];
        let started = Instant::now();
        stream.write_all(&sent).await?;
        stream.flush().await?;
        stream.read_exact(&mut received).await?;
        rtts.push(started.elapsed().as_secs_f64() * 1000.0);
        if received != sent {
            return Err(io::Error::other("the pong differs from the ping"));
        }
    }
    stream.close().await?;
    Ok(rtts)
}

async fn write_pattern(
    writer: &mut (impl AsyncWrite + Unpin),
    size: u64,
    seed: &str,
    written: Option<&AtomicU64>,
) -> io::Result<()> {
    let block = pattern::block(seed);
    let mut position = 0;
    while position < size {
        let n = writer.write(pattern::piece(&block, position, size)).await?;
        if n == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        position += n as u64;
        if let Some(written) = written {
            written.store(position, Relaxed);
        }
    }
    Ok(())
}
