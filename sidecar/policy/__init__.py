"""What may pass, as a table, and the pure functions that obey it. No row, no passage.

table       TOML → rows            requests    request → forward | answer | refusal
responses   payload → filtered     events      event → pass | drop | filter
commands    slash commands that reach too far
"""
