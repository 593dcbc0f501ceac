"""Facts as figures: each metric is explained, each fact counted, and no label can grow without end."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sidecar.telemetry import facts
from sidecar.telemetry.facts import Fact
from sidecar.telemetry.metrics import PREFIX, Metrics, Words, metrics_reference
from tests.telemetry.every_fact import example, kinds

UNCOUNTED = {facts.ConfigurationDoubtful, facts.UsageDropped}


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(PREFIX + name, labels)


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)
def test_every_fact_changes_a_figure(kind: type[Fact]) -> None:
    metrics = Metrics()
    before = own_lines(metrics)
    metrics.observe(example(kind))
    assert (own_lines(metrics) == before) == (kind in UNCOUNTED)


def own_lines(metrics: Metrics) -> list[str]:
    return [line for line in metrics.render().decode().splitlines() if line.startswith(PREFIX)]


def test_every_metric_has_help_a_good_name_and_stands_in_the_reference() -> None:
    metrics = Metrics()
    for kind in kinds():
        metrics.observe(example(kind))
    described = {item.name: item for item in metrics.described}
    reference = metrics_reference()
    families = list(text_string_to_metric_families(metrics.render().decode()))
    ours = [family for family in families if family.name.startswith(PREFIX)]
    assert len(ours) == len(described)
    for family in ours:
        name = family.name + "_total" * (family.type == "counter")
        assert family.documentation == described[name].help
        assert described[name].help.endswith(".")
        assert f"| `{name}` | {family.type} | " in reference
        for sample in family.samples:
            assert set(sample.labels) - {"le"} <= set(described[name].labels)
            assert not sample.name.endswith("_created")
    assert any(family.name.startswith("process_") for family in families)


def test_no_label_is_an_id_or_an_address() -> None:
    metrics = Metrics()
    personal = {"connection_id", "user_id", "agent_id", "address", "request_id", "run_id", "client"}
    for kind in kinds():
        fact = example(kind)
        for name in personal & set(type(fact).__dataclass_fields__):
            object.__setattr__(fact, name, "personal-marker")
        metrics.observe(fact)
    assert b"personal-marker" not in metrics.render()


def test_two_of_them_do_not_share_anything() -> None:
    one, other = Metrics(), Metrics()
    one.observe(facts.RunAdmitted("c", "u", "r"))
    assert value(one, "runs_admitted_total") == 1
    assert value(other, "runs_admitted_total") == 0


def test_open_sockets_and_users_are_counted_by_connection() -> None:
    metrics = Metrics()
    for connection in ("a", "b", "c", "d"):
        metrics.observe(facts.SocketOpened(connection, "127.0.0.1"))
    for connection, user in (("a", "alice"), ("b", "alice"), ("c", "bob")):
        metrics.observe(facts.UserConnected(connection, user, "u-x", "main", "cli", 0.2))
    assert (value(metrics, "sockets"), value(metrics, "users")) == (4, 2)
    for connection in ("a", "c", "c", "d", "never opened"):
        metrics.observe(facts.SocketClosed(connection, "", 1000, "client", 1.0))
    assert (value(metrics, "sockets"), value(metrics, "users")) == (1, 1)
    assert value(metrics, "connect_seconds_count", gateway="main") == 3
    assert value(metrics, "sockets_closed_total", reason="client") == 5


def test_frames_and_states() -> None:
    metrics = Metrics()
    metrics.observe(facts.FramesRelayed("up", 3, 300))
    metrics.observe(facts.FramesRelayed("down", 5, 50))
    metrics.observe(facts.FramesRelayed("up", 1, 1))
    assert value(metrics, "frames_relayed_total", direction="up") == 4
    assert value(metrics, "bytes_relayed_total", direction="down") == 50
    metrics.observe(facts.GatewayState("main", "away"))
    metrics.observe(facts.GatewayState("main", "ready"))
    assert value(metrics, "gateway_state", gateway="main", state="away") == 0
    assert value(metrics, "gateway_state", gateway="main", state="ready") == 1
    for state, up, restarts in (("up", 1, None), ("away", 0, None), ("restarted", 1, 1)):
        metrics.observe(facts.EngineState("redis", state))
        assert value(metrics, "engine_up", engine="redis") == up
        assert value(metrics, "engine_restarts_total", engine="redis") == restarts


def test_a_flood_of_new_words_ends_in_other() -> None:
    metrics = Metrics()
    for number in range(5000):
        metrics.observe(facts.EventDropped(f"event.{number}", "unlisted"))
    samples = [line for line in own_lines(metrics) if line.startswith(PREFIX + "events_dropped_total{")]
    assert len(samples) == 513
    assert value(metrics, "events_dropped_total", event="other", reason="unlisted") == 5000 - 512


def test_misshapen_words_are_other() -> None:
    words = Words(limit=2)
    assert [words(word) for word in ("a", "b\n", "x" * 65, "", "b", "a")] == ["a", "other", "other", "", "other", "a"]
