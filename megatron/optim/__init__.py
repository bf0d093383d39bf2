"""Optimizers, their parameter groups, and learning rates as pure functions of the iteration."""
