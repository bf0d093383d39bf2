"""Uploads of exported models to the Hugging Face Hub: what is checked before, the card, and the one commit that shows all of it at once."""
