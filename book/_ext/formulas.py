r"""TeX for the formulas that docstrings hold in plain text, such as `x_t = (1 - t) x_0 + t x_1`.

The plain notation is that of flowlib: a space multiplies, `x_t` and `x_{k+1}` have indices, `x^2` and `S^-1` powers,
`|x|` is a norm and `<x, y>` an inner product, `E[x_1|x_t = x]` an expectation, `sum_i`, `int_0^1`, `grad`, `div`,
`sqrt(...)`, `min_j` and Greek letters are written out, and other words are words. Nothing is rearranged: a quotient
becomes a fraction only where that cannot change what is divided by what. What this notation does not cover raises
`Unsure`, and the caller leaves it as it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

GREEK = set(
    "alpha beta gamma delta epsilon eta theta lambda mu nu xi pi rho sigma tau phi chi psi omega".split()  # noqa: SIM905
)
FUNCTIONS = {name: "\\" + name for name in ["exp", "log", "sin", "cos", "tan", "tanh", "det", "min", "max"]}
FUNCTIONS |= {name: rf"\operatorname{{{name}}}" for name in ["div", "tr", "logit", "sign", "diag"]}
FUNCTIONS |= {name: rf"\operatorname*{{arg\,{name[3:]}}}" for name in ("argmin", "argmax")}
SUMS = {"sum": r"\sum", "int": r"\int"}
SIGNS = {"grad": r"\nabla", "partial": r"\partial", "infinity": r"\infty"}
RELATIONS = {"<=": r"\le", ">=": r"\ge", "!=": r"\ne", "->": r"\to", "<-": r"\leftarrow", "~": r"\sim"}
RELATIONS |= {sign: sign for sign in "=<>"}
# Words of two letters; other names as short are d and a variable.
SHORT = {"in", "of", "to", "is", "if", "or", "as", "at", "by", "no", "an", "on", "us"}
CLOSING = {"(": ")", "[": "]", "{": "}"}

TOKEN = re.compile(
    r"""(?P<gap>[ ]{2,}) | (?P<space>[ ]+) | `(?P<code>[^`]+)` | (?P<number>\d+(?:,\d{3})*(?:\.\d+)?|\.\d+)
    | (?P<word>[A-Za-z]{2,}'s\b|[A-Za-z]+(?:-[A-Za-z]{2,})+) | (?P<name>[A-Za-z]+) | (?P<dots>\.\.\.)
    | (?P<relation><=|>=|!=|->|<-|~|[=<>]) | (?P<sign>[-+/;:,.|()\[\]{}'^_])""",
    re.VERBOSE,
)


class Unsure(ValueError):
    """The text is no formula of the plain notation."""


@dataclass
class Part:
    """A piece of a formula: its TeX, what it is, and what its source was."""

    tex: str
    kind: str  # operand, function, sum, sign, relation, plus, slash, comma, bar, text, space, gap, or end
    source: str = ""
    tall: bool = False
    bare: str = ""  # of a group in parentheses, what is inside


def display(text: str) -> list[str]:
    """The TeX of a block, one formula a line. Raises `Unsure`."""
    return [formula(line, fractions=True) for line in text.strip("\n").split("\n")]


def formula(text: str, fractions: bool = False) -> str:
    """The TeX of one line. Raises `Unsure`."""
    line = re.sub(r"(?<=\w) +(=) ", r" \1 ", text.strip())  # equations below one another in columns
    reader = Reader(line, fractions)
    parts = reader.row("")
    if reader.token()[0] != "end" or not any(part.kind == "operand" for part in parts):
        raise Unsure(text)
    return reader.join(parts)


class Reader:
    """Reads one line from left to right, a group in brackets by a call of its own."""

    def __init__(self, line: str, fractions: bool) -> None:
        self.fractions = fractions
        self.tokens: list[tuple[str, str]] = []
        at = 0
        while at < len(line):
            found = TOKEN.match(line, at)
            if not found:
                raise Unsure(f"{line[at]!r} in {line!r}")
            kind, value = str(found.lastgroup), found[str(found.lastgroup)]
            inner = r"<(?=[^\s<>=][^<>]*[^\s<>]>)"  # an inner product, where a comparison would have spaces
            if value == "<" and re.match(inner, line[at:]) and re.search(r"(^|[\s(])$", line[:at]):
                kind, value = "sign", "\N{MATHEMATICAL LEFT ANGLE BRACKET}"
            elif value == ">" and self.angles():
                kind, value = "sign", "\N{MATHEMATICAL RIGHT ANGLE BRACKET}"
            self.tokens.append((kind, value))
            at = found.end()
        self.at = 0

    def angles(self) -> bool:
        """Whether an inner product is open."""
        values = [value for _, value in self.tokens]
        left, right = "\N{MATHEMATICAL LEFT ANGLE BRACKET}", "\N{MATHEMATICAL RIGHT ANGLE BRACKET}"
        return values.count(left) > values.count(right)

    def token(self, ahead: int = 0) -> tuple[str, str]:
        place = self.at + ahead
        return self.tokens[place] if place < len(self.tokens) else ("end", "")

    def row(self, until: str) -> list[Part]:
        """Parts up to the sign that closes a group, or to the end."""
        parts: list[Part] = []
        while (token := self.token())[0] != "end" and token[1] != until:
            parts.append(self.part(parts, until))
        return self.divided(parts) if self.fractions else parts

    def part(self, before: list[Part], until: str) -> Part:
        kind, value = self.token()
        self.at += 1
        if kind in ("space", "gap"):
            return Part("", kind)
        if kind == "relation":
            return Part(RELATIONS[value], "relation")
        if kind == "dots":
            return Part(r"\dots", "operand")
        if kind == "code":
            return Part(rf"\text{{\texttt{{{escaped(value)}}}}}", "operand")
        if kind == "word":
            return Part(escaped(value), "text")
        if value == "|":
            return self.bars(before, until)
        if kind == "name":
            return self.name(value, before)
        if kind == "number":
            return self.scripts(Part(value.replace(",", "{,}"), "operand"))
        if value in "([{\N{MATHEMATICAL LEFT ANGLE BRACKET}":
            return self.scripts(self.group(value))
        if value in "+-":
            return Part(value, "plus")
        if value == "/":
            return Part("/", "slash")
        if value in ",;:":
            return Part(value, "comma")
        if value == ".":
            spaced = bool(before) and before[-1].kind == "space" and self.token()[0] == "space"
            if spaced or not before:
                return Part(r"\cdot", "plus" if spaced else "operand")
            if self.token()[0] in ("end", "gap"):
                return Part(".", "comma")
        raise Unsure(f"{value!r}")

    def bars(self, before: list[Part], until: str) -> Part:
        """`|`: the end of a norm, the condition of a law, or the beginning of a norm with all that is in it."""
        spaced = bool(before) and before[-1].kind == "space"
        last = next((part for part in reversed(before) if part.kind != "space"), None)
        if last and last.kind == "operand" and not (spaced and self.token()[0] != "space"):
            return Part(r"\mid", "relation")
        inside = self.row("|")
        if self.token()[1] != "|" or not any(part.kind == "operand" for part in inside):
            raise Unsure("a bar without its partner")
        self.at += 1
        tall = any(part.tall for part in inside)
        left, right = (r"\left\lvert", r"\right\rvert") if tall else (r"\lvert", r"\rvert")
        return self.scripts(Part(f"{left} {self.join(inside)}{right}", "operand", tall=tall))

    def group(self, opening: str) -> Part:
        """What is between brackets, with them; braces do not show."""
        closing = CLOSING.get(opening, "\N{MATHEMATICAL RIGHT ANGLE BRACKET}")
        inside = self.row(closing)
        if self.token()[1] != closing:
            raise Unsure(f"{opening!r} without its partner")
        self.at += 1
        tex = self.join(inside)
        if opening == "{":
            return Part(f"{{{tex}}}", "operand", bare=tex)
        if opening not in CLOSING:
            opening, closing = r"\langle ", r"\rangle"
        tall = any(part.tall for part in inside)
        shown = rf"\left{opening}{tex}\right{closing}" if tall else f"{opening}{tex}{closing}"
        return Part(shown, "operand", tall=tall, bare=tex if opening == "(" else "")

    def name(self, name: str, before: list[Part]) -> Part:
        """A variable, a function, an operator or a word."""
        following = self.token()
        if name in SIGNS:
            return self.scripts(Part(SIGNS[name], "sign", name))
        if name in SUMS:
            return self.scripts(Part(SUMS[name], "sum", name, tall=self.fractions))
        if name == "sqrt" and following[1] == "(":
            self.at += 1
            inside = self.group("(")
            return Part(rf"\sqrt{{{inside.bare}}}", "operand", tall=inside.tall)
        if name in FUNCTIONS:
            part = self.scripts(Part(FUNCTIONS[name], "function", name))
            return self.applied(part) if self.token()[1] == "(" else part
        if name == "E" and (following[1] in "[_" or (following[0] == "space" and self.token(1)[1] == "|")):
            counted = following[1] == "_" and self.token(1)[0] == "number"  # E_1 and E_0 are variables
            return self.scripts(Part("E" if counted else r"\mathbb{E}", "operand"))
        if name == "N" and following[1] == "(":
            return self.scripts(Part(r"\mathcal{N}", "operand"))
        if name == "R" and following[1] == "^":
            return self.scripts(Part(r"\mathbb{R}", "operand"))
        if name == "a" and following[0] == "space" and self.prose(self.token(1)):
            return Part("a", "text")
        if variable := letter(name):
            if len(name) == 1 and following[0] == "number":  # t1, as Python names what formulas call t_1
                self.at += 1
                variable = f"{name}_{{{following[1]}}}"
            return self.scripts(Part(variable, "operand", name))
        if following[1] == "(":
            return self.scripts(Part(rf"\operatorname{{{name}}}", "operand", name))
        if len(name) == 2 and name not in SHORT:
            raise Unsure(name)
        if following[1] in ("_", "'", "^", "["):
            return self.scripts(Part(rf"\text{{{name}}}", "operand", name))
        return Part(name, "text", name)

    def prose(self, token: tuple[str, str]) -> bool:
        kind, value = token
        known = value in GREEK or value in FUNCTIONS or value in SUMS or value in SIGNS
        return kind in ("word", "code") or (kind == "name" and len(value) > 2 and not known)

    def applied(self, part: Part) -> Part:
        """A function with its argument in parentheses is whole."""
        self.at += 1
        argument = self.scripts(self.group("("))
        return Part(part.tex + argument.tex, "operand", part.source, part.tall or argument.tall)

    def scripts(self, part: Part) -> Part:
        """The part with its primes, indices, powers and, without a space between, arguments."""
        while True:
            value = self.token()[1]
            if value == "'":
                self.at += 1
                part.tex += "'"
            elif value in ("_", "^"):
                self.at += 1
                part.tex += f"{value}{{{self.script(value)}}}"
                part.bare = ""
            elif value in ("(", "[") and part.kind == "operand":
                self.at += 1
                argument = self.group(value)
                part = Part(part.tex + argument.tex, "operand", part.source, part.tall or argument.tall)
            else:
                return part

    def script(self, sign: str) -> str:
        kind, value = self.token()
        self.at += 1
        if value in ("{", "("):
            fractions, self.fractions = self.fractions, False
            inside = self.group(value)
            self.fractions = fractions
            return inside.bare
        if value == "-" and sign == "^":
            return "-" + self.script(sign)
        if kind == "number":
            after = self.token()
            if sign == "_" and after[0] == "name" and len(after[1]) == 1:  # x_0i
                self.at += 1
                return value + after[1]
            return value
        if kind != "name":
            raise Unsure(value)
        if value == "T" and sign == "^":
            return r"\top"
        small = len(value) == 2 and value not in GREEK  # a_ij
        tex = value if small else letter(value) or rf"\text{{{value}}}"
        while sign == "^" and self.token()[1] == "_":  # e^x_t is not written; x_i^2_j neither
            raise Unsure(value)
        return tex

    def divided(self, parts: list[Part]) -> list[Part]:
        """The parts with fractions where a quotient of two operands cannot be read in two ways."""
        made = list(parts)
        for place in [i for i, part in enumerate(made) if part.kind == "slash"][::-1]:
            left, right = place - 1, place + 1
            if (
                made[left].kind == made[right].kind == "space"
                if left > 0 and right + 1 < len(made)
                else False
            ):
                left, right = left - 1, right + 1
            if left < 0 or right >= len(made):
                raise Unsure("a quotient without its parts")
            above, below = made[left], made[right]
            if above.kind != "operand" or below.kind != "operand":
                continue
            rate = above.source.startswith("d") and below.source.startswith("d")  # dx/dt
            if rate or (self.free(made[:left]) and self.ends(made[right + 1 :])):
                over = r"\mathrm{d}" if rate and above.tex == "d" else above.bare or above.tex
                tex = rf"\frac{{{over}}}{{{below.bare or below.tex}}}"
                made[left : right + 1] = [Part(tex, "operand", tall=True)]
        return made

    def free(self, before: list[Part]) -> bool:
        """Whether what stands before a numerator multiplies it: then it may stand before the fraction too."""
        for part in reversed(before):
            if part.kind in ("function", "text", "sign", "slash"):
                return False
            if part.kind not in ("operand", "space"):
                return True
        return True

    def ends(self, after: list[Part]) -> bool:
        """Whether the denominator ends before what follows."""
        following = next((part for part in after if part.kind != "space"), None)
        return following is None or following.kind not in ("operand", "text", "slash")

    def join(self, parts: list[Part]) -> str:
        """The TeX of parts in a row, words set as words."""
        while parts and parts[-1].kind == "space":
            parts = parts[:-1]
        tex, text = "", ""
        for place, part in enumerate(parts):
            near = parts[place + 1] if place + 1 < len(parts) else None
            if part.kind == "text":
                text += part.tex
                continue
            if text and part.kind == "space" and near and near.kind in TIGHT | {"text"}:
                text += " "
                continue
            if text:
                tex, text = f"{tex}\\text{{{text}}}", ""
            if part.kind == "gap":
                tex += r"\qquad\allowbreak "
            elif part.kind == "space":
                spaced = near and near.kind == "text" and place and parts[place - 1].kind in TIGHT
                text += " " * bool(spaced)
                tex += "" if spaced else " "
            else:
                tex += part.tex + " " * bool(re.search(r"\\[A-Za-z]+$", part.tex))
        return (tex + (rf"\text{{{text}}}" if text else "")).strip()


TIGHT = {"operand", "sum", "function", "sign"}  # beside words, these need the space that a relation has


def letter(name: str) -> str:
    """The TeX of one letter, Latin or Greek, or of the differential of one; empty for other names."""
    if len(name) == 1:
        return name
    if name in GREEK:
        return "\\" + name
    rest = name[1:]
    if name[0] == "d" and (len(rest) == 1 or rest in GREEK) and name not in SHORT:
        return r"\mathrm{d}" + (rest if len(rest) == 1 else "\\" + rest)
    return ""


def escaped(text: str) -> str:
    return re.sub(r"([_%#&$])", r"\\\1", text)
