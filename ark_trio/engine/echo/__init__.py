"""The scripted engine: no model, every behaviour on demand."""
