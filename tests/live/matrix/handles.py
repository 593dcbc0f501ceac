"""Every parameter that could name something of hers, beyond what `examples.toml` says of a method.

Which there are: by the table's rules, by the schema that the gateway's makers publish, and by a fixed list of names. What the
policy refuses, drops or puts the caller's own in the place of needs no gateway; what of hers it would send on, bob sends.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from sidecar.domain.namespace import Namespace
from sidecar.errors import Refusal
from sidecar.policy.requests import Forward, decide
from sidecar.policy.schema import Schema
from tests.live.matrix.examples import Example
from tests.live.matrix.person import Person, filled, new_names
from tests.policy.people import TABLE

Params = Mapping[str, Any]

HANDLES: Params = {
    **dict.fromkeys(("sessionKey", "key", "parentSessionKey", "spawnedBy", "ownerKey", "targetKey"), "{notes}"),
    **{name: ["{notes}"] for name in ("sessionKeys", "keys", "targets")},
    **dict.fromkeys(("agentId", "agent", "sessionAgentId", "ownerAgentId", "slug"), "{agent}"),
    **{name: ["{agent}"] for name in ("agentIds", "agents")},
    **dict.fromkeys(("profileId", "ownerId", "creatorId", "involvingProfileId", "creatorKey"), "{profile}"),
    **dict.fromkeys(("runId", "operationId", "childRunId"), "{run}"),
    **{name: ["{run}"] for name in ("inputRunIds", "runIds")},
    "taskIds": ["{task}"],
    **dict.fromkeys(("path", "file", "name", "root"), "{workspace}/{file}"),
    **dict.fromkeys(("cwd", "workspace", "workspaceDir", "dir"), "{workspace}"),
    **dict.fromkeys(("url", "media", "mediaUrl", "mediaPath", "ref"), "{media}"),
    **dict.fromkeys(("messageId", "replyToId"), "{message}"),
    **dict.fromkeys(("entryId", "expectedLeafEntryId"), "{entry}"),
    **dict.fromkeys(("id", "approvalId"), "{exec_approval}"),
    **dict.fromkeys(("jobId", "cronId"), "{cron}"),
    "sessionId": "{session_id}",
    "expectedSessionId": "{session_id}",
    "shortId": "{short}",
    "taskId": "{task}",
    "questionId": "{question}",
    "suggestionId": "{suggestion}",
    "goalId": "{goal}",
    "proposalId": "{proposal}",
    "artifactId": "{artifact}",
    "checkpointId": "{checkpoint}",
    "leafEntryId": "{leaf}",
    "projectId": "workspace:{agent}",
    "agentScope": "all",
    "scope": {"agentId": "{agent}"},
    "cursor": "{cursor}",
}
"""Parameter → what of hers would stand there. A parameter of another name gets a session of hers."""


def shapes(name: str, value: Any) -> Iterator[Any]:
    """As it is, in a list, in an object, in a list of objects."""
    one = value[0] if isinstance(value, list) else value
    yield from (value, one, [one], {name: one}, [{name: one}], {"key": one}, [{"key": one}], {"a": {"b": [one]}})


def named(method: str, schema: Schema) -> set[str]:
    """All parameters that the method has, or that any has."""
    members = schema.members(schema.params[method]) if method in schema.params else None
    return {*HANDLES, *TABLE.methods[method].params, *(members or ())}


def passing(
    examples: list[Example], schema: Schema, alice: Person, bob: Person
) -> tuple[list[tuple[Example, dict[str, Any]]], Counter[str]]:
    """What the policy would send on of hers, one thing at a time among his own; and how often it would not, by why."""
    found, stopped = list[tuple[Example, dict[str, Any]]](), Counter[str]()
    him = Namespace(f"example|{bob.login}", bob.slug, bob.slug)
    hers = list(map(str, alice.words().values()))
    for example in {one.method: one for one in reversed(examples)}.values():
        fresh = {"hash": "0" * 64} | new_names()
        his = filled(dict(example.params), fresh | bob.known)
        for name in sorted(named(example.method, schema)):
            value = filled(HANDLES.get(name, "{notes}"), alice.known)
            tried = list[Any]()
            for shape in shapes(name, value):
                if shape in tried:
                    continue
                tried.append(shape)
                params = {**his, name: shape}
                try:
                    decision = decide(example.method, params, him, TABLE, new_id=map(str, itertools.count()).__next__)
                except Refusal as refusal:
                    stopped[refusal.detail_code] += 1
                    continue
                sent = json.dumps(decision.params if isinstance(decision, Forward) else {})
                if any(word in sent for word in hers):
                    found.append((example, params))
                else:
                    stopped["dropped"] += 1
    return found, stopped
