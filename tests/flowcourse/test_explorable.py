"""Explorables: their JavaScript computes what flowlib computes, and their HTML is deterministic, labeled and safe."""

import base64
import io
import json
import math
import re
from html import escape, unescape
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from explorables import BESIDE, beside, kept_once

from flowcourse import assets
from flowcourse.explorables import encode16, still, table
from flowcourse.figures.svg import show
from flowcourse.palette import LIGHT
from flowcourse.scenes import (
    averaging_explorer,
    change_of_variables_explorer,
    crowds_explorer,
    density_explorer,
    flow_explorer,
    frames_explorable,
    guidance_board,
    layers_explorer,
    pairing_board,
    paths_explorer,
    power_diagram,
    solver_explorer,
    spacetime_explorer,
    trainer_board,
)
from flowcourse.scenes.flow import described_field
from flowlib.data import GaussianMixture
from flowlib.fields import LinearField, TravelingVortex, rotation, saddle, shear, spiral
from flowlib.paths import cosine, linear
from flowlib.solvers import EULER, HEUN, MIDPOINT, RK4, odeint, trajectory

MIXTURE = GaussianMixture(
    means=torch.tensor([[0.0, 2.0], [-1.7, -1.0], [1.7, -1.0]], dtype=torch.float64),
    covariances=torch.tensor(
        [[[0.25, 0.0], [0.0, 0.04]], [[0.1, 0.05], [0.05, 0.2]], [[0.3, -0.1], [-0.1, 0.05]]],
        dtype=torch.float64,
    ),
    weights=torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64),
)


def law(means, covariances):
    """A mixture whose attributes, in float64, are all that it computes with."""
    return GaussianMixture(torch.tensor(means, dtype=torch.float64), covariances)


FIELDS = {
    "rotation": rotation(),
    "shear": shear(2.0),
    "saddle": saddle(0.7),
    "spiral": spiral(),
    "full matrix": LinearField(((0.3, -1.1), (0.4, -0.2))),
    "vortex": TravelingVortex(strength=5.0, radius=0.6, start=(-1.0, 0.3), end=(0.8, -0.2)),
    "mixture": MIXTURE.marginal_velocity(linear),
    "round mixture": law([[1.0, 0.0], [-1.0, 0.5]], [0.2, 0.5]).marginal_velocity(linear),
    "axis-aligned mixture": law([[1.0, 0.0]], [[0.2, 0.9]]).marginal_velocity(linear),
}
X = torch.randn(40, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 1.5
TURN = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)


SCALARS = {"forced": lambda x, t: 2 * math.sin(3 * float(t)) - x, "square": lambda x, t: x.square()}


def spec(name):
    return described_field(name, FIELDS[name])


def flat(x):
    return x.flatten().tolist()


def velocity(browser, name, t, c=0.0):
    out = browser(
        "(() => { const out = new Float64Array(x.length); fields[spec.kind](spec, c)(x, t, out); return [...out] })()",
        spec=spec(name), x=flat(X), t=t, c=c,
    )  # fmt: skip
    return torch.tensor(out, dtype=torch.float64).reshape(-1, 2)


# The mathematics


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("t", [0.0, 0.3, 0.99, 1.0])
def test_fields_equal_those_of_flowlib(browser, name, t):
    torch.testing.assert_close(velocity(browser, name, t), FIELDS[name](X, t), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("t", [0.0, 0.5, 1.0])
def test_the_swirl_adds_a_rotated_score_and_the_density_is_exact(browser, t):
    law = MIXTURE.marginal(linear, t)
    expected = FIELDS["mixture"](X, t) + 0.7 * law.score(X) @ TURN.T
    torch.testing.assert_close(velocity(browser, "mixture", t, c=0.7), expected, rtol=1e-12, atol=1e-12)
    log = torch.tensor(
        browser("[...logDensity(spec, x, t)]", spec=spec("mixture"), x=flat(X), t=t), dtype=torch.float64
    )
    torch.testing.assert_close(log, law.log_prob(X), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("method", [EULER, MIDPOINT, HEUN, RK4], ids=lambda m: m.name)
@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize(("t0", "t1", "steps"), [(0.0, 1.0, 7), (0.8, 0.1, 5)])
def test_every_solver_takes_the_steps_of_flowlib(browser, method, name, t0, t1, steps):
    _, expected = trajectory(FIELDS[name], X, t0=t0, t1=t1, steps=steps, method=method)
    states = browser(
        "odeint(fields[spec.kind](spec), x, t0, t1, steps, tableau).map((state) => [...state])",
        spec=spec(name), x=flat(X), t0=t0, t1=t1, steps=steps, tableau=table(method),
    )  # fmt: skip
    states = torch.tensor(states, dtype=torch.float64).reshape(expected.shape)
    torch.testing.assert_close(states, expected, rtol=1e-11, atol=1e-11)


def test_the_solver_goes_on_where_it_stopped(browser):
    settings = {"spec": spec("vortex"), "x": flat(X), "tableau": table(RK4)}
    whole = browser("[...odeint(fields.vortex(spec), x, 0, 1, 8, tableau).at(-1)]", **settings)
    parts = browser(
        "(() => { const go = (states, n) => advance(states, n, fields.vortex(spec), 0, 1 / 8, tableau);"
        "return [...go(go([Float64Array.from(x)], 3), 8).at(-1)] })()",
        **settings,
    )
    assert parts == whole


def test_between_steps_the_state_moves_on_a_straight_line(browser):
    states = [[0.0, 0.0], [1.0, 2.0], [3.0, 2.0]]
    assert [browser("between(states, t)", states=states, t=t) for t in (0, 0.25, 0.5, 0.75, 1)] == [
        [0, 0], [0.5, 1], [1, 2], [2, 2], [3, 2],
    ]  # fmt: skip


def test_float16_survives_the_journey(browser):
    numbers = np.array([0, 1, -2.5, 3.14159, 65504, -6.1e-5, 6e-8, 1e-6], dtype=np.float16)
    assert browser("[...decode16(text)]", text=encode16(numbers)) == numbers.astype(float).tolist()


@pytest.mark.parametrize(
    ("kind", "start"), [("forced", 1.2), ("forced", -0.7), ("square", 0.4), ("square", -2.0)]
)
def test_solutions_on_the_line_solve_their_equation(browser, kind, start):
    v, times = SCALARS[kind], [0.5, 1.0, 2.0]
    solution = browser(
        "times.map((t) => scalars[kind].solution(start, t))", kind=kind, start=start, times=times
    )
    x = torch.tensor([[start]], dtype=torch.float64)
    expected = [odeint(v, x, t1=t, steps=1000, method=RK4).item() for t in times]
    np.testing.assert_allclose(solution, expected, rtol=1e-9)
    assert browser("scalars[kind].velocity(start, 0.3)", kind=kind, start=start) == pytest.approx(
        v(x, 0.3).item()
    )


@pytest.mark.parametrize("start", [-0.8, 0.0, 0.6])
@pytest.mark.parametrize("tau", [0.0, 1.0, 2.5])
def test_every_member_of_the_fan_solves_the_square_root_equation(browser, start, tau):
    times, h = np.linspace(0.05, 2.95, 30), 1e-6
    expression = "times.map((t) => scalars.root.solution(x, t, tau))"
    at = [browser(expression, times=(times + s).tolist(), x=start, tau=tau) for s in (-h, 0, h)]
    slope = (np.array(at[2]) - np.array(at[0])) / (2 * h)
    np.testing.assert_allclose(slope, np.sqrt(np.abs(at[1])), atol=1e-5)
    assert browser("scalars.root.solution(x, 0, tau)", x=start, tau=tau) == pytest.approx(start)


def test_the_fan_meets_and_the_quadratic_blows_up(browser):
    meet = browser("[-0.5, -0.2, 0].map((x) => scalars.root.solution(x, 1.5, 2))")
    assert meet == [0, 0, 0]
    assert browser("[0.99, 1, 1.5].map((t) => scalars.square.solution(1, t))")[1:] == [
        None,
        None,
    ]  # infinite, in JSON


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.000314, "3.1 × 10⁻⁴"),
        (17.2, "17"),
        (0.056, "0.056"),
        (2.0, "2.0"),
        (1e-14, "below 10⁻¹²"),
        (4.2e7, "4.2 × 10⁷"),
    ],
)
def test_numbers_are_written_for_readers(browser, number, text):
    assert browser("scientific(number)", number=number) == text


def test_what_takes_time_is_computed_once_for_a_key(browser):
    counted = """(() => {
        const remember = memory();
        let count = 0;
        const asked = ["a", "a", "b", "a"].map((key) => remember("value", key, () => ++count));
        return [asked, remember.known("value", "a"), remember.known("value", "b") === undefined];
    })()"""
    assert browser(counted) == [[1, 1, 2, 3], 3, True]


# The HTML


def explorer(**changes):
    return flow_explorer(**{"fields": {"Spiral": spiral()}, "points": torch.ones(1, 2), **changes})


def frames(values=(1, 2), **changes):
    pictures = []
    for value in values:
        figure, ax = plt.subplots(figsize=(2, 2))
        ax.plot([0, 1], [0, value], color="black")
        pictures.append(
            show(figure, alt=f"A straight line that rises from zero with slope {value} over one unit.")
        )
    choice = SimpleNamespace(label="Slope", symbol="a", values=tuple(values), default=values[0])
    return frames_explorable(choice, pictures, **changes)


EXPLORABLES = {
    "flow": explorer,
    "many fields": lambda: explorer(fields={name: FIELDS[name] for name in ("spiral", "vortex", "mixture")}),
    "two panels": lambda: explorer(panels="two", methods=(RK4,)),
    "swirl": lambda: explorer(fields={"To three": FIELDS["mixture"]}, extra="swirl", methods=(RK4,)),
    "spacetime": spacetime_explorer,
    "frames": frames,
    "averaging": lambda: averaging_explorer([-1.0, 0.5, 2.0]),
    "paths": paths_explorer,
    "variables": change_of_variables_explorer,
    "layers": lambda: layers_explorer(X.reshape(4, 10, 2), labels=["first", "second", "third"]),
    "density": lambda: density_explorer(FIELDS["mixture"]),
    "crowds": lambda: crowds_explorer(FIELDS["mixture"]),
    "solver": lambda: solver_explorer({"spiral": spiral(), "vortex": FIELDS["vortex"]}),
    "pairing": pairing_board,
    "cells": power_diagram,
    "guidance": guidance_board,
    "trainer": trainer_board,
}
DRAWN = {name: make for name, make in EXPLORABLES.items() if name != "frames"}


@pytest.mark.parametrize("make", EXPLORABLES.values(), ids=EXPLORABLES)
def test_html_is_deterministic_whole_and_labeled(make):
    html = make()._repr_html_()
    assert html == make()._repr_html_()
    (name,) = re.findall(r'data-flow-explorable="(\w{10})"', html)
    assert f'mount("{name}"' in html
    assert not re.search(r"https?:|src=", html)  # nothing is fetched
    controls = re.findall(r"<(?:input|select)[^>]*>", html)
    labeled = re.findall(r"<label>(?:<span>[^<]+(?:<i>[^<]+</i>)?</span>)?<(?:input|select)[^>]*>", html)
    assert len(controls) == len(labeled) > 0
    panels = re.findall(r'<canvas (?:tabindex="0" )?role="(\w+)" aria-label="([^"]{20,})"', html)
    assert len(panels) == html.count("<canvas")
    assert all("keys" in label for role, label in panels if role == "application")
    assert re.search(r'role="img" aria-label="[^"]{20,}"', html)  # the still picture
    assert 'aria-live="polite"' in html


@pytest.mark.parametrize("make", EXPLORABLES.values(), ids=EXPLORABLES)
def test_the_values_of_the_controls_are_those_in_the_page(make):
    figure = make()
    html = "".join(control.html for control in figure.controls)
    assert list(figure.values) == re.findall(r'data-control="([^"]+)"', html)
    for name, rest in re.findall(r'<input type="range" data-control="(\w+)"([^>]*)>', html):
        value = float(re.search(r' value="([^"]*)"', rest)[1])
        listed = re.search(r'data-values="([^"]*)"', rest)
        assert figure.values[name] == (json.loads(unescape(listed[1]))[int(value)] if listed else value)


# Scripts and style sheets


@pytest.mark.parametrize("make", EXPLORABLES.values(), ids=EXPLORABLES)
def test_every_script_comes_after_what_it_needs(make):
    html = make()._repr_html_()
    scripts = re.findall(r"<script data-flow>(.*?)</script>", html, re.DOTALL)
    left = [set(re.findall(r"flowcourse\.(\w+) = \{", script)) for script in scripts]
    for n, script in enumerate(scripts):
        needed = set(re.findall(r"\} = flowcourse\.(\w+);|flowcourse\.(\w+)\.", script))
        assert {name for pair in needed for name in pair if name} <= set().union(*left[:n])
    assert html.index("</figure>") < html.index("<script")  # which a notebook runs when it stands there


def test_a_page_keeps_what_is_equal_once_and_in_order():
    """As book/_ext/explorables.py makes it."""
    outputs = [make()._repr_html_() for make in (explorer, spacetime_explorer, explorer)]
    page = "".join(kept_once(outputs))
    assert page.count("<style>") == 1 and "data-flow>" not in page
    scripts = re.findall(r'<script type="module">(.*?)</script>', page, re.DOTALL)
    defined = [name for script in scripts for name in re.findall(r"flowcourse\.(\w+) = \{", script)]
    assert len(defined) == len(set(defined)) and {"engine", "panel", "flow", "spacetime"} <= set(defined)
    assert sum("engine.mount(" in script for script in scripts) == 2  # the third figure is the first again
    assert page.count("<figure") == 3
    assert kept_once(["<p>data-flow</p>"]) == ["<p>data-flow</p>"]


def test_large_pictures_stand_beside_the_page_and_small_ones_in_it(tmp_path: Path):
    large, small = bytes(range(256)) * 12, b"small"
    told = [base64.b64encode(content).decode() for content in (large, small)]
    html = "".join(f'<template><image href="data:image/png;base64, {text}"/></template>' for text in told)
    page = beside(html, tmp_path, "book/appendices/page")
    assert page.count("data:image") == 1 and told[1] in page
    (url,) = re.findall(r'"([^"]+[.]png)"', page)
    assert (tmp_path / "book/appendices" / url).resolve().read_bytes() == large
    assert BESIDE.findall(page) == [Path(url).name]
    assert beside(html, tmp_path, "book/appendices/page") == page


def test_a_module_that_imports_is_linked_to_what_it_imports():
    assert assets.modules("scenes/averaging.js")[-1] == "scenes/averaging.js"
    assert "explorables/affine.js" in assets.modules("scenes/averaging.js")
    assert not re.search(r"^(import|export) ", assets.linked("scenes/averaging.js"), re.MULTILINE)


# Still pictures


@pytest.mark.parametrize("make", DRAWN.values(), ids=DRAWN)
def test_the_still_is_what_the_scene_draws(browser, make):
    figure = make()
    flat = [panel for row in figure.panels for panel in row]
    pictures, said = figure.stills()
    for at, sizes in enumerate(([panel.wide for panel in flat], [panel.narrow for panel in flat])):
        # drawn twice, as in a page: the second time from memory
        drawn = browser(
            f"(() => {{ const {{ scene, panels }} = opened({figure.scene}, spec, values, sizes, colors);"
            "scene.draw(); const once = panels.map(({ pen }) => pen.svg().length); scene.draw();"
            "return [panels.map(({ pen }, i) => pen.svg().slice(once[i])), scene.readout()] })()",
            spec=figure.spec, values=figure.values, sizes=sizes, colors=LIGHT,
        )  # fmt: skip
        assert [still.themed(svg) for svg in drawn[0]] == [pair[at] for pair in pictures]
        assert drawn[1] == said
    assert escape(said) in figure._repr_html_()


@pytest.mark.parametrize("make", DRAWN.values(), ids=DRAWN)
def test_stills_follow_the_page_and_fill_their_panels(make):
    figure = make()
    html = figure._repr_html_()
    flat = [panel for row in figure.panels for panel in row]
    assert html.count('class="flow-still"') == len(flat)
    boxes = re.findall(r'class="flow-at-(\w+)" viewBox="0 0 (\d+) (\d+)"', html)
    shapes = [size for panel in flat for size in (panel.wide, panel.narrow)]
    assert [(int(w), int(h)) for _, w, h in boxes] == [(still.FINE * w, still.FINE * h) for w, h in shapes]
    for pair in figure.stills()[0]:
        for svg in pair:
            ElementTree.fromstring(f"<svg>{svg}</svg>")
            assert "NaN" not in svg and "{" not in svg
    colors = set(re.findall(r"(?:fill|stroke)=\"(.*?)\"", "".join(map("".join, figure.stills()[0]))))
    fixed = {color for color in colors if not color.startswith("var(")}
    assert fixed == set() or figure.scene == "layers"  # whose small pictures have the colors in between


def test_the_still_picture_shows_where_points_are():
    figure = explorer(points=torch.tensor([[1.0, 0.5]]), methods=(EULER,), steps=1, time=1.0,
                      fields={"shear": shear()})  # fmt: skip
    [(wide, _)] = figure.stills()[0]
    unit = still.FINE * 450 / 6
    x, y = round(still.FINE * 360 + 1.5 * unit), round(still.FINE * 225 - 0.5 * unit)  # x_1 + x_2 = 1.5
    assert f'stroke="var(--flow-data)" stroke-width="10" d="m{x} {y}h0"' in wide


@pytest.mark.parametrize(
    ("points", "thin"),
    [
        ([[0, 0], [5, 1], [10, 0]], [[0, 0], [10, 0]]),
        ([[0, 0], [5, 3], [10, 0]], [[0, 0], [5, 3], [10, 0]]),
        ([[0, 0], [9, 0], [0, 0]], [[0, 0], [9, 0], [0, 0]]),
    ],
)
def test_lines_lose_only_points_that_are_not_seen(browser, points, thin):
    assert browser("thinned(points)", points=points) == thin


def test_a_density_becomes_an_image_of_one_color():
    svg = still.themed('<image href="{2 1 107 114 128 0 150}"/>')
    data = re.search(r'base64,([^"]+)"', svg)[1]
    pixels = plt.imread(io.BytesIO(base64.b64decode(data)))
    np.testing.assert_allclose(255 * pixels, [[[107, 114, 128, 0], [107, 114, 128, 150]]], atol=0.5)


def test_without_v8_there_is_no_still_and_everything_else(monkeypatch):
    drawn = explorer()._repr_html_()
    monkeypatch.setattr(still, "available", lambda: False)
    bare = explorer()._repr_html_()
    assert 'flow-still"' in drawn and 'flow-still"' not in bare
    assert all(bare.count(part) == drawn.count(part) for part in ("<canvas", "data-control", "<script"))


# The rest of the HTML


def test_what_differs_has_another_name():
    figures = [
        explorer(),
        explorer(steps=9),
        explorer(points=torch.zeros(1, 2)),
        explorer(caption="Try."),
        frames(),
    ]
    names = {re.search(r'explorable="(\w+)"', figure._repr_html_())[1] for figure in figures}
    assert len(names) == 5


HOSTILE = {"title": "<i>&", "caption": "</figure>", "description": '"><script>' * 3}
TEXTS = {
    "flow": lambda **texts: explorer(fields={"</script><b>": spiral(), "b": shear()}, **texts),
    "solver": lambda **texts: solver_explorer({"</script><b>": spiral(), "b": shear()}, **texts),
    "layers": lambda **texts: layers_explorer(torch.zeros(3, 4, 2), labels=["<b>", "</script>"], **texts),
    "density": lambda **texts: density_explorer(FIELDS["mixture"], **texts),
    "crowds": lambda **texts: crowds_explorer(FIELDS["mixture"], **texts),
    "variables": change_of_variables_explorer,
    "pairing": pairing_board,
    "cells": power_diagram,
    "trainer": trainer_board,
    "guidance": lambda **texts: guidance_board(classes={"</script><b>": [0], "1": [1, 2]}, **texts),
}


@pytest.mark.parametrize("make", TEXTS.values(), ids=TEXTS)
def test_texts_cannot_break_out(make):
    html, harmless = make(**HOSTILE)._repr_html_(), make()._repr_html_()
    for tag in ("<script", "</script>", "<b>", "</b>", "<figure", "</figure>"):
        assert html.count(tag) == harmless.count(tag)
    assert "&lt;i&gt;&amp;" in html and "</script><b>" not in html


def test_the_bundle_holds_a_description_in_plain_text():
    bundle = explorer(description="Points that spiral inwards.")._repr_mimebundle_()
    assert set(bundle) == {"text/html", "text/plain"}
    assert bundle["text/plain"] == "[Interactive figure: Points that spiral inwards.]"


def test_controls_without_a_choice_are_left_out():
    single = explorer(methods=(RK4,), panels="two")._repr_html_()
    assert re.findall(r'data-control="(\w+)"', single) == ["t"]
    many = EXPLORABLES["many fields"]()._repr_html_()
    assert re.findall(r'data-control="(\w+)"', many) == [
        "t", "field", "method", "steps", "grid", "arrows", "trajectories", "density",
    ]  # fmt: skip
    assert re.findall(r'data-control="(\w+)"', EXPLORABLES["swirl"]()._repr_html_())[:2] == ["t", "swirl"]


def test_frames_keep_their_values_and_share_what_is_equal():
    figure = frames((0.5, 2, 3))
    html = figure._repr_html_()
    assert html.count("<template>") == 3
    assert figure.spec["values"] == [0.5, 2, 3]
    assert "data-same" in html
    assert "slope 2" in html


# Refusals


@pytest.mark.parametrize(
    "field",
    [
        lambda x, t: x,
        LinearField(((1.0,),)),
        MIXTURE.marginal_velocity(cosine),
        MIXTURE.marginal_velocity(linear, MIXTURE),
        GaussianMixture([[0.0, 0.0, 1.0]], [1.0]).marginal_velocity(linear),
    ],
    ids=["function", "one dimension", "other path", "other source", "three dimensions"],
)
def test_fields_that_the_browser_cannot_compute_are_named(field):
    with pytest.raises(TypeError, match=r"cannot compute the field 'mine'"):
        explorer(fields={"mine": field})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fields": {}}, "a field and a method"),
        ({"methods": ()}, "a field and a method"),
        ({"points": torch.zeros(3)}, r"\(B, 2\), got \(3,\)"),
        ({"panels": "three"}, "panels"),
        ({"steps": 0}, "whole number"),
        ({"steps": 2.0}, "whole number"),
        ({"time": 1.5}, "time"),
        ({"extra": "twist"}, "swirl"),
        ({"extra": "swirl"}, "mixtures"),
        ({"show": ("density",)}, "density"),
    ],
)
def test_bad_options_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        explorer(**changes)


def test_other_bad_input_is_refused():
    with pytest.raises(ValueError, match="forced, root, square"):
        spacetime_explorer(("cubic",))
    choice = SimpleNamespace(label="a", symbol="a", values=(1, 2), default=1)
    with pytest.raises(ValueError, match="each of the 2 values, got 1"):
        frames_explorable(choice, [None])
    with pytest.raises(TypeError, match="show"):
        frames_explorable(choice, ["<svg>", "<svg>"])
