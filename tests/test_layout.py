"""The three rooms and the arrows between them, as README and CONTRIBUTING draw them."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {
    "vfss_distill": ROOT / "vfss_distill",
    "vfss_distill.commands": ROOT / "commands",
    "vfss_distill.models": ROOT / "models",
}
GROUND = (
    "tasks",
    "yaml_file",
    "errors",
    "provenance",
    "workspace",
    "config",
    "letterbox",
    "magnification",
    "pages",
    "cores",
    "memory",
    "claims",
    "colours",
    "counting",
    "engines",
    "fields",
    "__init__",
)
# Each room may import from itself, the ground floor, and the rooms named here.
MAY_IMPORT = {
    "ground": set(),
    "models": set(),
    "simulate": set(),
    "intake": set(),
    "distill": {"intake", "models"},
    "inference": {"intake", "models"},
    "evaluate": {"intake", "inference"},
    "whole": {"simulate", "intake", "distill", "inference", "evaluate", "models"},
    "commands": {"simulate", "intake", "distill", "inference", "evaluate", "models", "whole"},
}


def modules() -> dict[str, Path]:
    """Dotted name → file, as the installed package has them."""
    found = {}
    for package, folder in FOLDERS.items():
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            name = ".".join((package, *parts)).removesuffix(".__init__")
            found[name] = path
    return found


def room(name: str) -> str:
    """The room a module belongs to. `whole`: modules that see all rooms (demo, doctor)."""
    parts = name.split(".")[1:]
    if not parts or parts[0] in GROUND:
        return "ground"
    if parts[0] in MAY_IMPORT:
        return parts[0]
    return "commands" if parts[0] == "__main__" else "whole"


def imports(name: str, path: Path) -> Iterator[str]:
    """Dotted names of our own modules that the file imports, anywhere in it."""
    is_package = path.name == "__init__.py"
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = name.split(".")[: None if is_package and node.level == 1 else -node.level]
                if is_package and node.level > 1:
                    up = name.split(".")[: -(node.level - 1)]
                base = ".".join((*up, *([base] if base else [])))
            yield from (f"{base}.{alias.name}" for alias in node.names)


def test_arrows_point_one_way() -> None:
    known = modules()
    wrong = []
    for name, path in known.items():
        here = room(name)
        for target in imports(name, path):
            if not target.startswith("vfss_distill"):
                continue
            module = target if target in known else target.rpartition(".")[0]
            there = room(module)
            if there not in ({"ground", here} | MAY_IMPORT[here]):
                wrong.append(f"{name} ({here}) imports {module} ({there})")
    assert not wrong


def test_the_readme_draws_these_rooms() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for word in ("commands", "models", *(MAY_IMPORT.keys() - {"ground", "whole", "commands"})):
        assert word in readme


def test_every_package_is_installed() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(
        name for name, path in modules().items() if path.name == "__init__.py"
    )


def test_models_and_commands_do_not_take_top_level_names() -> None:
    with pytest.raises(ImportError):
        __import__("commands.main")
    import vfss_distill.models

    assert vfss_distill.models.__name__ == "vfss_distill.models"


def test_no_room_is_called_utils() -> None:
    assert not [name for name in modules() if "utils" in name or "helpers" in name]
