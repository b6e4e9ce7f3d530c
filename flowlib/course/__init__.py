"""What a chapter needs beside the mathematics: claims, budgets, exercises that grade themselves, live labs."""

from flowlib.course.budgets import budget, device, generator
from flowlib.course.claims import ClaimError, claim
from flowlib.course.exercises import GradeError, check, hint
from flowlib.course.labs import lab, slider
from flowlib.course.pages import hints, quiz

__all__ = [
    "ClaimError",
    "GradeError",
    "budget",
    "check",
    "claim",
    "device",
    "generator",
    "hint",
    "hints",
    "lab",
    "quiz",
    "slider",
]
