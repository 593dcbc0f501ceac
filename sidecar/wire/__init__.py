"""Frames on a socket: the narrow seam between the relay and the network.

The messages of one read go to the receiver as one batch, which answers with at most one write; a message that is sent on
unchanged is never copied out of the bytes that came. Closing, pings and flow control end here.
"""
