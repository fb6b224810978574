"""XML of strangers. Pure.

No document type, so that there are no entities to expand and nothing to fetch; elements, depth and bytes are bounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.parsers import expat
from xml.sax.saxutils import escape as escape

from ...errors import DecodeError

MAX_ELEMENTS = 4096
"""Of a document; descriptions of routers have some 200."""
MAX_DEPTH = 32
"""Of elements in elements; descriptions of routers have some 12."""


@dataclass(slots=True)
class Element:
    """An element, by its name without a prefix."""

    name: str
    text: str = ""
    children: list[Element] = field(default_factory=list["Element"])

    def every(self, name: str) -> Iterator[Element]:
        """All elements of that name within this one, however deep."""
        for child in self.children:
            if child.name == name:
                yield child
            yield from child.every(name)

    def said(self, name: str) -> str | None:
        """The text of the first child of that name."""
        return next((child.text for child in self.children if child.name == name), None)


class _Builder:
    def __init__(self) -> None:
        self.root = Element("")
        self._open = [self.root]
        self._texts: list[list[str]] = [[]]
        self._count = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._count += 1
        if self._count > MAX_ELEMENTS or len(self._open) > MAX_DEPTH:
            raise DecodeError("XML with too many elements")
        element = Element(name.rpartition(":")[2])
        self._open[-1].children.append(element)
        self._open.append(element)
        self._texts.append([])

    def end(self, name: str) -> None:
        self._open.pop().text = "".join(self._texts.pop()).strip()

    def text(self, data: str) -> None:
        self._texts[-1].append(data)


def parse_xml(data: bytes) -> Element:
    """Read a document; its root is the only child of what is returned.

    Raises:
        DecodeError: it is no XML, has a document type, or is too large.
    """
    builder = _Builder()
    # UPnP is UTF-8. Nothing that a document says of itself may choose the code that reads it.
    parser = expat.ParserCreate("utf-8")
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.text
    parser.StartDoctypeDeclHandler = _refuse_doctype
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, ValueError) as exc:
        raise DecodeError(f"XML: {exc}") from exc
    return builder.root


def _refuse_doctype(name: str, system: str | None, public: str | None, subset: bool) -> None:
    raise DecodeError("XML with a document type")
