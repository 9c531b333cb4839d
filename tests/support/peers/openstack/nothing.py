# SPDX-License-Identifier: Apache-2.0
"""nothing.py PORT: a Neutron that has nothing, which is all that Nova asks of it for a server without networks."""
import http.server
import json
import sys


class Nothing(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        kind = self.path.split("?")[0].rstrip("/").rsplit("/", 1)[-1].removesuffix(".json").replace("-", "_")
        body = json.dumps({kind: []}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Nothing).serve_forever()
