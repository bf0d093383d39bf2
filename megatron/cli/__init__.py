"""What `deepy.py` can do, one file a command: run scripts, check and explain configs, plan runs, examine machines. Imports no torch."""
