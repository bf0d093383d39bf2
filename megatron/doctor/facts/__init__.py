"""What is the case: on this machine or the one a child process runs on. Gathered, not judged; without torch."""
