"""Facts to findings: pure functions, each about one thing."""
