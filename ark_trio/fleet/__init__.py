"""Decoders: which there are, which are well, which one takes a request."""
