#!/bin/sh
# Installs the py-libp2p peer into OUT_DIR/py and OUT_DIR/py-venv and writes its launcher OUT_DIR/py-peer.
# Usage: build.sh OUT_DIR
# The requirements are pinned for CPython 3.11 (fastecdsa has no wheel: it needs a C compiler and the headers of GMP);
# PYTHON names the interpreter to use (default: python3).
set -eu

python=${PYTHON:-python3}
source_dir=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1/py"
out_dir=$(cd "$1" && pwd)
venv=$out_dir/py-venv
stamp=$venv/installed.sha256

cp "$source_dir"/*.py "$out_dir/py/"

# The source is copied each time, as that costs nothing; the packages only when their list or the Python has changed.
wanted=$( ("$python" --version; cat "$source_dir/requirements.txt") | sha256sum)
if [ "$wanted" != "$(cat "$stamp" 2>/dev/null || true)" ]; then
    rm -rf "$venv"
    "$python" -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps -r "$source_dir/requirements.txt"
    echo "$wanted" > "$stamp"
fi

cat > "$out_dir/py-peer" <<'LAUNCHER'
#!/bin/sh
# -I keeps this repository's own libp2p away from the package of the same name.
out_dir=$(dirname "$(readlink -f "$0")")
exec "$out_dir/py-venv/bin/python" -I "$out_dir/py/peer.py" "$@"
LAUNCHER
chmod +x "$out_dir/py-peer"
