"""A TCP proxy in front of a server that cuts every connection after so many bytes of the answer."""

import select
import socket
import threading
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit


class CuttingProxy:
    """`cuts` counts the answers that were broken off."""

    def __init__(self, url: str, after_bytes: int) -> None:
        parts = urlsplit(url)
        self._server = (parts.hostname or "", parts.port or 80)
        self._after = after_bytes
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept)]
        self.cuts = 0
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed: the end
                return
            self._threads.append(thread := threading.Thread(target=self._relay, args=(client,)))
            thread.start()

    def _relay(self, client: socket.socket) -> None:
        left = self._after
        with client, socket.create_connection(self._server) as server:
            while True:
                for side in select.select([client, server], [], [])[0]:
                    try:
                        data = side.recv(min(4096, left) if side is server else 4096)
                        (server if side is client else client).sendall(data)
                    except OSError:
                        return
                    if not data:
                        return
                    left -= len(data) if side is server else 0
                if left <= 0:
                    self.cuts += 1
                    return

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(30)
