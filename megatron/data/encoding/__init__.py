"""From text to an indexed dataset: `texts.py` for what is in memory, `files.py` for files, cut into shards that workers write."""
