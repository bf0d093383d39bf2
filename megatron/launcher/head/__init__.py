"""The head of a job, in deepy.py: waits for the agents, starts the ranks, decides what a failure or a signal means, tells the cause once."""
