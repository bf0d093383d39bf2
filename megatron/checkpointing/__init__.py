"""Checkpoints that are never half written and load into any layout: files, pieces of full tensors, saving, loading, retention."""
