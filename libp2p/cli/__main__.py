"""The entry point of the command ``libp2p``, and of ``python -m libp2p.cli``."""

from __future__ import annotations

import importlib
import sys

_EXTRA = frozenset(("click", "rich", "typer"))


def main() -> None:
    """Run the command in ``sys.argv``; ends by ``SystemExit``."""
    try:
        # By name, because importing this module must not fail where the extra is missing.
        app = importlib.import_module("._app", __package__)
    except ModuleNotFoundError as exc:
        if (exc.name or "").partition(".")[0] not in _EXTRA:
            raise
        print("The command libp2p needs an extra: pip install 'libp2p-trio[cli]'", file=sys.stderr)
        sys.exit(2)
    app.main()


if __name__ == "__main__":
    main()
