"""What must hold between keys: one file a topic, one function a rule. A check raises `Conflict` with the keys and the fix."""
