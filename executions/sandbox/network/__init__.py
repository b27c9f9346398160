"""A network of a sandbox's own: its namespace, its address, and the rules that it lives by."""
