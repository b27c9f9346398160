"""`boxer`, the command line client; it knows the server by its HTTP API alone."""
