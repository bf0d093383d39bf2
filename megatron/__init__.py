"""Train large language models from a config file: configuration, launcher, data, model, engine, training loop, generation."""
