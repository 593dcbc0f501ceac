"""The gateways: greeting one as a user, the sidecar's own connection to each, and what their configuration must say."""
