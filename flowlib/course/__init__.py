"""What a chapter needs beside the mathematics: claims, budgets, exercises that grade themselves, live labs."""

from flowlib.course.budgets import budget, device, generator
from flowlib.course.claims import ClaimError, claim

__all__ = ["ClaimError", "budget", "claim", "device", "generator"]
