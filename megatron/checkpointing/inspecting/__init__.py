"""What is in a checkpoint: its tensors one at a time, what is known of them, and of the run; comparing, verifying, one file of weights."""
