"""The operations worth fusing: `reference.py` says in plain torch what each computes, and is what runs where nothing faster exists."""
