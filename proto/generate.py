"""Write ``libp2p/pb`` from ``proto/*.proto``, with the pinned compiler in an environment of its own (``.venv-proto``).

``python proto/generate.py`` writes the modules and ``proto/generated.sha256``, by which a test sees without a compiler
that schemas and modules belong together. ``--check`` writes nothing and fails when the modules are not what the
compiler makes of the schemas.
"""

from __future__ import annotations

import argparse
import filecmp
import hashlib
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCHEMAS = ROOT / "proto"
MODULES = ROOT / "libp2p" / "pb"
SUMS = SCHEMAS / "generated.sha256"
REQUIREMENTS = SCHEMAS / "requirements.txt"
TOOLS = ROOT / ".venv-proto"


def compiler() -> Path:
    """The pinned protoc; installs it when it is not there yet."""
    stamp = TOOLS / "requirements.txt"
    scripts = TOOLS / ("Scripts" if sys.platform == "win32" else "bin")
    if not stamp.exists() or stamp.read_bytes() != REQUIREMENTS.read_bytes():
        venv.create(TOOLS, clear=True, with_pip=True)
        pip = [str(scripts / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--only-binary=:all:", "-r", str(REQUIREMENTS)], check=True)
        shutil.copy(REQUIREMENTS, stamp)
    return scripts / "protoc"


def schemas() -> list[Path]:
    """All schemas, sorted."""
    return sorted(SCHEMAS.glob("*.proto"))


def generate(into: Path) -> list[Path]:
    """Compile every schema into the directory ``into``; returns the modules and stubs."""
    with tempfile.TemporaryDirectory() as temporary:
        # The directory is mapped to the modules' package, so that one module imports another from there.
        arguments = [f"-Ilibp2p/pb={SCHEMAS}", f"--python_out={temporary}", f"--pyi_out={temporary}"]
        subprocess.run([str(compiler()), *arguments, *map(str, schemas())], check=True)
        written = sorted((Path(temporary) / "libp2p" / "pb").iterdir())
        into.mkdir(parents=True, exist_ok=True)
        return [Path(shutil.copy(path, into / path.name)) for path in written]


def modules() -> list[Path]:
    """The committed modules and stubs, sorted."""
    return sorted([*MODULES.glob("*_pb2.py"), *MODULES.glob("*_pb2.pyi")])


def sums() -> str:
    """The state of schemas and modules, in the format of ``sha256sum``."""
    files = [REQUIREMENTS, *schemas(), *modules()]
    return "".join(
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(ROOT).as_posix()}\n" for path in files
    )


def check() -> list[str]:
    """What differs between the committed modules and a fresh generation."""
    with tempfile.TemporaryDirectory() as temporary:
        fresh = {path.name: path for path in generate(Path(temporary))}
        committed = {path.name: path for path in modules()}
        wrong = [f"{name}: no schema makes it" for name in committed.keys() - fresh.keys()]
        wrong += [f"{name}: missing" for name in fresh.keys() - committed.keys()]
        for name in fresh.keys() & committed.keys():
            if not filecmp.cmp(fresh[name], committed[name], shallow=False):
                wrong.append(f"{name}: not what the compiler makes of its schema")
    if not SUMS.exists() or SUMS.read_text() != sums():
        wrong.append(f"{SUMS.name}: out of date")
    return sorted(wrong)


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Write libp2p/pb from proto/*.proto.")
    parser.add_argument("--check", action="store_true", help="only compare; fail when something is out of date")
    if parser.parse_args().check:
        wrong = check()
        print("\n".join(wrong) or f"libp2p/pb is current: {len(schemas())} schemas", flush=True)
        return 1 if wrong else 0
    for path in modules():
        path.unlink()
    print(f"wrote {len(generate(MODULES))} files to {MODULES.relative_to(ROOT)}", flush=True)
    SUMS.write_text(sums())
    return 0


if __name__ == "__main__":
    sys.exit(main())
