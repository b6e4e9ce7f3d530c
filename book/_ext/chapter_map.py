"""A picture of the chapters and of what each builds on: a layered graph, laid out for the width of a phone."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise

WIDTH, BOX, HEIGHT, GAP = 360, 108, 66, 32  # of the picture, of a box, and between two rows
LINE = 15  # letters in a line of a box

Place = tuple[float, float]


def builds_on(needs: Mapping[int, Sequence[int]], goal: int) -> set[int]:
    """The chapters that must be read for `goal`, itself among them."""
    found, waiting = {goal}, [goal]
    while waiting:
        for before in needs[waiting.pop()]:
            if before not in found:
                found.add(before)
                waiting.append(before)
    return found


def layers(needs: Mapping[int, Sequence[int]]) -> dict[int, int]:
    """The row of each chapter: one below the lowest of those that it builds on.

    Raises:
        ValueError: a chapter builds on one that does not come before it.
    """
    rows: dict[int, int] = {}
    for n in sorted(needs):
        if late := [before for before in needs[n] if before not in rows]:
            raise ValueError(f"chapter {n} can only build on earlier chapters, not on {late}")
        rows[n] = max((rows[before] + 1 for before in needs[n]), default=0)
    return rows


def lay_out(needs: Mapping[int, Sequence[int]]) -> tuple[dict[int, Place], list[list[Place]]]:
    """The middle of each chapter's box, and the ways of the arrows as points, in units of columns and rows.

    Columns are fractions of the width. Where an arrow passes a row it gets a place of its own there, between the
    boxes (the layering of Sugiyama, Tagawa and Toda, 1981), and in each row those come first whose arrows come from
    the left.
    """
    rows = layers(needs)
    # A thing in a row is a chapter `n`, or a place `(before, n, row)` of an arrow that passes.
    chain = {
        (b, n): [b, *((b, n, row) for row in range(rows[b] + 1, rows[n])), n] for n in needs for b in needs[n]
    }
    above: dict[object, list[object]] = {}
    for way in chain.values():
        for upper, lower in pairwise(way):
            above.setdefault(lower, []).append(upper)
    column: dict[object, float] = {}
    for row in range(max(rows.values(), default=-1) + 1):
        here: list[object] = [n for n in sorted(needs) if rows[n] == row]
        here += [thing for way in chain.values() for thing in way[1:-1] if thing[2] == row]  # type: ignore[index]
        here.sort(
            key=lambda thing: sum(column[up] for up in above.get(thing, [])) / len(above.get(thing, [0]))
        )
        column |= {thing: (i + 0.5) / len(here) for i, thing in enumerate(here)}
    place = {thing: (x, rows[thing] if isinstance(thing, int) else thing[2]) for thing, x in column.items()}  # type: ignore[index]
    return {n: place[n] for n in needs}, [[place[thing] for thing in way] for way in chain.values()]


def svg(
    needs: Mapping[int, Sequence[int]],
    titles: Mapping[int, str],
    links: Mapping[int, str],
    notes: Mapping[int, str],
) -> str:
    """The map as inline SVG: each box is a link with the chapter's number, a note and its title.

    Chapters that the last one does not build on have a dashed frame.
    """
    boxes, ways = lay_out(needs)
    needed = builds_on(needs, max(needs))

    def at(place: Place) -> Place:
        return place[0] * WIDTH, place[1] * (HEIGHT + GAP) + HEIGHT / 2 + 1

    parts = []
    for way in ways:
        points = [at(place) for place in way]
        x, y = points[0]
        path, y = f"M{x:.0f} {y + HEIGHT / 2:.0f}", y + HEIGHT / 2
        for i, (to_x, to_y) in enumerate(points[1:], 2):
            end = to_y - HEIGHT / 2 - (4 if i == len(points) else 0)
            middle = (y + end) / 2
            path += f"C{x:.0f} {middle:.0f} {to_x:.0f} {middle:.0f} {to_x:.0f} {end:.0f}"
            if i < len(points):  # straight through this row
                path += f"V{to_y + HEIGHT / 2:.0f}"
            x, y = to_x, to_y + HEIGHT / 2
        parts.append(f'<path d="{path}" marker-end="url(#map-arrow)"/>')
    for n, place in boxes.items():
        x, y = at(place)
        left, top = x - BOX / 2, y - HEIGHT / 2
        lines = textwrap.wrap(titles[n], LINE)
        text = " ".join(
            f'<tspan x="{left + 8:.0f}" y="{top + 30 + 13 * i:.0f}">{escape(line)}</tspan>'
            for i, line in enumerate(lines)
        )
        parts.append(
            f'<a href="{escape(links[n])}"{"" if n in needed else " class=aside"}>'
            f'<rect x="{left:.0f}" y="{top:.0f}" width="{BOX}" height="{HEIGHT}" rx="6"/>'
            f'<text class="number" x="{left + 8:.0f}" y="{top + 16:.0f}">{n} </text>'
            f'<text class="note" x="{left + BOX - 8:.0f}" y="{top + 16:.0f}">{escape(notes[n])} </text>'
            f"<text>{text}</text></a>"
        )
    words = "; ".join(f"{n} builds on {' and '.join(map(str, needs[n]))}" for n in sorted(needs) if needs[n])
    height = (max(layers(needs).values()) + 1) * (HEIGHT + GAP) - GAP + 2
    return (
        f'<svg class="chapter-map" viewBox="0 0 {WIDTH} {height}" role="group" aria-label="Map of the chapters: '
        f'{escape(words)}."><defs><marker id="map-arrow" viewBox="0 0 8 8" refX="4" refY="4" markerWidth="7" '
        f'markerHeight="7" orient="auto"><path d="M0 0l8 4-8 4z"/></marker></defs>{"".join(parts)}</svg>'
    )
