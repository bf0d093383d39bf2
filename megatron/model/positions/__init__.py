"""How the model learns where a token stands, one scheme a file."""
