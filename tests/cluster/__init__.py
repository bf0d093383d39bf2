"""Clusters for tests: hosts on one machine that see nothing of it but its files, and the programs real clusters start jobs with."""
