"""The story of a training run: set up, loop over steps, evaluate, save, stop."""
