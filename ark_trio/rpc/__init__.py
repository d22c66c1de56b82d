"""gRPC in Trio's flavour, and the one place where asyncio is spoken."""
