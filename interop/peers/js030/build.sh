#!/bin/sh
# Installs the js-libp2p 0.30 peer into OUT_DIR/js030 and writes its launcher OUT_DIR/js030-peer.
# Usage: build.sh OUT_DIR
set -eu

source_dir=$(cd "$(dirname "$0")" && pwd)
. "$source_dir/../npm.sh"

install_peer "$source_dir" "$1" <<'LAUNCHER'
#!/bin/sh
exec node "$(dirname "$(readlink -f "$0")")/js030/src/main.js" "$@"
LAUNCHER
