"""Whether ours and Hugging Face transformers compute the same with the weights of a model."""
