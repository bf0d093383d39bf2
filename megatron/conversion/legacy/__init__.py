"""Checkpoints that GPT-NeoX 1 and 2 wrote."""
