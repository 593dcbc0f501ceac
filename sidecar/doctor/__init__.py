"""What an operator wants to know before people come: is this safe, and if not, which lines mend it.

    gather ──what was read──► access, agents, load, house ──findings──► report ──► lines, or JSON
    attack ──throw-away agents, a model of our own──► what held and what broke through

`gather` and `reach` ask gateways, issuers and engines; the checks are pure functions of what was read. Nothing is changed, except
by `attack`, which takes back all that it made.
"""
