"""Models of other programs, read and written: Hugging Face transformers, GPT-NeoX, Llama as Meta publishes it."""
