"""May this run start, and whose is it? The runs of a user over all replicas, kept in Redis."""
