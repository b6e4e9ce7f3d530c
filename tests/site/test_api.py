"""The reference of flowlib: every name has its entry, formulas say what docstrings say, links lead there."""

from __future__ import annotations

import re
from pathlib import Path

import api
import docstrings
import formulas
import mathematics
import pytest
import searching

import flowlib as fl
from tests.small_book import build

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "book" / "appendices" / "api").glob("*.md"))
MODULES = api.modules()
NAMES = [(module, name) for module, public in MODULES.items() for name in public]

pytestmark = pytest.mark.filterwarnings("ignore")  # of Sphinx and its extensions


def told(module: str, name: str) -> list[str]:
    """The docstrings of a name and its methods."""
    node = MODULES[module][name]
    return [api.documentation(module, name, node), *(text for *_, text in api.members(name))]


# What there is


def test_every_public_name_is_defined_by_one_module():
    assert sorted(name for _, name in NAMES) == sorted(fl.__all__)


def test_every_module_stands_on_one_page():
    asked = [re.findall(r"^:::\{flowlib\} (.+)$", page.read_text(), re.MULTILINE) for page in PAGES]
    listed = [module for page in asked for line in page for module in line.split()]
    assert sorted(listed) == sorted(MODULES)
    toc = (ROOT / "_toc.yml").read_text()
    assert all(f"file: book/appendices/api/{page.stem}\n" in toc for page in PAGES)


@pytest.mark.parametrize(("module", "name"), NAMES, ids=[name for _, name in NAMES])
def test_every_name_begins_with_a_sentence_and_has_a_signature(module: str, name: str):
    first = docstrings.blocks(told(module, name)[0])[0]
    assert first.kind == "prose" and len(first.text.split()) >= 3
    shown = api.signature(name, MODULES[module][name])
    assert re.match(rf"(class )?{name}\b|[A-Z]+, {name}\b|{name}:", shown) and " at 0x" not in shown
    assert max(map(len, shown.split("\n"))) <= 90


def test_a_docstring_is_taken_apart():
    text = "Does\nit.\n\n    x = 1\n\nArgs:\n    a, b: one,\n        two.\n    **c: rest.\n\n"
    text += "Returns:\n    a: b.\n\n>>> f()\n1"
    assert [(block.kind, block.text or block.items) for block in docstrings.blocks(text)] == [
        ("prose", "Does\nit."),
        ("block", "x = 1"),
        ("Arguments", (("a, b", "one, two."), ("**c", "rest."))),
        ("Returns", (("", "a: b."),)),
        ("example", ">>> f()\n1"),
    ]


def test_nothing_of_a_docstring_is_lost():
    """Every word of every docstring is in a block."""
    for module, name in NAMES:
        for text in told(module, name):
            blocks = docstrings.blocks(text)
            kept = " ".join(b.text + " ".join(f"{n}: {t}" for n, t in b.items) for b in blocks)
            words = {word for word in re.findall(r"\w+", text) if word not in ("Args", "Returns", "Raises")}
            assert words <= set(re.findall(r"\w+", kept)), name


# Formulas


@pytest.mark.parametrize(
    ("plain", "tex"),
    [
        ("x_t = (1 - t) x_0 + t x_1", r"x_{t} = (1 - t) x_{0} + t x_{1}"),
        ("u_t = dx_t/dt", r"u_{t} = \frac{\mathrm{d}x_{t}}{\mathrm{d}t}"),
        ("h e^2 / 2 <= sigma^2 / 2", r"h \frac{e^{2}}{2} \le \frac{\sigma^{2}}{2}"),
        ("a / b c", "a / b c"),  # (a / b) c, or a / (b c)?
        ("log x / 2", r"\log x / 2"),  # (log x) / 2, or log (x / 2)?
        ("a / b / c", "a / b / c"),
        ("E[x_1|x_t = x]", r"\mathbb{E}[x_{1}\mid x_{t} = x]"),
        ("E |v - u_t|^2", r"\mathbb{E} \lvert v - u_{t}\rvert^{2}"),
        ("E|X - Y|", r"\mathbb{E}\lvert X - Y\rvert"),
        ("E_1 = |x| |y|", r"E_{1} = \lvert x\rvert \lvert y\rvert"),
        ("<x, y> < 0", r"\langle x, y\rangle < 0"),
        ("sum_{j<i} a_ij k_j", r"\sum_{j<i} a_{ij} k_{j}"),
        ("int_0^1 div v dt", r"\int_{0}^{1} \operatorname{div} v \mathrm{d}t"),
        ("phi_{s -> t}(x), x_0i", r"\phi_{s \to t}(x), x_{0i}"),
        ("S^-1 z, p^(1 - w), A^T", r"S^{-1} z, p^{1 - w}, A^{\top}"),
        ("sqrt(1 - exp(-B))", r"\sqrt{1 - \exp(-B)}"),
        ("v . grad u", r"v \cdot \nabla u"),
        ("x ~ N(0, I)  for each layer", r"x \sim \mathcal{N}(0, I)\qquad\allowbreak \text{for each layer}"),
        ("sigma velocity - g'(x)", r"\sigma \text{ velocity} - g'(x)"),
    ],
)
def test_plain_formulas_are_read_as_they_are_meant(plain: str, tex: str):
    made = formulas.formula(plain, fractions=True)
    assert re.sub(r" +", " ", made) == tex
    mathematics.render(made, True)


@pytest.mark.parametrize(
    "text", ["a | b | c", "(x", "x)", "|x", "xy + 1", "x # y", "p|q", "/ x", "the words", "x @ y"]
)
def test_what_is_not_surely_a_formula_is_refused(text: str):
    with pytest.raises(formulas.Unsure):
        formulas.formula(text, fractions=True)


LEFT_AS_CODE = {"EMA", "translate_guidance"}  # a context manager at work, and a table with words in it


def test_every_block_of_a_docstring_is_a_formula_that_katex_renders():
    blocks = [
        (name, block.text)
        for module, name in NAMES
        for text in told(module, name)
        for block in docstrings.blocks(text)
        if block.kind == "block"
    ]
    refused = set()
    for name, text in blocks:
        try:
            for row in formulas.display(text):
                mathematics.render(row, True)
        except formulas.Unsure:
            refused.add(name)
    assert len(blocks) > 35 and refused == LEFT_AS_CODE


def test_every_formula_in_a_sentence_is_one_that_katex_renders_and_has_the_letters_of_its_source():
    seen = 0
    for module, name in NAMES:
        for text in told(module, name):
            for block in docstrings.blocks(text):
                for prose in [block.text] if block.kind == "prose" else [t for _, t in block.items]:
                    for kind, tex, source in docstrings.pieces(prose):
                        if kind == "math":
                            seen += 1
                            mathematics.render(tex)
                            digits = re.sub(r"\D", "", tex)
                            assert digits == re.sub(r"\D", "", source)
    assert seen > 500


def test_words_stay_words():
    text = (
        "A law of a net, as I do: is it on x's line? Its v is exact at t = 1, as in v(x, t, **cond) (B, *D)."
    )
    assert [piece[:2] for piece in docstrings.pieces(text) if piece[0] != "text"] == [
        ("math", "v"),
        ("math", "t = 1"),
        ("code", "v(x, t, **cond)"),
        ("code", "(B, *D)"),
    ]


# Links


def test_works_are_found_by_what_docstrings_call_them():
    works = docstrings.works()
    assert works["esser et al. 2024"] == "esser2024scaling"
    assert works["ho & salimans 2022"] == "ho2022classifier"
    assert works["geng, deng et al. 2025"] == "geng2025mean"  # two papers of one first author and year
    assert "geng et al. 2025" not in works
    assert works["kynkaanniemi et al. 2024"] == "kynkaanniemi2024applying"
    assert works["hairer, norsett & wanner 1993"] == "hairer1993solving"


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("fl.odeint", "flowlib.odeint"),
        ("flowlib.solvers.odeint", "flowlib.odeint"),
        ("flowlib.solvers", "flowlib.solvers"),
        ("Flow.log_prob", "flowlib.Flow.log_prob"),
        ("fl.AffinePath.alpha", "flowlib.AffinePath"),
        ("fl.RK4.order", "flowlib.RK4"),
        ("fl.odient", ""),
        ("fl.Flow.nothing", ""),
        ("fl.checks.require", ""),
    ],
)
def test_a_dotted_name_leads_to_its_entry(name: str, entry: str):
    assert api.resolved(name) == entry


BOOK = """# A book

`fl.odeint` and `odeint(v, x)`, not `x.odeint`; `fl.odient` is none, `fl.RK4` is one, and `flowlib.nothing` none.

:::{flowlib} solvers tableaus
:::
"""


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The HTML of a page with two modules, and the warnings of its build."""
    folder = tmp_path_factory.mktemp("book")
    (folder / "index.md").write_text(BOOK)
    (folder / "references.bib").write_text((ROOT / "book" / "references.bib").read_text())
    extensions = ("sphinxcontrib.bibtex", "mathematics", "api")
    _, warned = build(folder, *extensions, bibtex_bibfiles=["references.bib"])
    return (folder / "_build" / "html" / "index.html").read_text(), warned


def test_names_in_inline_code_lead_to_their_entries(book: tuple[str, str]):
    line = re.findall("<p>.*?</p>", book[0], re.DOTALL)[0]
    led = re.findall(r'<a [^>]*href="#([^"]+)"[^>]*><code[^>]*>.*?</code></a>', line)
    assert led == ["fl.odeint", "fl.odeint", "fl.RK4"]
    assert 'id="fl.odeint"' in book[0] and 'id="fl.Tableau.stages"' in book[0]


def test_a_name_that_does_not_exist_is_told_with_the_one_that_is_meant(book: tuple[str, str]):
    lines = [line for line in book[1].splitlines() if "flowlib has no" in line]
    assert len(lines) == 2
    assert re.search(r"index\.md:3: WARNING: flowlib has no fl\.odient; is fl\.odeint meant\?", lines[0])
    assert re.search(r"WARNING: flowlib has no flowlib\.nothing", lines[1])


def test_a_name_without_a_page_is_told(book: tuple[str, str]):
    missing = set(re.findall(r"no page of the reference has flowlib\.(\w+)", book[1]))
    here = {name for module in ("solvers", "tableaus") for name in MODULES[module]}
    assert missing == set(fl.__all__) - here


def test_an_entry_has_signature_arguments_formula_and_example(book: tuple[str, str]):
    entry = book[0].partition('id="fl.odeint"')[2].partition("</section>")[0]
    words = re.sub("<[^>]*>", "", entry)
    assert "method: Tableau = MIDPOINT" in words
    assert 'class="katex-mathml"' in entry and '<p class="rubric">Raises</p>' in entry
    assert ">>> " in entry.replace("&gt;", ">") and "FloatingPointError" in words


def test_searching_finds_an_entry_by_its_name_and_its_arguments_without_code(book: tuple[str, str]):
    entries = {entry[1]: entry for entry in searching.Reader(book[0]).entries}
    kind, _, title, text = entries["fl.odeint"]
    assert (kind, title) == (1, "fl.odeint")
    assert "rtol" in text and "compensated" in text
    assert ">>>" not in text and "MIDPOINT = " not in text
    assert entries["fl.trajectory"][2] == "fl.trajectory"
