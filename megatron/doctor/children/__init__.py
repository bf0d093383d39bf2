"""Programs that the doctor starts: what imports torch, and what runs on other machines."""
