//! An interop peer around rust-libp2p. `interop/CONTRACT.md` says what it does.

mod args;
mod autonat;
mod behaviour;
mod clients;
mod commands;
mod gossip;
mod kad;
mod keys;
mod node;
mod output;
mod partial;
mod pattern;
mod perf;
mod raw_streams;
mod rendezvous;
mod served;
mod transport;

use std::{io::BufRead, process::ExitCode, sync::Arc};

use libp2p::PeerId;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::{
    args::Args,
    behaviour::Behaviour,
    commands::{Arguments, Commands},
    node::{Handle, Node},
    raw_streams::InboundStream,
    served::State,
};

#[tokio::main]
async fn main() -> ExitCode {
    let args = match Args::parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    if args.features {
        output::line(&args::features());
        return ExitCode::SUCCESS;
    }
    match start(args).await {
        Ok(commands) => serve_commands(commands).await,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Starts the node and prints the first line.
async fn start(args: Args) -> Result<Commands, String> {
    output::be_quiet(args.quiet);
    let launched = launch(&args).await?;
    let state = State::new();
    tokio::spawn(served::serve_all(
        launched.inbound,
        launched.node.clone(),
        state.clone(),
    ));
    output::line(&json!({
        "event": "ready",
        "peer_id": launched.peer_id.to_string(),
        "addrs": launched.addrs,
        "version": args::version(),
    }));
    Ok(Commands {
        node: launched.node,
        state,
        args: Arc::new(args),
    })
}

struct Launched {
    node: Handle,
    peer_id: PeerId,
    addrs: Vec<String>,
    inbound: mpsc::UnboundedReceiver<InboundStream>,
}

/// Runs a node as the command line asks; it ends when nobody holds its handle any more.
async fn launch(args: &Args) -> Result<Launched, String> {
    let keypair = keys::generate(&args.key_type)?;
    let peer_id = keypair.public().to_peer_id();
    let (transport, relay_client) = transport::with_circuits(&keypair, args)?;
    let (behaviour, inbound) = Behaviour::new(&keypair, args, relay_client, &served::ALL)?;
    let (mut node, handle) = Node::new(transport, behaviour, keypair.public(), &args.muxer);
    let addrs = node.listen(args.listen.clone()).await?;
    if args.relay == "server" || args.dht != "none" {
        node.trust_listen_addrs();
    }
    tokio::spawn(node.run());
    Ok(Launched {
        node: handle,
        peer_id,
        addrs,
        inbound,
    })
}

/// Runs commands side by side until `shutdown` or the end of standard input.
async fn serve_commands(commands: Commands) -> ExitCode {
    let mut lines = stdin_lines();
    while let Some(line) = lines.recv().await {
        let args = match serde_json::from_str::<Value>(&line) {
            Ok(args) => Arguments(args),
            Err(error) => {
                eprintln!("not a command: {error}");
                continue;
            }
        };
        let name = args.text("cmd").unwrap_or_default().to_owned();
        let commands = commands.clone();
        if name == "shutdown" {
            output::answer(&args.0["id"], Ok(Default::default()));
            commands.close_node().await;
            break;
        }
        tokio::spawn(async move {
            let result = commands.run(&name, &args).await;
            output::answer(&args.0["id"], result);
        });
    }
    ExitCode::SUCCESS
}

/// A thread, because reading standard input blocks and must not hold up the end of the process.
fn stdin_lines() -> mpsc::UnboundedReceiver<String> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            if !line.trim().is_empty() && sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}
