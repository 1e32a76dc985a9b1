"""Poses as llama-server as far as a capture can see: health, completions as a stream, a graceful end.

Switches for faults: --ready-after S, --never-healthy, --crash-after N (requests), --ignore-sigterm, --exit CODE,
--spawn-child.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count as counter
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--host", default="127.0.0.1")
parser.add_argument("--ready-after", type=float, default=0.0)
parser.add_argument("--never-healthy", action="store_true")
parser.add_argument("--crash-after", type=int, default=0)
parser.add_argument("--ignore-sigterm", action="store_true")
parser.add_argument("--exit", type=int, default=0)
parser.add_argument("--spawn-child", action="store_true")
parser.add_argument("--token-s", type=float, default=0.002)
parser.add_argument("--api-key-file")
options = parser.parse_args()
key = Path(options.api_key_file).read_text().split()[0] if options.api_key_file else None
began = time.monotonic()
served = counter(1)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        healthy = not options.never_healthy and time.monotonic() - began >= options.ready_after
        if self.path == "/health":
            self.answer(
                200 if healthy else 503, {"status": "ok"} if healthy else {"error": {"message": "Loading model"}}
            )
        else:
            self.answer(404, {})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/tokenize":
            self.answer(200, {"tokens": list(body["content"])})
            return
        if key is not None and self.headers.get("Authorization") != f"Bearer {key}":
            self.answer(401, {"error": {"message": "Invalid API Key"}})
            return
        if options.crash_after and next(served) > options.crash_after:
            os.abort()
        self.send_response(200)
        self.end_headers()
        for _ in range(body["n_predict"]):
            time.sleep(options.token_s)
            self.event({"content": "x", "tokens": [1], "stop": False})
        count = len(body["prompt"])
        timings = {
            "cache_n": 0,
            "prompt_n": count,
            "prompt_ms": 1.0,
            "predicted_n": body["n_predict"],
            "predicted_ms": 2.0,
        }
        self.event({"content": "", "tokens": [], "stop": True, "id_slot": 0, "timings": timings})

    def event(self, value):
        self.wfile.write(f"data: {json.dumps(value)}\n\n".encode())
        self.wfile.flush()

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object):
        pass


def end(*_: object):
    sys.stderr.write("ending\n")
    sys.stderr.flush()
    os._exit(options.exit)


signal.signal(signal.SIGTERM, signal.SIG_IGN if options.ignore_sigterm else end)
if options.spawn_child:
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
server = ThreadingHTTPServer((options.host, options.port), Handler)
server.daemon_threads = True
server.serve_forever()
