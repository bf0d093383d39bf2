"""Starts a job: hosts and devices, one launcher a file (`commands(job)` is pure and printable), and the processes that run it."""
