"""Training without DeepSpeed: weights, gradients and optimizer states in flat buffers, exchanged while the backward pass runs."""
