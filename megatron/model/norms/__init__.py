"""Normalisation layers, one a file; all take the same arguments."""
