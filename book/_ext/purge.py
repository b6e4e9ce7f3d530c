"""Leave out of a style sheet what no page can use.

A selector stays if every class, id, tag and attribute in it occurs in the pages or in a script that could add it
(`Words`). That keeps too much rather than too little: inside `:not()`, `:is()` and their like nothing is asked.
Then custom properties that nobody reads, animations that nobody starts and fonts that nobody names leave too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import tinycss2
from tinycss2.ast import AtRule, QualifiedRule

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

WORD = re.compile(r"[A-Za-z_][\w-]*")
TAG = re.compile(r"<([a-z][\w-]*)((?:\s+[^\s=>/]+(?:=(?:\"[^\"]*\"|'[^']*'|[^\s>]*))?)*)", re.IGNORECASE)
ATTRIBUTE = re.compile(r"([^\s=]+)(?:=(\"[^\"]*\"|'[^']*'|\S+))?")
CODE = re.compile(r"<(script|style)\b[^>]*>(.*?)</\1>", re.DOTALL | re.IGNORECASE)
PROPERTY = re.compile(r"--[\w-]+")
NESTED = {"media", "supports", "layer", "container"}


@dataclass
class Words:
    """What pages and scripts hold: tags and attributes (lower case), classes and ids, and names of CSS variables."""

    tags: set[str] = field(default_factory=lambda: {"html", "body"})
    names: set[str] = field(default_factory=set)
    attributes: set[str] = field(default_factory=set)
    properties: set[str] = field(default_factory=set)

    def read_page(self, html: str) -> None:
        """Add what an HTML page uses, its inline scripts and styles included."""
        for code in CODE.finditer(html):
            self.read_script(code.group(2))
        self.properties.update(PROPERTY.findall(html))
        for tag, attributes in set(TAG.findall(html)):
            self.tags.add(tag.lower())
            for name, value in ATTRIBUTE.findall(attributes):
                self.attributes.add(name.lower())
                if name.lower() in ("class", "id"):
                    self.names.update(value.strip("\"'").split())

    def read_script(self, code: str) -> None:
        """Add every word of a script: it may become a class, an id, a tag or an attribute."""
        words = set(WORD.findall(code))
        self.names |= words
        self.tags |= {word.lower() for word in words}
        self.attributes |= {word.lower() for word in words}
        # `element.dataset.someWord` is the attribute data-some-word
        self.attributes |= {"data-" + re.sub(r"[A-Z]", r"-\g<0>", word).lower() for word in words}
        self.properties.update(PROPERTY.findall(code))

    def sorted(self) -> list[list[str]]:
        """All of it in a fixed order, to be compared with another time's."""
        return [sorted(each) for each in (self.tags, self.names, self.attributes, self.properties)]

    def allow(self, selector: list[Any]) -> bool:
        """Whether the page can hold something that this selector, a list of CSS tokens, asks for."""
        before = ""
        for token in selector:
            if token.type == "ident":
                if before == "." and token.value not in self.names:
                    return False
                if before not in (".", ":") and token.lower_value not in self.tags:
                    return False
            elif token.type == "hash" and token.value not in self.names:
                return False
            elif token.type == "[] block":
                asked = next((part.lower_value for part in token.content if part.type == "ident"), None)
                if asked is not None and asked not in self.attributes:
                    return False
            before = token.value if token.type == "literal" else ""
        return True


def split(tokens: list[Any]) -> Iterator[list[Any]]:
    """The parts of a list of tokens between its top-level commas."""
    part: list[Any] = []
    for token in tokens:
        if token.type == "literal" and token.value == ",":
            yield part
            part = []
        else:
            part.append(token)
    yield part


def text(tokens: Iterable[Any]) -> str:
    """CSS of some tokens with runs of white space collapsed and comments left out."""
    return re.sub(r"\s+", " ", tinycss2.serialize([t for t in tokens if t.type != "comment"])).strip()


@dataclass
class Rule:
    """A rule that stayed: `head{body}` with its declarations, or nested rules, or neither (`@import`)."""

    head: str
    declarations: list[tuple[str, str]] | None = None
    rules: list[Rule] | None = None

    def css(self) -> str:
        if self.declarations is not None:
            return f"{self.head}{{{';'.join(f'{name}:{value}' for name, value in self.declarations)}}}"
        if self.rules is not None:
            return f"{self.head}{{{''.join(rule.css() for rule in self.rules)}}}"
        return self.head + ";"

    def flat(self) -> Iterator[Rule]:
        yield self
        for rule in self.rules or ():
            yield from rule.flat()

    def values(self) -> Iterator[str]:
        for rule in self.flat():
            yield from (value for _, value in rule.declarations or ())

    def empty(self) -> bool:
        return not self.declarations and not self.rules and (self.declarations, self.rules) != (None, None)


def declared(content: list[Any]) -> list[tuple[str, str]]:
    """The declarations of a block, (name, value) with `!important` in the value."""
    found = tinycss2.parse_blocks_contents(content, skip_comments=True, skip_whitespace=True)
    return [
        (part.name, text(part.value) + ("!important" if part.important else ""))
        for part in found
        if part.type == "declaration"
    ]


def read(nodes: list[Any], words: Words | None) -> list[Rule]:
    """The rules among parsed `nodes` that `words` allow; all of them if there are no words (inside keyframes)."""
    rules = []
    for node in nodes:
        if isinstance(node, QualifiedRule):
            kept = [text(part) for part in split(node.prelude) if words is None or words.allow(part)]
            if kept:
                rules.append(Rule(",".join(kept), declared(node.content)))
        elif isinstance(node, AtRule) and node.lower_at_keyword != "charset":
            head = f"@{node.at_keyword} {text(node.prelude)}".strip()
            if node.content is None:
                rules.append(Rule(head))
            elif node.lower_at_keyword in NESTED or node.lower_at_keyword.endswith("keyframes"):
                inner = tinycss2.parse_rule_list(node.content, skip_comments=True, skip_whitespace=True)
                rules.append(
                    Rule(head, rules=read(inner, words if node.lower_at_keyword in NESTED else None))
                )
            else:
                rules.append(Rule(head, declared(node.content)))
    return [rule for rule in rules if not rule.empty()]


def drop_unread_properties(rules: list[Rule], used: set[str]) -> None:
    """Remove, in place, custom properties that neither a page nor a remaining value reads, until none is left."""
    flat = [rule for top in rules for rule in top.flat() if rule.declarations]
    while True:
        read_somewhere = used | {
            name for rule in flat for _, value in rule.declarations or () for name in PROPERTY.findall(value)
        }
        before = sum(len(rule.declarations or ()) for rule in flat)
        for rule in flat:
            rule.declarations = [
                (name, value)
                for name, value in rule.declarations or ()
                if not name.startswith("--") or name in read_somewhere
            ]
        if before == sum(len(rule.declarations or ()) for rule in flat):
            return


def prune(rules: list[Rule]) -> list[Rule]:
    """The rules that are not empty, nested ones included."""
    for rule in rules:
        if rule.rules is not None:
            rule.rules = prune(rule.rules)
    return [rule for rule in rules if not rule.empty()]


def purge(css: str, words: Words) -> list[Rule]:
    """The rules of a style sheet that pages with these `words` can use, in their order."""
    rules = read(tinycss2.parse_stylesheet(css, skip_comments=True, skip_whitespace=True), words)
    drop_unread_properties(rules, words.properties)
    rules = prune(rules)
    values = " ".join(
        value for rule in rules if not rule.head.startswith("@font-face") for value in rule.values()
    )
    mentioned = set(WORD.findall(values))

    def needed(rule: Rule) -> bool:
        if rule.head.startswith("@font-face"):
            family = dict(rule.declarations or ())["font-family"].strip("\"'")
            return family in values
        if "keyframes " in rule.head:
            return rule.head.split()[-1] in mentioned
        return True

    return [rule for rule in rules if needed(rule)]
