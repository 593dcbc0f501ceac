"""Bytes ⇄ frames, the handshake, devices, and WebSocket framing. Pure: no socket, no clock, no table.

What a client writes is parsed completely; what a gateway writes is scanned, and parsed where a scan could be wrong.
"""
