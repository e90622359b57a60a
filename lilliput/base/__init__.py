"""What every part of Lilliput rests on."""

__version__ = "0.2.0"
