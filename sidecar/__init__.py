"""One process between clients and an OpenClaw gateway that nobody modified.

It answers four questions for every frame: who sent this, may they, where does it belong, and what did it cost.

    client ─► relay ─► decode ─► policy: may this principal call it? ─► namespace: adopt keys and agents
                                    │ no: error frame, audit               │ foreign: error frame, audit
                                    ▼                                      ▼
                               quota: does it start a run? reserve ─► encode if changed ─► gateway
    gateway ─► relay ─► whose is it? (session key, agent, run) ── not theirs: dropped, `seq` closed up
                          │ theirs, or nobody's and harmless
                          ▼
                     filter if the row says so, else the same bytes ─► client

The rooms, from the edge inward (`pyproject.toml` holds the contract; siblings do not import each other):

    cli           run, config, and what an operator types
    doctor        is it safe? looks, judges, and with --attack tries
    app           wires the rooms; start, readiness, shutdown
    options       settings → what each room takes                    listening which paths are answered, and where
    settings      one tree, from TOML and the environment
    relay         THE way of a frame: `relay/connection.py`          api   /healthz, /readyz, /metrics, status
    environments  a user's agent and workspace, made once              usage    model calls → the ledger
    gateways      dialling a gateway; the sidecar's own connection to it; whose an id is
    identity      token → Principal                                  quota may this run start?
    storage       Redis, SQL, embedded engines    telemetry facts → logs, metrics    wire frames on a socket
    policy        the table of methods and events, and the pure functions that obey it
    protocol      bytes ⇄ frames, handshake, devices, WebSocket framing
    domain        Principal, Namespace, Environment
    errors        one tree; what a client, an HTTP caller and a log see of it
"""

__version__ = "0.1.0"
