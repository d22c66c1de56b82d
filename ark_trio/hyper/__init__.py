"""hypercorn's Trio server with a bound on every wait for a client. Made for hypercorn 0.18.0."""
