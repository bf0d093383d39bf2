"""From a checkpoint into an engine or a module of any layout (`load.py`, `weights.py`): verified first, compared with the model, read in place."""
