"""Legal layouts of a model on a cluster: which there are, how fast each is, and which fit."""
