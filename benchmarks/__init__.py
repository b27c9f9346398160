"""What Boxer costs beside what it is made of; see README.md."""
