"""Checkpoints in a store behind a URL (S3, GCS, ...): read by ranges, written through a staging directory, the manifest last."""
