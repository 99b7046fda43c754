#!/usr/bin/env python3
"""A client of the daemon for bulk objects (khamsin oob serve) with nothing but Python's own library.

    objects.py SOCKET ls
    objects.py SOCKET put FILE NAME WHO...
    objects.py SOCKET get NAME FILE
    objects.py SOCKET rm NAME

The protocol is JSON-RPC 2.0, one JSON value a line; docs/oob.md describes it.
"""
import json
import os
import socket
import sys


class Failed(Exception):
    """The daemon's answer was an error; kind is for programs."""

    def __init__(self, error):
        super().__init__(error["message"])
        self.kind = error["data"]["kind"]


class Objects:
    """A connection to a daemon, for one request after the other."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(path)
        self.lines = self.socket.makefile("r", encoding="utf-8")
        self.count = 0

    def call(self, method, progress=None, **params):
        """Makes a request and returns its result. progress(done, total) hears how far it is."""
        self.count += 1
        request = {"jsonrpc": "2.0", "id": self.count, "method": method}
        if params:
            request["params"] = params
        self.socket.sendall((json.dumps(request) + "\n").encode())
        for line in self.lines:
            answer = json.loads(line)
            if answer.get("method") == "progress":
                if progress:
                    progress(answer["params"]["done"], answer["params"]["total"])
            elif answer.get("error"):
                raise Failed(answer["error"])
            elif answer.get("id") == self.count:
                return answer.get("result")
        raise ConnectionError("the daemon has ended the connection")


def main(arguments):
    path, command, *rest = arguments
    objects = Objects(path)
    if command == "ls":
        for o in objects.call("ls"):
            print(o["name"], o["size"], len(o["holders"]), o["digest"])
    elif command == "put":
        file, name, *who = rest
        print(json.dumps(objects.call("put", name=name, path=os.path.abspath(file), to=who)))
    elif command == "get":
        name, file = rest
        print(json.dumps(objects.call("get", name=name, path=os.path.abspath(file), replace=True)))
    elif command == "rm":
        objects.call("rm", name=rest[0])
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    try:
        main(sys.argv[1:])
    except Failed as e:
        raise SystemExit(f"{e.kind}: {e}")
