"""Captioned shapes: the data, the exact detector and the text-to-image model of chapter 10."""
