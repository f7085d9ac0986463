"""As much of a Drone server as one pipeline takes, for nix/tests/vm.nix.

usage: drone-server.py PORT SECRET PIPELINE

Gives the first stage that an exec runner asks for the pipeline in the file PIPELINE, prints its steps'
output, and ends with 0 if it succeeded. It has no repository: the pipeline must disable the clone step. It
speaks the runner's side of Drone's protocol (client/http.go of github.com/drone/runner-go v1.3), for one
runner, and keeps nothing. It is no Drone server in any other way.
"""

import base64
import http.server
import json
import sys

OVER = ("success", "failure", "error", "killed", "declined", "skipped")


def main(port, secret, path):
    with open(path, "rb") as f:
        pipeline = base64.b64encode(f.read()).decode()
    stage = {"id": 1, "build_id": 1, "number": 1, "name": "vm", "kind": "pipeline", "type": "exec", "status": "pending"}
    stage |= {"os": "linux", "arch": "amd64", "version": 1, "created": 1, "updated": 1}
    detail = {
        "build": {
            "id": 1,
            "number": 1,
            "event": "custom",
            "status": "pending",
            "ref": "refs/heads/main",
            "source": "main",
            "target": "main",
        },
        "stage": stage,
        "repository": {"id": 1, "namespace": "vm", "name": "recipes", "slug": "vm/recipes", "timeout": 60},
        "config": {"data": pipeline},
        "system": {"proto": "http", "host": f"127.0.0.1:{port}"},
        "secrets": [],
    }

    pending = [stage]  # a runner asks from several threads at once

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "null")
            if self.headers.get("X-Drone-Token") != secret:
                self.answer(401)
            elif self.path == "/rpc/v2/stage" and pending:
                pending.pop()
                self.answer(200, stage)
            elif self.path.startswith("/rpc/v2/stage/1?machine="):
                self.answer(200, stage)
            elif self.path.endswith("/logs/upload"):
                print("".join(line["out"] for line in body), end="", flush=True)
                self.answer(200)
            elif self.path.endswith(("/ping", "/logs/batch")):
                self.answer(200)
            else:  # no more stages, nothing cancelled: the runner asks again in ten seconds
                self.answer(204)

        def do_GET(self):
            self.answer(200, detail)

        def do_PUT(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path.startswith("/rpc/v2/stage/"):
                for number, step in enumerate(body.get("steps") or [], 1):
                    step["id"] = step.get("id") or number
                stage.update(body)
            body["version"] = body.get("version", 0) + 1
            self.answer(200, body)

        do_PATCH = do_PUT

        def answer(self, status, body=None):
            data = b"" if body is None else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        server.timeout = 1
        while stage["status"] not in OVER:
            server.handle_request()
    print(f"the stage ended with {stage['status']}: {stage.get('error', '')}", file=sys.stderr)
    return 0 if stage["status"] == "success" else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2], sys.argv[3]))
