"""Handwritten digits, networks that draw and read them, and what is measured of a drawn one (chapter 9).

    images, labels = digits()
    v = load("velocity")                        # v(x, t, label=labels), with NULL for "any digit"
    accuracy(drawn, labels), diversity(drawn, labels), frechet(drawn)

The networks are trained by benchmarks/digits.py, on all images but the last HELD_OUT.
"""

from flowcourse.handwritten.classifiers import Classifier, Judge
from flowcourse.handwritten.images import HELD_OUT, NULL, digits
from flowcourse.handwritten.measures import Accuracy, accuracy, diversity, frechet
from flowcourse.handwritten.shipped import NETWORKS, load, save

__all__ = [
    "HELD_OUT",
    "NETWORKS",
    "NULL",
    "Accuracy",
    "Classifier",
    "Judge",
    "accuracy",
    "digits",
    "diversity",
    "frechet",
    "load",
    "save",
]
