"""Corpora by name: where the text of a training run comes from, and how it becomes an indexed dataset."""
