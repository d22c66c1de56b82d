"""Ties one client stream to one backend stream."""
