"""The tables of captions, scenes, detector and model, which the page's scripts are told: they stand nowhere twice."""

from __future__ import annotations

from typing import Any

from flowcourse.shapes import captions, detector, scenes
from flowcourse.shapes.model import CONFIG, LATENT, TEXT_HEADS


def tables() -> dict[str, Any]:
    """All of them, for JSON; captions.js, detector.js and networks.js say which they read."""
    return {
        "words": captions.WORDS,
        "longest": captions.LONGEST,
        "shapes": {shape: captions.PLURALS[shape] for shape in scenes.SHAPES},
        "sizes": scenes.SIZES,
        "colors": scenes.COLORS,
        "backgrounds": scenes.BACKGROUNDS,
        "relations": captions.RELATIONS,
        "apart": captions.APART,
        "numbers": {word: n for n, word in captions.NUMBERS.items()},
        "side": scenes.SIDE,
        "different": detector.DIFFERENT,
        "speck": detector.SPECK,
        "core": detector.CORE,
        "off": detector.OFF,
        "overlap": detector.OVERLAP,
        "unknown": detector.UNKNOWN,
        "half": detector.HALF,
        "network": {
            "latent": LATENT,
            "patch": CONFIG.patch_size,
            "heads": {"text": TEXT_HEADS, "field": CONFIG.heads},
        },
    }
