"""One file a launcher: the commands that start an agent on every machine."""
