"""A relay between a client and the robot that can be cut (all that comes is kept) and put back."""

from __future__ import annotations

import select
import socket
import threading
import time


class Cable:
    """Listens on a free port of this machine and passes bytes to and from another one. Close it in the end."""

    def __init__(self, port: int) -> None:
        self.whole = True
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._ends: dict[socket.socket, socket.socket] = {}
        self._running = True
        self._thread = threading.Thread(target=self._relay, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends all connections."""
        self._running = False
        self._thread.join()
        for end in (self._listener, *self._ends):
            end.close()

    def _relay(self) -> None:
        while self._running:
            if not self.whole:
                time.sleep(0.005)  # bytes wait in the sockets, as on a link that stalls
                continue
            for end in select.select([self._listener, *self._ends], [], [], 0.01)[0]:
                if end is self._listener:
                    near, far = end.accept()[0], socket.create_connection(("127.0.0.1", self._to))
                    self._ends |= {near: far, far: near}
                elif end in self._ends:
                    self._pass(end)

    def _pass(self, end: socket.socket) -> None:
        other = self._ends[end]
        try:
            data = end.recv(65536)
            if data:
                other.sendall(data)
                return
        except OSError:
            pass
        for gone in (end, other):
            self._ends.pop(gone, None)
            gone.close()
