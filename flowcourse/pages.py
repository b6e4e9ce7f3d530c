"""Quizzes and hints for the page: they work without a kernel, from the data that `check` and `hint` use."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from html import escape
from typing import Any

from flowcourse.exercises import find
from flowcourse.palette import css

QUIZ_STYLE = css(".flow-quiz") + (
    ".flow-quiz{color:var(--flow-ink);background:var(--flow-page);margin:1rem 0;max-width:46rem;font-size:1rem;"
    "line-height:1.5}"
    ".flow-quiz fieldset{border:1px solid var(--flow-muted);border-radius:.5rem;margin:0;padding:.25rem 1rem 1rem;"
    "min-width:0}"
    ".flow-quiz legend{font-weight:600;padding:0 .4rem;margin:0 0 0 -.4rem;width:auto;float:none;font-size:1rem}"
    ".flow-quiz p{margin:.25rem 0 .75rem}"
    ".flow-quiz label{display:flex;gap:.6rem;align-items:baseline;margin:.15rem -.5rem;padding:.3rem .5rem;"
    "border-radius:.35rem;cursor:pointer}"
    ".flow-quiz label:hover{background:color-mix(in srgb,var(--flow-muted) 14%,transparent)}"
    ".flow-quiz input{accent-color:var(--flow-source);flex:none;margin:0;width:1em;height:1em;position:relative;"
    "top:.1em}"
    ".flow-quiz button{font:inherit;color:var(--flow-page);background:var(--flow-source);border:0;"
    "border-radius:.35rem;padding:.35rem 1.1rem;margin-top:.75rem;min-height:2.5rem;cursor:pointer}"
    ".flow-quiz button:disabled{opacity:.5;cursor:default}"
    ".flow-quiz :focus-visible{outline:3px solid var(--flow-path);outline-offset:2px}"
    ".flow-quiz [role=status]{border-left:.25rem solid var(--flow-error);padding:.1rem 0 .1rem .75rem;"
    "margin:.9rem 0 0}"
    ".flow-quiz [data-verdict=right]{border-color:var(--flow-model)}"
    ".flow-quiz [role=status]:empty{border:0;padding:0;margin:0}"
    ".flow-quiz noscript{font-size:.9em}"
)

# The form is found by content and not by position, since pages move outputs about; a second run finds it ready.
QUIZ_SCRIPT = """for(const quiz of document.querySelectorAll("form[data-quiz='%s']:not([data-ready])")){
quiz.dataset.ready="";const button=quiz.querySelector("button"),status=quiz.querySelector("[role=status]");
quiz.addEventListener("change",()=>{button.disabled=false;status.textContent=""});
quiz.addEventListener("submit",event=>{event.preventDefault();
const picked=quiz.querySelector("input:checked");if(!picked)return;
const right=picked.dataset.right==="1";status.dataset.verdict=right?"right":"wrong";
status.textContent=(right?"\\u2713 Right. ":"\\u2717 Not quite. ")+picked.dataset.feedback})}"""


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
        f'<label><input type="radio" name="answer" value="{letter}" data-right="{option.right:d}" '
        f'data-feedback="{escape(option.feedback)}"><span>({letter}) {escape(option.text)}</span></label>'
        for letter, option in zip(letters, found.options, strict=True)
    )
    fieldset = (
        f"<fieldset><legend>{found.number} {escape(found.title)}</legend><p>{escape(found.question)}</p>{options}"
        '<button type="submit" disabled>Check</button><p role="status"></p>'
        f"<noscript>To check your answer without JavaScript, run <code>check(&quot;{found.number}&quot;, "
        "&quot;a&quot;)</code> in Python.</noscript></fieldset>"
    )
    content = hashlib.sha256(fieldset.encode()).hexdigest()[:8]
    script = QUIZ_SCRIPT % content
    html = f'<form class="flow-quiz" data-quiz="{content}"><style>{QUIZ_STYLE}</style>{fieldset}</form>'
    text = "\n".join(
        [
            f"{found.number} {found.title}",
            found.question,
            *(f"({letter}) {option.text}" for letter, option in zip(letters, found.options, strict=True)),
        ]
    )
    return Page(f"{html}<script>{script}</script>", text)


HINTS_STYLE = css(".flow-hints") + (
    ".flow-hints{color:var(--flow-ink);background:var(--flow-page);margin:1rem 0;max-width:46rem}"
    ".flow-hints details{border-left:2px solid var(--flow-muted);padding:.2rem 0 .2rem .9rem}"
    ".flow-hints summary{cursor:pointer;font-weight:600;min-height:1.5rem}"
    ".flow-hints p{margin:.25rem 0 .6rem}"
    ".flow-hints :focus-visible{outline:3px solid var(--flow-path);outline-offset:2px}"
)


def hints(number: str) -> Page:
    """The three hints of an exercise as a ladder to unfold, each inside the one before it.

    Raises:
        ValueError: there is no such exercise.
    """
    found = find(number)
    ladder = ""
    for step, text in reversed(list(enumerate(found.hints, 1))):
        ladder = f"<details><summary>Hint {step} of 3</summary><p>{escape(text)}</p>{ladder}</details>"
    html = f'<div class="flow-hints"><style>{HINTS_STYLE}</style>{ladder}</div>'
    return Page(html, f"Three hints for exercise {found.number}: hint({found.number!r}) prints the next one")
