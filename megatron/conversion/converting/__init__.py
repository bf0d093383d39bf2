"""The two converters: what they do, their command lines, and the report that they leave."""
