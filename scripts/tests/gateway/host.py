# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
"""A service of the host, for ports of the gateway that lead there: host.py DIRECTORY.

It is at DIRECTORY/app.sock and at a port of the loopback, which DIRECTORY/port says once it is there. A
connection begins with a line: after "up" the service reads to the end and then says how many bytes that
were, and their SHA-256; after "down SIZE" it sends so many; after "sum" it says the same of those that
it sent last.
"""

import hashlib
import os
import socket
import sys
import threading

last = ""


def told(data):
    return f"{len(data)} {hashlib.sha256(data).hexdigest()}\n"


def serve(connection):
    global last
    with connection, connection.makefile("rb") as stream:
        match stream.readline().split():
            case [b"up"]:
                connection.sendall(told(stream.read()).encode())
            case [b"down", size]:
                data = os.urandom(int(size))
                last = told(data)
                connection.sendall(data)
            case [b"sum"]:
                connection.sendall(last.encode())


def listen(listener):
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve, args=[connection], daemon=True).start()


def main(directory):
    app = socket.socket(socket.AF_UNIX)
    app.bind(f"{directory}/app.sock")
    app.listen()
    port = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=listen, args=[app], daemon=True).start()
    with open(f"{directory}/port.new", "w", encoding="ascii") as file:
        print(port.getsockname()[1], file=file)
    os.rename(f"{directory}/port.new", f"{directory}/port")
    listen(port)


main(sys.argv[1])
