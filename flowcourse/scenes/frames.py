"""Pictures made in advance, one for each value of a slider."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from typing import Any, Protocol

from flowcourse.explorables import PLAY, Explorable, row, stops_control
from flowcourse.figures.svg import SHEET, Shown


class Choice(Protocol):
    """What a slider over listed values is: `flowcourse.slider` makes one."""

    @property
    def label(self) -> str:
        """What it chooses, in words."""

    @property
    def symbol(self) -> str:
        """Its letter in the text."""

    @property
    def values(self) -> Sequence[Any]:
        """Numbers or texts, in order."""

    @property
    def default(self) -> Any:
        """The value to start with."""


def frames_explorable(
    choice: Choice, frames: Sequence[Shown], *, title: str | None = None, caption: str | None = None
) -> Explorable:
    """Pictures made in advance, one for each value of a slider.

    Args:
        choice: the slider: its label, its symbol, its values (numbers or texts) and the one to start with.
        frames: for each value what `show` returned, with its description.
        title, caption: texts above and below; without a caption, that of the first frame.

    Raises:
        ValueError: not one frame for each value.
        TypeError: a frame that does not come from `show`.
    """
    if len(frames) != len(choice.values):
        raise ValueError(f"need one frame for each of the {len(choice.values)} values, got {len(frames)}")
    for frame in frames:
        if not isinstance(frame, Shown):
            raise TypeError(f"frames must be what show(figure, alt=...) returns, got {type(frame).__name__}")
    first = list(choice.values).index(choice.default)
    pictures = [
        f'<div class="flow-panels" role="img" aria-label="{escape(frame.alt)}">{"".join(frame.svgs)}</div>'
        for frame in frames
    ]
    shared = re.findall(r"<path\b[^>]*? d=\"([^\"]*)\"", pictures[first])  # one for each path, in order
    waiting = "".join(f"<template>{_without(shared, picture)}</template>" for picture in pictures)
    return Explorable(
        "frames",
        {"label": choice.label, "symbol": choice.symbol, "values": list(choice.values), "first": first},
        [row(PLAY, stops_control("frame", choice.label, choice.symbol, choice.values, choice.default))],
        f"{choice.label}, {choice.symbol} = {choice.default}: {frames[first].alt}",
        stage=f'{SHEET}<div class="flow-frames">{pictures[first]}{waiting}</div>',
        title=title,
        caption=caption or frames[0].caption,
    )


def _without(shared: list[str], picture: str) -> str:
    """The picture, with paths that are among the shared ones named by their number."""

    def shorter(path: re.Match[str]) -> str:
        return f' data-same="{shared.index(path[1])}"' if len(path[1]) > 40 and path[1] in shared else path[0]

    return re.sub(r' d="([^"]*)"', shorter, picture)
