"""What one user has, made on first use: a slug, an agent that is closed from birth, a workspace."""
