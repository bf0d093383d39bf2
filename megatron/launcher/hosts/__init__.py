"""Which machines and devices a job runs on: hostfiles, what a scheduler tells, and filters."""
