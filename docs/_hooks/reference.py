"""Pages that the code writes: one reference page for each public module, and the table of limits."""

from __future__ import annotations

import ast
from dataclasses import fields
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
LEFT_OUT = ("libp2p.pb", "libp2p.cli")
"""Generated modules, and a program that describes itself with ``--help``."""
LIMITS = "<!-- limits -->"


def public_modules() -> dict[str, ast.Module]:
    """Module name to syntax tree, for modules without an underscore in their path."""
    found = {}
    for path in sorted((ROOT / "libp2p").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if not any(part.startswith("_") for part in name.split(".")) and not name.startswith(LEFT_OUT):
            found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def has_content(tree: ast.Module) -> bool:
    """Whether a module shows more than its docstring."""
    return any(not isinstance(node, ast.Expr | ast.Import) and not _is_future(node) for node in tree.body)


def _is_future(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the generated pages into the navigation."""
    nav: list[dict[str, Any]] = config.nav or []
    reference = next(entry["Reference"] for entry in nav if "Reference" in entry)
    reference += [{name: f"reference/{name}.md"} for name, tree in public_modules().items() if has_content(tree)]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Write a page for each public module."""
    for name, tree in public_modules().items():
        if has_content(tree):
            content = f"# `{name}`\n\n::: {name}\n"
            files.append(File.generated(config, f"reference/{name}.md", content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill the table of limits from the configuration classes themselves."""
    return markdown.replace(LIMITS, _limits()) if LIMITS in markdown else markdown


def _limits() -> str:
    from libp2p.swarm import LimitsConfig, limit_table

    rows = ["| limit | default | when full | where the number comes from |", "| --- | ---: | --- | --- |"]
    rows += [
        f"| `{row.name}` | {row.value:,g} | {row.on_full.value} | {row.source} |" for row in limit_table(LimitsConfig())
    ]
    parts = ["### Connections, dials and streams: `LimitsConfig`", *rows]
    for title, config in _other_configs():
        parts += ["", f"### {title}: `{type(config).__name__}`", "| setting | default |", "| --- | ---: |"]
        parts += [f"| `{item.name}` | {_shown(getattr(config, item.name))} |" for item in fields(config)]
    return "\n".join(_spaced(parts))


def _other_configs() -> list[tuple[str, Any]]:
    from libp2p.muxers.yamux import YamuxConfig
    from libp2p.swarm import TrimConfig

    return [("One yamux connection", YamuxConfig()), ("Trimming", TrimConfig())]


def _spaced(lines: list[str]) -> list[str]:
    """A blank line behind each heading, which tables need."""
    return [part for line in lines for part in ([line, ""] if line.startswith("###") else [line])]


def _shown(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"`{value}`"
    return f"{value:,g}" if isinstance(value, float) else f"{value:,}"
