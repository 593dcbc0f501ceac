"""The real things, for tests and for `make demo`: each starts on a free port, in a folder of its own, and never outlives us.

    gateway             the unmodified OpenClaw gateway          raw       an operator's WebSocket, to look at it
    model, directives   the echo model behind it                 clients   the users' command line and gateway-client
    identity_provider   a certified OpenID provider              sidecar   our own, as a user starts it
    fixtures            all of it, for pytest
    node                Node and npm packages, installed once    process, leash, driver   children that end with us

`python -m tests.stack --help` runs gateway, model and provider by hand.
"""
