#!/usr/bin/env bash
# Builds the Go interop peer: build.sh OUT_DIR makes OUT_DIR/go-peer.
set -euo pipefail

if [ $# -ne 1 ]; then
    echo "usage: build.sh OUT_DIR" >&2
    exit 2
fi

mkdir -p "$1"
out=$(cd "$1" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")"

# The lock is the committed go.mod and go.sum: a build may not change them.
# No version control stamp, so that a commit elsewhere does not relink.
GOFLAGS=-mod=readonly go build -trimpath -buildvcs=false -o "$out/go-peer" .
