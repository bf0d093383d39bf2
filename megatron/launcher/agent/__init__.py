"""The agent, one on every machine of a job: starts the ranks there, watches them, and tells deepy.py. `python -m megatron.launcher.agent`"""
