"""The hostile matrix: two throw-away agents, closed as users' are, and one that tries everything to reach the other.

A model cannot be told which tool to call, so for a moment the doctor is one: a provider entry of the gateway points at a small
server of ours (`model`), and the attacker's turns are real turns that call what the `matrix` says. No other model is asked.
`stage` writes agents and provider, runs the turns and takes everything back, also what an earlier attack left behind.
"""
