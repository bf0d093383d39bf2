"""Models by name: directories here, and the Hugging Face Hub."""
