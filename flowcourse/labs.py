"""Live labs: sliders that re-run Python where a kernel listens, the same pictures made in advance where none does.

A published page has no kernel, so an ipywidgets slider there would be dead, and bring megabytes of script for it. `lab`
looks where it runs: in a live notebook it shows widgets; while the book is built or tested it draws every
setting of one control once and shows them as an explorable that turns over the frames in the browser.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from flowcourse.figures.svg import Shown


@dataclass(frozen=True)
class Control:
    """A slider over listed values: its label in words, the symbol of the text, the values, the one to start with."""

    label: str
    symbol: str
    values: tuple[Any, ...]
    default: Any


def slider(label: str, symbol: str, values: Sequence[Any], default: Any = None) -> Control:
    """A control of `lab`; without a default it starts at the first value.

    Raises:
        ValueError: fewer than two values, or a default that is none of them.
    """
    values = tuple(values)
    default = values[0] if default is None and values else default
    if len(values) < 2 or default not in values:
        raise ValueError(
            f"slider {label!r} needs at least two values and a default among them: {values}, {default!r}"
        )
    return Control(label, symbol, values, default)


def is_static() -> bool:
    """Whether the page under construction will have no kernel: the book's build, nbval, or plain Python."""
    if (
        os.environ.get("FLOWLIB_STATIC") == "1" or "PYTEST_VERSION" in os.environ
    ):  # pytest sets it, kernels inherit it
        return True
    if importlib.util.find_spec("ipywidgets") is None or importlib.util.find_spec("IPython") is None:
        return True
    from IPython import get_ipython

    return getattr(get_ipython(), "kernel", None) is None


def lab(
    draw: Callable[..., Shown],
    /,
    *,
    title: str | None = None,
    caption: str | None = None,
    **controls: Control,
) -> Any:
    """Let the reader turn the controls of `draw(**values)`, which returns a figure from `show`.

        lab(draw, steps=slider("Euler steps", "N", values=(1, 2, 4, 8), default=4))

    In a live notebook every control is a slider that calls draw again. In a static page the first control alone is
    one, with the others at their defaults. The title stands above, the caption below.

    Returns:
        What the notebook displays: a widget, or an explorable.

    Raises:
        ValueError: there are no controls.
        TypeError: a control does not come from `slider`, or draw does not return a figure from `show`.
    """
    if not controls:
        raise ValueError("a lab needs a control, such as steps=slider('Steps', 'N', values=(1, 2, 4))")
    for name, control in controls.items():
        if not isinstance(control, Control):
            raise TypeError(f"the control {name!r} must come from slider(...), not {type(control).__name__}")
    return (_pictures if is_static() else _widgets)(draw, controls, title, caption)


def _drawn(draw: Callable[..., Shown], values: dict[str, Any]) -> Shown:
    shown = draw(**values)
    if not isinstance(shown, Shown):
        raise TypeError(f"draw must return what show(figure, alt=...) returns, not {type(shown).__name__}")
    return shown


def _widgets(
    draw: Callable[..., Shown], controls: dict[str, Control], title: str | None, caption: str | None
) -> Any:
    import ipywidgets
    from IPython.display import display

    sliders = {
        name: ipywidgets.SelectionSlider(
            options=control.values,
            value=control.default,
            description=f"{control.label}, {control.symbol}",
            continuous_update=False,  # draw when the hand rests, not at every value it passes
            style={"description_width": "initial"},
            layout={"width": "min(100%, 30rem)"},
        )
        for name, control in controls.items()
    }

    def update(**values: Any) -> None:
        display(_drawn(draw, values))

    head = [ipywidgets.HTML(f"<b>{escape(title)}</b>")] if title else []
    foot = [ipywidgets.HTML(escape(caption))] if caption else []
    return ipywidgets.VBox([*head, *sliders.values(), ipywidgets.interactive_output(update, sliders), *foot])


def _pictures(
    draw: Callable[..., Shown], controls: dict[str, Control], title: str | None, caption: str | None
) -> Any:
    (name, control), *_ = controls.items()
    defaults = {other: c.default for other, c in controls.items()}
    frames = [_drawn(draw, defaults | {name: value}) for value in control.values]
    from flowcourse.scenes import frames_explorable

    fixed = ", ".join(
        f"{c.label}, {c.symbol} = {c.default}" for other, c in controls.items() if other != name
    )
    drawn = f"Drawn in advance for {fixed}; a running notebook lets you change that too." if fixed else None
    return frames_explorable(
        control,
        frames,
        title=title,
        caption=" ".join(filter(None, (caption or frames[0].caption, drawn))) or None,
    )
