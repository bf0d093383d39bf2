"""Guards of a run: copies that differ, numbers that are none, spikes of the loss, ranks that hang. One file each; `guard.py` is their face."""
