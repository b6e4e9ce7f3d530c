"""The reference of flowlib, made of its signatures and docstrings while the book is built, and links to it.

`:::{flowlib} solvers tableaus` writes everything public that these modules define; each name stands once, and a module
that no page has is a warning. In inline code of every page, and in the code of chapters, a name of flowlib leads to its
entry; `fl.` before a name that flowlib does not have is a warning, and so an error under `-W`.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import formulas
import mathematics
from docstrings import Block, blocks, pieces
from docutils import nodes
from sphinx import addnodes
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode
from sphinxcontrib.bibtex.citation_target import parse_citation_targets
from sphinxcontrib.bibtex.roles import CitationRef

import flowlib

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

logger = logging.getLogger(__name__)
NAMES = set(flowlib.__all__)
FOLDER = Path(flowlib.__file__).parent
WIDE = 46  # characters of a signature that a phone shows in a line


class work(nodes.inline):
    """What names a work of the bibliography."""


def assigned(tree: ast.Module) -> dict[str, ast.stmt]:
    """The statements of a module that give its names a value or a definition."""
    found: dict[str, ast.stmt] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                for name in ast.walk(target):
                    if isinstance(name, ast.Name):
                        found[name.id] = node
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found[node.target.id] = node
    return found


def modules() -> dict[str, dict[str, ast.stmt]]:
    """Of each module of flowlib the public names that it defines, in its order, with their statements."""
    made = {}
    for file in sorted(FOLDER.glob("*.py")):
        if file.stem != "__init__":
            defined = assigned(ast.parse(file.read_text(encoding="utf-8")))
            public = {name: node for name, node in defined.items() if name in NAMES}
            if public:
                made[file.stem] = public
    return made


def documentation(module: str, name: str, node: ast.stmt) -> str:
    """The docstring of a name; of a constant the comment beside it or above it, or what it is."""
    value = getattr(flowlib, name)
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return inspect.getdoc(value) or ""
    lines = (FOLDER / f"{module}.py").read_text(encoding="utf-8").split("\n")
    start = node.lineno - 1
    if beside := re.search(r"\s#\s(.*)", lines[start]):
        return beside[1]
    above = start
    while above and lines[above - 1].startswith("# "):
        above -= 1
    told = " ".join(line[2:] for line in lines[above:start])
    if told:
        return told
    kind = next(cls.__name__ for cls in type(value).__mro__ if not cls.__name__.startswith("_"))
    if kind == "Tableau":
        return f"The method {value.name}: a `Tableau` of order {value.order} with {value.stages} stages."
    if kind in NAMES:
        return f"The {kind} called “{value.name}”: an instance of `{kind}`."
    return "One of these words." if "Literal" in type(value).__name__ else f"A value: `{ast.unparse(node)}`."


# Signatures


def default(value: Any) -> str:
    """A default as it would be written."""
    for name in flowlib.__all__:
        if getattr(flowlib, name) is value and not isinstance(value, str | int | float | None):
            return name
    return getattr(value, "__name__", None) or ("..." if repr(value).startswith("<") else repr(value))


def parameters(function: Any, bound: bool = False) -> tuple[list[str], str]:
    """The parameters of a function as they are declared, with what separates them, and what it returns."""
    signature = inspect.signature(function)
    shown, stars = [], False
    found = list(signature.parameters.values())[int(bound) :]
    for place, parameter in enumerate(found):
        if parameter.kind is parameter.VAR_POSITIONAL:
            stars = True
        if parameter.kind is parameter.KEYWORD_ONLY and not stars:
            shown.append("*")
            stars = True
        kept = parameter.annotation is not parameter.empty
        text = str(parameter.replace(annotation=parameter.empty, default=parameter.empty))
        text += f": {written(parameter.annotation)}" if kept else ""
        if parameter.default is not parameter.empty:
            text += f"{' = ' if kept else '='}{default(parameter.default)}"
        shown.append(text)
        last = place + 1 == len(found) or found[place + 1].kind is not parameter.POSITIONAL_ONLY
        if parameter.kind is parameter.POSITIONAL_ONLY and last:
            shown.append("/")
    returned = signature.return_annotation
    return shown, "" if returned is signature.empty or returned == "None" else f" -> {written(returned)}"


def written(annotation: Any) -> str:
    """A type as code writes it, without the modules that it comes from."""
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return re.sub(r"\b(?:torch|nn|typing|collections\.abc|flowlib\.\w+)\.(?=[A-Z])", "", text)


def call(name: str, function: Any, bound: bool = False) -> str:
    """A signature, one parameter a line if it is long."""
    shown, returned = parameters(function, bound)
    line = f"{name}({', '.join(shown)}){returned}"
    if len(line) <= WIDE or not shown:
        return line
    return f"{name}(\n" + "".join(f"    {one},\n" for one in shown) + f"){returned}"


def signature(name: str, node: ast.stmt) -> str:
    value = getattr(flowlib, name)
    if isinstance(node, ast.FunctionDef):
        return call(name, value)
    if isinstance(node, ast.ClassDef):
        abstract = inspect.isabstract(value) or getattr(value, "_is_protocol", False)
        try:
            return (
                f"class {name}"
                if abstract and "__init__" not in vars(value)
                else f"class {call(name, value)}"
            )
        except ValueError:
            return f"class {name}"
    text = ast.unparse(node).replace("'", '"')
    kind = next(cls.__name__ for cls in type(value).__mro__ if not cls.__name__.startswith("_"))
    if isinstance(node, ast.AnnAssign) or len(text) > 90:
        return f"{name}: {kind}"
    return text


def members(name: str) -> list[tuple[str, str, str]]:
    """Of a class the name, the signature and the docstring of each public method and property."""
    value = getattr(flowlib, name)
    made = []
    for key, member in vars(value).items() if inspect.isclass(value) else ():
        if key.startswith("_") and key != "__call__":
            continue
        if isinstance(member, property):
            text = inspect.getdoc(member.fget) or ""
            kept = inspect.signature(member.fget).return_annotation if member.fget else ""
            made.append((key, f"{key}: {written(kept)}", text))
            continue
        function = member.__func__ if isinstance(member, classmethod | staticmethod) else member
        if inspect.isfunction(function) and function.__doc__ and function.__module__ == value.__module__:
            shown = call("" if key == "__call__" else key, function, not isinstance(member, staticmethod))
            made.append(
                (key, re.sub(r"\s+", " ", shown).replace("( ", "(").replace(", )", ")"), function.__doc__)
            )
    return made


# Nodes


class Reference(SphinxDirective):
    """The entries of some modules; without an argument, the list of all names."""

    required_arguments = 0
    optional_arguments = 100
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        every = modules()
        if not self.arguments:
            return [self.contents(every)]
        made: list[nodes.Node] = []
        for module in " ".join(self.arguments).split():
            if module not in every:
                logger.warning(
                    "flowlib has no public names in a module %r", module, location=self.get_location()
                )
                continue
            self.env.note_dependency(str(FOLDER / f"{module}.py"))
            title = nodes.title("", "", nodes.literal(module, module, classes=["module"]))
            section = nodes.section(
                "", title, ids=[f"fl-{module}"], names=[f"flowlib.{module}"], classes=["module"]
            )
            self.register(f"flowlib.{module}", "data", section)  # as modules, Sphinx would want more of them
            summary = blocks(import_module(f"flowlib.{module}").__doc__ or "")
            section += self.text(summary, "")
            section += [self.entry(module, name, node) for name, node in every[module].items()]
            made.append(section)
        return made

    def contents(self, every: dict[str, dict[str, ast.stmt]]) -> nodes.Element:
        listing = nodes.definition_list(classes=["flowlib-names"])
        for module, public in every.items():
            term = nodes.term("", "", reference(f"flowlib.{module}", module))
            names = nodes.paragraph()
            for name in public:
                names += [nodes.Text(" ")] * bool(names.children) + [reference(f"flowlib.{name}", name)]
            listing += nodes.definition_list_item("", term, nodes.definition("", names))
        return listing

    def register(self, name: str, kind: str, node: nodes.Element) -> None:
        self.env.get_domain("py").note_object(name, kind, node["ids"][0], location=node)  # type: ignore[attr-defined]

    def entry(self, module: str, name: str, node: ast.stmt) -> nodes.section:
        title = nodes.title("", "", nodes.literal("", f"fl.{name}"))
        section = nodes.section(
            "", title, ids=[f"fl.{name}"], names=[f"fl.{name}"], classes=["entry-of-flowlib"]
        )
        kinds = {ast.FunctionDef: "function", ast.ClassDef: "class"}
        self.register(f"flowlib.{name}", kinds.get(type(node), "data"), section)
        shown = signature(name, node)
        section += nodes.literal_block(shown, shown, language="python", classes=["signature"])
        section += self.text(blocks(documentation(module, name, node)), name)
        methods = nodes.definition_list(classes=["methods"])
        for key, declared, text in members(name):
            term = nodes.term("", "", nodes.literal(declared, declared), ids=[f"fl.{name}.{key}"])
            self.register(f"flowlib.{name}.{key}", "method", term)
            methods += nodes.definition_list_item(
                "", term, nodes.definition("", *self.text(blocks(text), name))
            )
        if methods.children:
            section += [nodes.rubric("", "Methods"), methods]
        return section

    def text(self, told: list[Block], name: str) -> list[nodes.Element]:
        made: list[nodes.Element] = []
        for block in told:
            if block.kind == "prose":
                made.append(nodes.paragraph("", "", *self.prose(block.text, name)))
            elif block.kind == "example":
                made.append(nodes.literal_block(block.text, block.text, language="pycon"))
            elif block.kind == "block":
                made += displayed(block.text)
            else:
                made += self.items(block, name)
        return made

    def items(self, block: Block, name: str) -> list[nodes.Element]:
        made: list[nodes.Element] = [nodes.rubric("", block.kind)]
        listing = nodes.definition_list(classes=["arguments"])
        for names, text in block.items:
            paragraph = nodes.paragraph("", "", *self.prose(text, name))
            if not names:
                made.append(paragraph)
                continue
            term = nodes.term()
            for one in names.split(", "):
                term += [nodes.Text(", ")] * bool(term.children) + [nodes.literal(one, one)]
            listing += nodes.definition_list_item("", term, nodes.definition("", paragraph))
        return made + [listing] * bool(listing.children)

    def prose(self, text: str, name: str) -> list[nodes.Node]:
        made: list[nodes.Node] = []
        for kind, shown, target in pieces(text):
            if kind == "code":
                head = re.match(r"[A-Za-z_][\w.]*", shown)
                own = f"{name}.{shown}"
                if name and shown.isidentifier() and shown in {key for key, *_ in members(name)}:
                    made.append(reference(f"flowlib.{own}", shown))
                elif head and (found := resolved(head[0])):
                    made.append(reference(found, shown))
                else:
                    made.append(nodes.literal(shown, shown))
            elif kind == "math":
                made.append(nodes.math(shown, shown))
            elif kind == "work":
                made.append(self.cited(shown, target))
            elif kind == "label":
                made.append(derivation(target, self.env.docname))
            else:
                made.append(nodes.Text(shown))
        return made

    def cited(self, shown: str, key: str) -> work:
        """A mention of a work, which puts it into the bibliography too."""
        node = work("", shown, key=key, ids=[f"cited-{self.env.new_serialno('cited')}"])
        domain: Any = self.env.get_domain("cite")
        targets = list(parse_citation_targets(key))
        domain.citation_refs.append(CitationRef(node["ids"][0], self.env.docname, self.lineno, targets))
        return node


def displayed(text: str) -> list[nodes.Element]:
    """The formulas of an indented block, a line each; code where it is none."""
    try:
        rows = formulas.display(text)
        for row in rows:
            mathematics.render(mathematics.one_formula(row), True)
    except ValueError:
        return [nodes.literal_block(text, text, language="python" if "with " in text else "none")]
    return [
        nodes.math_block(row, row, nowrap=False, number=None, label=None, classes=["row"]) for row in rows
    ]


def reference(target: str, shown: str) -> addnodes.pending_xref:
    """Code that leads to an entry."""
    return addnodes.pending_xref(
        "",
        nodes.literal(shown, shown, classes=["flowlib"]),
        refdomain="py",
        reftype="obj",
        reftarget=target,
        refexplicit=True,
        refwarn=True,
    )


def derivation(label: str, docname: str) -> addnodes.pending_xref:
    """A theorem or an equation of a chapter, by its label."""
    domain, kind = ("math", "eq") if label.startswith("eq-") else ("prf", "ref")
    inner = nodes.inline(label, label)
    return addnodes.pending_xref(
        "",
        inner,
        refdomain=domain,
        reftype=kind,
        reftarget=label,
        refexplicit=False,
        refwarn=True,
        refdoc=docname,
    )


# Links


def resolved(dotted: str) -> str:
    """The entry that a dotted name leads to, `flowlib.odeint` or `flowlib.Flow.log_prob`; empty if there is none."""
    parts = dotted.split(".")
    if parts[0] in ("fl", "flowlib"):
        parts = parts[1:]
        if parts and parts[0] in FILES:
            if len(parts) == 1 or parts[1] not in NAMES:
                return f"flowlib.{parts[0]}" if len(parts) == 1 and parts[0] in modules() else ""
            parts = parts[1:]
    if not parts or parts[0] not in NAMES:
        return ""
    if len(parts) > 1 and parts[1] in {key for key, *_ in members(parts[0])}:
        return f"flowlib.{parts[0]}.{parts[1]}"
    if (
        len(parts) > 1
        and not hasattr(getattr(flowlib, parts[0]), parts[1])
        and not fields(parts[0], parts[1])
    ):
        return ""
    return f"flowlib.{parts[0]}"


FILES = {file.stem for file in FOLDER.glob("*.py")} - {"__init__"}


def fields(name: str, attribute: str) -> bool:
    return attribute in getattr(getattr(flowlib, name), "__annotations__", {})


def imported(doctree: nodes.document) -> set[str]:
    """The names that the code of a chapter imports from flowlib."""
    found: set[str] = set()
    for block in doctree.findall(nodes.literal_block):
        if "from flowlib" not in block.astext():
            continue
        try:
            tree = ast.parse(block.astext())
        except SyntaxError:
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "flowlib":
                found |= {alias.name for alias in node.names if not alias.asname}
    return found & NAMES


CODE = re.compile(r"((?:fl|flowlib)\.)?([A-Za-z_][\w.]*)(?=$|\()")


def link(app: Sphinx, doctree: nodes.document) -> None:
    """Turn inline code that names something of flowlib into links; warn of what flowlib does not have."""
    notebook = app.env.doc2path(app.env.docname).endswith(".ipynb")
    known = imported(doctree) if notebook else NAMES
    for code in list(doctree.findall(nodes.literal)):
        text = code.astext()
        found = CODE.match(text)
        parents = (nodes.reference, addnodes.pending_xref, nodes.title, nodes.term)
        if not found or isinstance(code.parent, parents) or "flowlib" in code["classes"]:
            continue
        prefix, dotted = found[1] or "", found[2].rstrip(".")
        if prefix or dotted.split(".")[0] in known:
            if target := resolved(prefix + dotted):
                code.replace_self(reference(target, text))
            elif (prefix and not re.fullmatch(r"\w*", dotted.removeprefix("__version__") or "x")) or (
                prefix and not hasattr(sys.modules["flowlib"], dotted.split(".")[0])
            ):
                near = difflib.get_close_matches(dotted, sorted(NAMES), n=1)
                hint = f"; is {prefix}{near[0]} meant?" if near else ""
                logger.warning("flowlib has no %s%s%s", prefix, dotted, hint, location=code, type="flowlib")


def lead(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Let mentions of works lead to the bibliography."""
    domain: Any = app.env.get_domain("cite") if "cite" in app.env.domains else None
    places = {one.key: one for one in domain.citations} if domain else {}
    for node in list(doctree.findall(work)):
        shown: nodes.Element = nodes.inline("", node.astext())
        if place := places.get(node["key"]):
            to, where = place.bibliography_key.docname, place.citation_id
            shown = make_refnode(app.builder, docname, to, where, shown)
        shown["ids"] = list(node["ids"])
        node.replace_self(shown)


def complete(app: Sphinx, env: BuildEnvironment) -> None:
    """Warn of public names that no page has; a book that has no reference at all may do without."""
    objects = env.get_domain("py").objects  # type: ignore[attr-defined]
    if any(name.startswith("flowlib.") for name in objects):
        for name in flowlib.__all__:
            if f"flowlib.{name}" not in objects:
                logger.warning("no page of the reference has flowlib.%s: add its module to one", name)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_node(work)
    app.add_directive("flowlib", Reference)
    app.connect("doctree-read", link)
    app.connect("env-check-consistency", complete)
    app.connect("doctree-resolved", lead)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
