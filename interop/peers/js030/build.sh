#!/bin/sh
# Installs the js-libp2p 0.30 peer into OUT_DIR/js030 and writes its launcher OUT_DIR/js030-peer.
# Usage: build.sh OUT_DIR
set -eu

source_dir=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1/js030"
out_dir=$(cd "$1" && pwd)
install_dir=$out_dir/js030
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

cat > "$out_dir/js030-peer" <<'LAUNCHER'
#!/bin/sh
exec node "$(dirname "$(readlink -f "$0")")/js030/src/main.js" "$@"
LAUNCHER
chmod +x "$out_dir/js030-peer"
