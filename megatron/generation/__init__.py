"""Text from a trained model: sampling, cached decoding, and where prompts come from."""
