"""What may lie where a file is expected."""

import os
import socket
from pathlib import Path


def make_file(path: Path) -> None:
    path.touch()


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_device(path: Path) -> None:
    os.mknod(path, 0o20666, os.makedev(1, 3))


def make_socket(path: Path) -> None:
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.close()
