"""The private engine: checked, started with its environment, watched."""
