"""Every key a config may hold: one file a group of keys, the keys inside sections, and the types of their values."""
