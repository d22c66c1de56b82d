"""The HTTP door, and the only home of Quart."""
