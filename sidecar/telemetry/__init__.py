"""Facts in, log lines and metrics out. Rooms state what happened; how it is told is decided here."""
