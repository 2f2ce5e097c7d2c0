"""Ends with 0 if what listens on the fleet's socket answers /livez."""

import http.client
import socket
import sys

connection = http.client.HTTPConnection("fleet", timeout=5)
connection.sock = socket.socket(socket.AF_UNIX)
connection.sock.settimeout(5)
connection.sock.connect("/run/palyra/fleet.sock")
connection.request("GET", sys.argv[1])
sys.exit(connection.getresponse().status != 200)
