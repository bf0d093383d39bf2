"""Where metrics go: one file for each destination, chosen by name in `megatron/components.py`."""
