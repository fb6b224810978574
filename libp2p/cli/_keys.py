"""``libp2p key`` and ``libp2p id``: identities."""

from __future__ import annotations

import base64
import enum
from pathlib import Path
from typing import Annotated

import typer

from ..addressing import parse, split_peer
from ..crypto import key_file
from ..crypto.keys import KeyType, PublicKey, generate
from ..errors import DecodeError
from ..peer_id import PeerId
from ._logs import configure
from ._options import Json, KeyFile, Verbose, check_target
from ._output import NAME, Output

app = typer.Typer(help="Make and look at identity keys.", no_args_is_help=True)


class KeyName(enum.StrEnum):
    """What ``--type`` takes."""

    ED25519 = "ed25519"
    SECP256K1 = "secp256k1"
    ECDSA = "ecdsa"
    RSA = "rsa"


NewFile = Annotated[Path, typer.Argument(metavar="FILE", help="Where to write the key.", show_default=False)]
OldFile = Annotated[Path, typer.Argument(metavar="FILE", help="Where the key is.", show_default=False)]
TypeOption = Annotated[KeyName, typer.Option("--type", help="What kind of key.")]
Bits = Annotated[int, typer.Option(min=2048, max=8192, help="Size of an RSA key.")]
Force = Annotated[bool, typer.Option("--force", help="Replace the key that is there: its peer id is gone for good.")]
Who = Annotated[
    str | None,
    typer.Argument(metavar="PEER", callback=check_target, help="A peer id, or an address with one."),
]


@app.command()
def new(
    file: NewFile,
    key_type: TypeOption = KeyName.ED25519,
    bits: Bits = 2048,
    force: Force = False,
    as_json: Json = False,
    verbose: Verbose = 0,
) -> None:
    """Make a key, write it to FILE for its owner's eyes only, and print its peer id."""
    out = _output(as_json, verbose)
    if file.exists() and not force:
        raise typer.BadParameter(f"{file} exists; --force replaces it", param_hint="FILE")
    with out.waiting(f"making {key_type} key"):
        key = generate(KeyType[key_type.name], bits=bits)
    try:
        key_file.save(file, key)
    except key_file.KeyFileError as exc:
        raise _unusable(exc, out) from exc
    peer = str(PeerId.from_key(key.public_key))
    out.result({"peer": peer, "type": key_type.value, "file": str(file)}, (peer, NAME))


@app.command()
def show(file: OldFile, as_json: Json = False, verbose: Verbose = 0) -> None:
    """Print the public half of the key in FILE, and the peer id."""
    out = _output(as_json, verbose)
    public = _load(file, out)
    out.fields(_described(PeerId.from_key(public), public))


def identity(peer: Who = None, key: KeyFile = None, as_json: Json = False, verbose: Verbose = 0) -> None:
    """Print a peer id in its forms: of PEER, or of the key in --key FILE."""
    out = _output(as_json, verbose)
    if (peer is None) == (key is None):
        raise typer.BadParameter("give either a peer id or --key FILE", param_hint="PEER")
    if key is not None:
        public = _load(key, out)
        out.fields(_described(PeerId.from_key(public), public))
    elif peer is not None:
        found = _peer_in(peer)
        out.fields(_described(found, _embedded_key(found)))


def _output(as_json: bool, verbose: int) -> Output:
    configure(verbose)
    return Output(as_json=as_json, verbose=verbose)


def _load(file: Path, out: Output) -> PublicKey:
    try:
        return key_file.load(file).public_key
    except key_file.KeyFileError as exc:
        raise _unusable(exc, out) from exc


def _unusable(exc: key_file.KeyFileError, out: Output) -> typer.Exit:
    out.failure(exc)
    return typer.Exit(2)


def _peer_in(text: str) -> PeerId:
    if not text.startswith("/"):
        return PeerId.parse(text)
    _, peer = split_peer(parse(text))
    if peer is None:
        raise typer.BadParameter(f"{text} has no /p2p/… at its end", param_hint="PEER")
    return peer


def _embedded_key(peer: PeerId) -> PublicKey | None:
    try:
        return peer.public_key()
    except DecodeError:
        return None


def _described(peer: PeerId, key: PublicKey | None) -> dict[str, str | None]:
    """The forms of ``peer``; the key is None when the id holds only its hash."""
    return {
        "peer": str(peer),
        "cid": peer.to_cid(),
        "type": None if key is None else key.key_type.name.lower(),
        "public_key": None if key is None else base64.b64encode(key.marshal()).decode(),
    }
