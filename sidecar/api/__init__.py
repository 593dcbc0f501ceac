"""What operators and orchestrators ask over HTTP: alive, ready, metrics."""
