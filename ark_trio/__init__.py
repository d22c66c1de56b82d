"""ark-trio: an OpenAI-compatible gateway whose client and backend streams live and die together."""

__version__ = "0.1.0"
