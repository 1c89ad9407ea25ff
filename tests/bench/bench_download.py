"""Speed of a download beside curl's, of one file from one server on loopback. Run: python tests/bench/bench_download.py.

TMPDIR=/dev/shm leaves out the disk.
"""

import http.server
import multiprocessing
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from medmim.download import transfer
from medmim.download.http import HttpClient
from medmim.download.transfer import RetryPolicy

ROUNDS = 7
SIZE = 500_000_000


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    path_of_file = ""

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        with open(self.path_of_file, "rb") as file:  # noqa: PTH123
            self.send_response(200)
            self.send_header("Content-Length", str(os.fstat(file.fileno()).st_size))
            self.send_header("ETag", '"one"')
            self.end_headers()
            self.wfile.flush()
            self.connection.sendfile(file)


def serve_file(path: str, connection: Connection) -> None:
    """A server of one file, in a process of its own, that copies nothing."""
    _Handler.path_of_file = path
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        connection.send(server.server_address[1])
        server.serve_forever()


def time_call(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        root, file = Path(folder), Path(folder, "file")
        file.write_bytes(os.urandom(SIZE))
        ours, theirs = multiprocessing.Pipe()
        server = multiprocessing.Process(target=serve_file, args=(str(file), theirs), daemon=True)
        server.start()
        base = f"http://127.0.0.1:{ours.recv()}"
        remote = HttpClient(base).make_remote("ours", f"{base}/file")

        def run_fetch() -> None:
            transfer.fetch_file(root, remote, RetryPolicy())

        def run_curl(then: str = "") -> None:
            subprocess.run(
                ["sh", "-c", f"curl --silent --output '{root}/curl' {base}/file {then}"], check=True, stdout=subprocess.DEVNULL
            )

        runs = []
        for _ in range(ROUNDS):  # in turn: on a shared machine only the ratio of what ran side by side says something
            runs.append((time_call(run_fetch), time_call(run_curl), time_call(lambda: run_curl(f"&& sha256sum '{root}/curl'"))))
        server.terminate()
    medians = [statistics.median(column) for column in zip(*runs, strict=True)]
    ratios = [statistics.median(run[i] / run[0] for run in runs) for i in (1, 2)]
    print(f"{SIZE / 1e6:.0f} MB on {os.cpu_count()} cores; ours, which hashes as it comes, {medians[0]:.2f} s")
    print(f"  curl                {medians[1]:.2f} s; ours is {ratios[0]:.2f} times as fast")
    print(f"  curl and sha256sum  {medians[2]:.2f} s; ours is {ratios[1]:.2f} times as fast")


if __name__ == "__main__":
    main()
