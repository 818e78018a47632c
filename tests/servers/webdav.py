"""A WebDAV server over a folder, on a free port of loopback, which it prints."""

import logging
import sys

from cheroot import wsgi
from wsgidav.fs_dav_provider import FilesystemProvider
from wsgidav.wsgidav_app import WsgiDAVApp

logging.disable(logging.CRITICAL)
user, password = sys.argv[2:4]
app = WsgiDAVApp({
    "provider_mapping": {"/": FilesystemProvider(sys.argv[1])},
    "simple_dc": {"user_mapping": {"*": {user: {"password": password}}}},
    "http_authenticator": {"accept_basic": True, "accept_digest": False, "default_to_digest": False},
    "logging": {"enable": False},
    "verbose": 0,
})  # fmt: skip
server = wsgi.Server(("127.0.0.1", 0), app, numthreads=16)
server.prepare()
print(server.bind_addr[1], flush=True)
server.serve()
