"""The front page: what counts as a word of the main line, and a map whose arrows cross no box."""

from __future__ import annotations

import re
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import chapter_map
import front
import pytest
from docutils import nodes

NEEDS: dict[int, list[int]] = {
    1: [], 2: [1], 3: [2], 4: [1], 5: [4], 6: [4], 7: [5, 6], 8: [7], 9: [6], 10: [8, 9]
}  # fmt: skip


def section(title: str, *children: nodes.Node) -> nodes.section:
    return nodes.section("", nodes.title("", title), *children)


def test_words_are_those_of_a_first_reading() -> None:
    formula = nodes.paragraph("", "with ", nodes.math("", r"x_0 + y"), nodes.Text(" in it"))  # 4 words
    skipped = [
        nodes.math_block("", "a = b"),
        nodes.container("", nodes.literal_block("", "code here"), nb_element="cell_code"),
        nodes.admonition("", nodes.paragraph("", "a folded solution"), classes=["dropdown"]),
        nodes.raw("", "<p>output</p>", format="html"),
        nodes.comment("", "to ourselves"),
        section("Second reading: more", nodes.paragraph("", "more of it")),
        section("Exercises", nodes.paragraph("", "do it")),
        section("Further reading", nodes.paragraph("", "a book")),
    ]
    kept = section("A title", nodes.paragraph("", "One, two."), formula, *skipped)  # 2 + 2 + 4
    document: Any = nodes.document(None, None)
    document += kept
    assert front.words(document) == 8
    skipped[0].replace_self(nodes.paragraph("", "and five words more here"))
    assert front.words(document) == 13


@pytest.mark.parametrize("last", range(1, 11))
def test_arrows_lead_down_and_pass_no_box(last: int) -> None:
    needs = {n: before for n, before in NEEDS.items() if n <= last}
    boxes, ways = chapter_map.lay_out(needs)
    assert len(ways) == sum(map(len, needs.values())) and len(set(boxes.values())) == last
    rows = {row: sorted(x for x, r in boxes.values() if r == row) for _, row in boxes.values()}
    for columns in rows.values():  # boxes of a row do not touch
        gaps = [b - a for a, b in pairwise(columns)]
        assert all(gap * chapter_map.WIDTH > chapter_map.BOX for gap in gaps)
    for way in ways:
        assert [row for _, row in way] == list(range(int(way[0][1]), int(way[-1][1]) + 1))
        for place in way[1:-1]:
            apart = [abs(x - place[0]) for x, row in boxes.values() if row == place[1]]
            assert min(apart) * chapter_map.WIDTH > chapter_map.BOX / 2


def test_the_map_is_a_picture_of_links_and_says_what_builds_on_what() -> None:
    titles = {n: f"Chapter <{n}>" for n in NEEDS}
    made = chapter_map.svg(NEEDS, titles, {n: f"{n}.html" for n in NEEDS}, dict.fromkeys(NEEDS, "9 min"))
    assert re.findall(r'<a href="(\d+)\.html"', made) == [str(n) for n in NEEDS]
    assert "10 builds on 8 and 9" in made and "<4>" not in made
    dashed = [int(n) for n in re.findall(r'href="(\d+)\.html" class=aside', made)]
    assert dashed == [2, 3]
    with pytest.raises(ValueError, match=r"chapter 2 can only build on earlier chapters, not on \[5\]"):
        chapter_map.layers({1: [], 2: [5]})


def test_the_sums_are_of_all_chapters_and_of_the_shortest_way_to_the_last() -> None:
    known = {
        n: front.Chapter(f"Title {n}", f"book/{n}", tuple(NEEDS[n]), 1000, 60.0, False) for n in range(1, 7)
    }
    everything, shortest = front.sums(known)
    assert "6,000 words, 30 min of reading and 6 min of running" in everything
    assert "to chapter 6 is 1, 4 and 6: 3,000 words, 15 min of reading and 3 min of running" in shortest
    assert "leaves chapters 2, 3 and 5 for later" in shortest
    known[4] = front.Chapter("Title", "book/4", (1,), 1000, None, False)  # no time is invented
    assert "running" not in front.sums(known)[0]


def test_durations_have_their_unit() -> None:
    assert [front.duration(s) for s in (48.2, 150, 9000)] == ["48 s", "2 min", "2.5 hours"]


def test_contents_for_a_page_are_there_only_with_the_page() -> None:
    def shown(*pages: str) -> list[str]:
        env = SimpleNamespace(
            docname="book/intro",
            metadata={"book/intro": {}},
            found_docs=set(pages),
            doc2path=lambda name, base: f"{name}.ipynb",
        )
        told: list[str] = []
        state = SimpleNamespace(
            document=SimpleNamespace(settings=SimpleNamespace(env=env)),
            nested_parse=lambda lines, offset, node: told.extend(lines),
        )
        machine: Any = SimpleNamespace(reporter=None, get_source_and_line=lambda number: ("intro.md", 1))
        content: Any = ["[go]({page})"]
        block = front.WhenPage("when-page", ["book/10-*"], {}, content, 1, 0, "", state, machine)  # type: ignore[arg-type]
        block.run()
        return told

    assert shown("book/intro", "book/1-flows") == []
    assert shown("book/intro", "book/10-scale") == ["[go](10-scale.ipynb)"]
