"""Running a command of an image inside gVisor: a library of its own, without Django."""
