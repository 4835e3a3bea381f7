"""An HTTP server on a free loopback port, in threads of its own: what stands in for a peer, or in its way."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Listener:
    """Hands every GET, POST and DELETE to `handle`, as the standard library's handler of that request."""

    def __init__(self, handle):
        class Handler(BaseHTTPRequestHandler):
            def hand_over(self):
                handle(self)

            do_GET = do_POST = do_DELETE = hand_over

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):
                """Who asks hangs up at its time-out; nothing to report."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05})
        self.thread.start()

    def close(self):
        if self.thread.is_alive():
            self.server.shutdown()
            self.server.server_close()
            self.thread.join()
