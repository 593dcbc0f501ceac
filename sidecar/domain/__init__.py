"""The nouns, as frozen types: Principal, Namespace, Environment. Pure."""
