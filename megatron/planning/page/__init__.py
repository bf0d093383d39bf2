"""The page of `deepy.py plan`, a file a section or two."""
