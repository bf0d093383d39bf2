"""Which data a run has read, in which order and how far: what a checkpoint records (`record.py`) and a resumed run compares (`changes.py`)."""
