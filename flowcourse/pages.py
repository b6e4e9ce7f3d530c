"""Quizzes and hints for the page: they work without a kernel, from the data that `check` and `hint` use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from flowcourse.assets import scripts, style
from flowcourse.exercises import find


@dataclass(frozen=True)
class Page:
    """A piece of HTML that a notebook displays, with a plain text for where there is no HTML."""

    html: str
    text: str

    def _repr_html_(self) -> str:
        return self.html

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/html": self.html, "text/plain": self.text}


def quiz(number: str) -> Page:
    """A multiple-choice exercise that the reader answers in the page, with the feedback of `check`.

    Raises:
        ValueError: there is no such exercise, or it is not a multiple-choice one.
    """
    found = find(number)
    if found.question is None:
        raise ValueError(
            f"exercise {number} is not a multiple-choice one: hand your answer to check({number!r}, answer)"
        )
    letters = [chr(ord("a") + i) for i in range(len(found.options))]
    options = "".join(
        f'<label><input type="radio" name="quiz-{found.number}" value="{letter}" data-right="{option.right:d}" '
        f'data-feedback="{escape(option.feedback)}"><span>({letter}) {escape(option.text)}</span></label>'
        for letter, option in zip(letters, found.options, strict=True)
    )
    fieldset = (
        f"<fieldset><legend>{found.number} {escape(found.title)}</legend><p>{escape(found.question)}</p>{options}"
        '<button type="button" disabled>Check</button><p role="status"></p>'
        f"<noscript>To check your answer without JavaScript, run <code>check(&quot;{found.number}&quot;, "
        "&quot;a&quot;)</code> in Python.</noscript></fieldset>"
    )
    box = f'<div class="flow-quiz">{fieldset}</div>'  # no form: a frame may forbid forms, and nothing is sent
    html = style("quiz.css", ".flow-quiz") + box + scripts("quiz.js", then="flowcourse.quiz.open();")
    text = "\n".join(
        [
            f"{found.number} {found.title}",
            found.question,
            *(f"({letter}) {option.text}" for letter, option in zip(letters, found.options, strict=True)),
        ]
    )
    return Page(html, text)


def hints(number: str) -> Page:
    """The three hints of an exercise as a ladder to unfold, each inside the one before it.

    Raises:
        ValueError: there is no such exercise.
    """
    found = find(number)
    ladder = ""
    for step, text in reversed(list(enumerate(found.hints, 1))):
        ladder = f"<details><summary>Hint {step} of 3</summary><p>{escape(text)}</p>{ladder}</details>"
    html = f'{style("hints.css", ".flow-hints")}<div class="flow-hints">{ladder}</div>'
    return Page(html, f"Three hints for exercise {found.number}: hint({found.number!r}) prints the next one")


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Page:
    """Results as a table: a row's first entry names it, the others are texts or numbers; a float shows three digits.

    Raises:
        ValueError: a row has more or fewer entries than there are columns.
    """
    for row in rows:
        if len(row) != len(columns):
            raise ValueError(
                f"expected {len(columns)} entries, one for each of {list(columns)}, got {list(row)}"
            )
    cells = [[f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    body = "".join(
        f'<tr><th scope="row">{escape(first)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in rest)}</tr>'
        for first, *rest in cells
    )
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in [columns, *cells]
    ]
    html = f'<div class="scrolled flow-table"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    return Page(html, "\n".join(lines))
