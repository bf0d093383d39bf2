"""The configuration in words: where values come from, what old files mean here, the reference page and the editors' schema."""
