"""A configuration made about a thousand times smaller that keeps its features and the kind of its layout."""
