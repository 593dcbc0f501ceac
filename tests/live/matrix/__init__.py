"""The leak matrix: what every open method is called with, by whose it is, by whose it is not, and without a sidecar."""
