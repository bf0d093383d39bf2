"""One file for each family of models in Hugging Face transformers: its settings and its tensors as tables, read in both directions."""
