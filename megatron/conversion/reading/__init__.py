"""Files of other programs and of ours as full tensors under our names, read one at a time."""
