"""An HTTP server on a free loopback port, in its own threads."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Listener:
    """Calls `handle` with the request handler of each GET, POST and DELETE."""

    def __init__(self, handle):
        class Handler(BaseHTTPRequestHandler):
            def dispatch(self):
                handle(self)

            do_GET = do_POST = do_DELETE = dispatch

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):
                """Clients disconnect at their time-outs, which is no error."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05})
        self.thread.start()

    def close(self):
        if self.thread.is_alive():
            self.server.shutdown()
            self.server.server_close()
            self.thread.join()
