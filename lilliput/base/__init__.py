"""Foundations that every part of Lilliput uses."""

__version__ = "0.2.0"
