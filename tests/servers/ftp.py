"""An FTP server over a folder, on a free port of loopback, which it prints."""

import logging
import sys

from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler
from pyftpdlib.servers import ThreadedFTPServer

logging.disable(logging.CRITICAL)
folder, user, password = sys.argv[1:4]
authorizer = DummyAuthorizer()
authorizer.add_user(user, password, folder, perm="elradfmwMT")


class Handler(FTPHandler):
    pass


Handler.authorizer = authorizer
server = ThreadedFTPServer(("127.0.0.1", 0), Handler)
server.max_cons = 256
server.max_cons_per_ip = 128
print(server.address[1], flush=True)
server.serve_forever()
