"""The three services in one terminal: `ark-trio up`."""
