"""Token → Principal. Nothing else decides who somebody is."""
