"""The server with its default options, as a Twisted application file: `twistd -ny kv.tac`.

Use `twistd -n kvtwisted` to give options. The environment (`KV_HTTP_PORT` and so on) is read in both cases.
"""

from twisted.application.service import Application

from kvtwisted.tap import Options, makeService

options = Options()
options.parseOptions([])

application = Application("kvtwisted")
makeService(options).setServiceParent(application)
