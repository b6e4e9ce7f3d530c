"""The one table of colors: every role keeps its color through the whole book.

Each color has a contrast of at least 4.5 : 1 on its page and is told apart by the color-blind (the palette
starts from Okabe and Ito's). matplotlib figures, explorables and the book's style sheet all read this table.
"""

from __future__ import annotations

LIGHT = {
    "source": "#0072B2",  # x_0, the source distribution
    "data": "#B85500",  # x_1, the data distribution
    "path": "#8A5FA8",  # paths, trajectories, couplings
    "model": "#00805C",  # the learned field
    "truth": "#333333",  # exact, closed-form quantities
    "error": "#B3261E",  # errors and failures
    "muted": "#6B7280",  # grids and everything that steps back
    "ink": "#1F2328",  # text and axes
    "page": "#FFFFFF",  # the background a figure is drawn on
}
DARK = {
    "source": "#56B4E9",
    "data": "#F0A13A",
    "path": "#C9A0E0",
    "model": "#3CCB9C",
    "truth": "#E6E6E6",
    "error": "#FF8A80",
    "muted": "#9CA3AF",
    "ink": "#E6E6E6",
    "page": "#121212",
}


def hue(t: float) -> str:
    """From the color of x_0 at t = 0 over that of the path to that of x_1 at t = 1, as "#rrggbb"."""
    start, end = ("source", "path") if t < 0.5 else ("path", "data")
    share = 2 * t - (t >= 0.5)
    pairs = ((int(LIGHT[role][i : i + 2], 16) for role in (start, end)) for i in (1, 3, 5))
    return "#" + "".join(f"{round(a + share * (b - a)):02x}" for a, b in pairs)


def css(scope: str) -> str:
    """CSS that defines `--flow-ROLE` for `scope`, light by default and dark where the page says it is dark.

    The page may be the book (`data-theme`), JupyterLab (`data-jp-theme-light`), Colab (`theme`) or VS Code
    (`vscode-dark`); a page that says nothing is light, so that a figure always sits on the paper it was drawn for.
    """

    def rule(colors: dict[str, str]) -> str:
        return "".join(f"--flow-{role}:{color};" for role, color in colors.items())

    dark_pages = (
        "html[data-theme=dark]",
        "html[theme=dark]",
        "body[data-jp-theme-light=false]",
        "body.vscode-dark",
    )
    dark = ",".join(f"{page} {scope}" for page in dark_pages)
    # paper is light, whatever the screen was
    return f"{scope}{{color-scheme:light;{rule(LIGHT)}}}@media screen{{{dark}{{color-scheme:dark;{rule(DARK)}}}}}"
