"""The decoder and prefiller services and their drivers."""
