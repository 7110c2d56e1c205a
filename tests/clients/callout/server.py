"""A server that says who may connect, as docs/access.md describes it: SECRET. It prints its port, and each
question."""

import http.server
import json
import sys

secret = sys.argv[1]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        print(json.dumps(question, sort_keys=True), flush=True)
        if self.headers["Authorization"] != f"Bearer {secret}":
            return self.say(401, {})
        answer = {"allow": (question["user_name"], question["password"]) == ("ann", "right")}
        if answer["allow"]:
            answer |= {"user": "pump", "claims": {"site": "north"}}
        return self.say(200, answer)

    def say(self, status, answer):
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(f"port {server.server_port}", flush=True)
server.serve_forever()
