"""The state of the optimizer in checkpoints of GPT-NeoX, as DeepSpeed cut it over ranks."""
