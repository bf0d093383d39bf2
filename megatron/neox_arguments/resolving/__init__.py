"""From written values to finished arguments: types, derivation, checks, and every problem told at once."""
