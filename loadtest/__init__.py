"""What the sidecar costs, measured beside what else could stand in its place, in one run and on one machine.

    client ──► direct ───────────────────────────────► stub        no relay: what the machine itself can do
    client ──► nginx ────────────────────────────────► stub        a WebSocket proxy in C, which looks at nothing
    client ──► aiohttp, writes coalesced ────────────► stub        the reference: aiohttp's frames, no policy
    client ──► aiohttp, orjson per event ────────────► stub        the same, each event parsed and written again
    client ──► sidecar (token, policy, owner) ───────► stub        as a user starts it, engines and all

    stub      speaks the gateway protocol and sends prepared events as fast as the socket takes them
    client    one process a job: connects, reads, and only then checks every event: none lost, order kept
    targets   starts all of it           measure  the rounds, interleaved         report  table and JSON

The clock for a relay is the processor time of its process (all threads), read by the client right before and right after.
"""
