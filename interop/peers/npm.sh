# Of build scripts of peers that are npm packages, to be sourced.

# install_peer SOURCE_DIR OUT_DIR: installs the package into OUT_DIR/NAME, where NAME is that of its directory, and what
# comes on standard input as its launcher OUT_DIR/NAME-peer.
install_peer() {
    name=$(basename "$1")
    mkdir -p "$2/$name"
    out_dir=$(cd "$2" && pwd)
    install_dir=$out_dir/$name
    stamp=$install_dir/installed.sha256

    cd "$1"
    rm -rf "$install_dir/src"
    cp -R package.json package-lock.json .npmrc src "$install_dir/"

    # The sources are copied each time, as that costs nothing; the packages only when their list has changed.
    wanted=$(cat package.json package-lock.json .npmrc | sha256sum)
    if [ "$wanted" != "$(cat "$stamp" 2>/dev/null || true)" ]; then
        rm -f "$stamp"
        # Not npm ci: it refuses a lock file without the QUIC engines of other platforms, which not every registry has.
        # Standard input is the launcher's.
        (cd "$install_dir" && npm install --no-save --ignore-scripts --no-audit --no-fund --loglevel=error < /dev/null)
        echo "$wanted" > "$stamp"
    fi

    cat > "$out_dir/$name-peer"
    chmod +x "$out_dir/$name-peer"
}
