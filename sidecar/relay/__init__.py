"""Between a client and its gateway. `connection.py` is the way of a frame, from top to bottom."""
