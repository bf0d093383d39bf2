"""Self-attention: `base.py` projects and rotates, each other file is one way to compute the core."""
