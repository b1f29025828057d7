"""Searches replayed on recorded curves, in simulated time."""
