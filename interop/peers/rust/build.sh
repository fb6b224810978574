#!/usr/bin/env bash
# Builds the Rust interop peer: bash build.sh OUT_DIR leaves the program at OUT_DIR/rust-peer.
# The target directory lies in OUT_DIR as well, so a second run with nothing changed takes about a second.
set -euo pipefail

if [ "$#" -ne 1 ]; then
    echo "usage: bash build.sh OUT_DIR" >&2
    exit 2
fi

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
mkdir -p "$1"
out="$(cd "$1" && pwd)"

cargo build --release --locked --manifest-path "$here/Cargo.toml" --target-dir "$out/rust-target"

# Moved into place under its final name, so that a peer still running from the old file does not stop the build.
cp "$out/rust-target/release/rust-peer" "$out/rust-peer.new"
mv -f "$out/rust-peer.new" "$out/rust-peer"
