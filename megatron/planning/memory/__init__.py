"""What fills the memory of a device: weights, gradients and optimizer states under ZeRO, activations, and what would need less."""
