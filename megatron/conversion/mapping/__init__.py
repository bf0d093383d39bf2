"""What a model is in our words and in those of `config.json`, and how its tensors are cut: pure functions, both ways."""
