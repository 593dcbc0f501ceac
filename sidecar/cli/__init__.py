"""What an operator types. `main` parses the line; each command returns the process's exit code."""
