"""Cameras and servers of films on this machine, and connections that break."""

import io
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
from PIL import Image

Write = Callable[[bytes], None]


@contextmanager
def server(send: Callable[[Write], None], headers: dict[str, str], reset: bool) -> Iterator[str]:
    """host:port that answers every request by the headers and what `send` writes.

    reset: break the connection off then, instead of closing it.
    """

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            self.send_response(200)
            for header in headers.items():
                self.send_header(*header)
            self.end_headers()
            try:
                send(self.wfile.write)
            except OSError:  # the reader has gone
                return
            if reset:
                linger = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.connection.close()

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield f"127.0.0.1:{running.server_port}"
        finally:
            running.shutdown()


def camera(fps: float, count: int, silence: float = 0, reset: bool = False):
    """An MJPEG camera of `count` pictures; silence: seconds before the last half of them."""

    def send(write: Write) -> None:
        started = time.monotonic()
        for number in range(count):
            pause = silence if number >= count // 2 else 0
            time.sleep(max(0, started + number / fps + pause - time.monotonic()))
            picture = io.BytesIO()
            Image.fromarray(np.full((48, 64, 3), 20 + 9 * number, np.uint8)).save(picture, "JPEG")
            data = picture.getvalue()
            write(b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(data))
            write(data + b"\r\n")

    return server(send, {"Content-Type": "multipart/x-mixed-replace; boundary=frame"}, reset)


def film_server(data: bytes, share: float = 1.0, sized: bool = True, reset: bool = False):
    """Serves a film, or the first `share` of it. sized: tell how long it is."""
    headers = {"Content-Length": str(len(data))} if sized else {}
    return server(lambda write: write(data[: int(share * len(data))]), headers, reset)
