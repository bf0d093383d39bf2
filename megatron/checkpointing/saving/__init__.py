"""From a running engine to a complete checkpoint (`save.py`): beside the training if asked, kept from other runs, uploaded, and pruned."""
