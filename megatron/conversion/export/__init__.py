"""A model as a directory of Hugging Face transformers."""
