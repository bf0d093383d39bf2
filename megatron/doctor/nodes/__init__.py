"""Examining the machines of a job: started through its launcher, asked over the network."""
