"""A virtual machine with a kernel of its own, for what this one isn't set up for."""
