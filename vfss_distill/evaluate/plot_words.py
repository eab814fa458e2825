"""Words in plots: how wide they are, and broken into lines or shortened to fit.

Call inside the `rc_context` of the plot, whose font is the one measured.
"""

from __future__ import annotations

from collections.abc import Iterable

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path


def inches(text: str, size: float, *, bold: bool = False) -> float:
    """Width of the longest line of `text` at `size` points."""
    font = FontProperties(size=size, weight="bold" if bold else "normal")
    widths = [
        text_to_path.get_text_width_height_descent(x, font, False)[0] for x in text.split("\n")
    ]
    return max(widths) / 72


def widest(texts: Iterable[str], size: float, *, bold: bool = False) -> float:
    return max((inches(text, size, bold=bold) for text in texts), default=0.0)


def fitted(text: str, room: float, size: float, *, lines: int = 1) -> str:
    """`text` in at most `lines` lines, each at most `room` inches wide; "…" where it was cut."""
    words = text.split()
    made: list[str] = []
    while words and len(made) < lines:
        line = words.pop(0)
        while words and inches(f"{line} {words[0]}", size) <= room:
            line += f" {words.pop(0)}"
        is_last = len(made) + 1 == lines
        made.append(_cut(line, room, size, more=bool(words) and is_last))
    return "\n".join(made)


def _cut(line: str, room: float, size: float, *, more: bool) -> str:
    """`more`: there are words behind it that have no place."""
    if inches(line, size) <= room and not more:
        return line
    while len(line) > 1 and inches(f"{line}…", size) > room:
        line = line[:-1]
    return f"{line.rstrip()}…"
