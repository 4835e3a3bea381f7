"""Each alert fires where it should and only there: promtool plays figures to the rules."""

import json

import pytest
import yaml

from debian import PROJECT, output

RULES = PROJECT / "packaging" / "prometheus" / "usher.rules.yml"
ALERTS = {rule["alert"]: rule for rule in yaml.safe_load(RULES.read_text())["groups"][0]["rules"]}

# How often there is a figure, in seconds.
EVERY = 15
MINUTE = 60 // EVERY


def steady(value, minutes=60):
    return f"{value}x{minutes * MINUTE}"


def growing(per_minute, minutes=60, start=0):
    return f"{start}+{per_minute / MINUTE:g}x{minutes * MINUTE}"


def buckets(name, labels, slow_per_minute, fast_per_minute):
    """A histogram's figures: observations under a millisecond, and some that take longer than any bucket."""
    return {
        f'{name}_bucket{{le="0.001"{labels}}}': growing(fast_per_minute),
        f'{name}_bucket{{le="8"{labels}}}': growing(fast_per_minute),
        f'{name}_bucket{{le="+Inf"{labels}}}': growing(fast_per_minute + slow_per_minute),
    }


def upstream(ok, unreachable):
    """Calls in a minute, by what became of them."""
    name = "usher_upstream_call_seconds_count"
    return {f'{name}{{outcome="ok"}}': growing(ok), f'{name}{{outcome="unreachable"}}': growing(unreachable)}


# What the alert is about, the figures that make it fire, and those of a machine that is well enough.
CASES = [
    ("UsherDown", {"up": steady(0)}, {"up": steady(1)}),
    (
        "UsherDatabaseFails",
        {'usher_store_failures_total{reason="unavailable"}': growing(1)},
        {'usher_store_failures_total{reason="unavailable"}': steady(7), 'usher_store_failures_total{reason="other"}': steady(0)},
    ),
    (
        "UsherDatabaseSlow",
        buckets("usher_store_seconds", ',step="commit"', 5, 95),
        buckets("usher_store_seconds", ',step="commit"', 0, 100),
    ),
    (
        "UsherConnectionsNearlyFull",
        {"usher_connections": steady(95), "usher_connections_max": steady(100)},
        {"usher_connections": steady(85), "usher_connections_max": steady(100)},
    ),
    (
        "UsherFilesNearlyFull",
        {"process_open_fds": steady(95), "process_max_fds": steady(100)},
        {"process_open_fds": steady(85), "process_max_fds": steady(100)},
    ),
    ("UsherToldLate", buckets("usher_golive_told_seconds", "", 5, 95), buckets("usher_golive_told_seconds", "", 0, 100)),
    (
        "UsherSlowClients",
        {'usher_sessions_ended_total{reason="slow"}': growing(120)},
        {'usher_sessions_ended_total{reason="slow"}': growing(6), 'usher_sessions_ended_total{reason="left"}': growing(6000)},
    ),
    (
        "UsherTokensRefused",
        {'usher_tokens_refused_total{door="queue",reason="expired"}': growing(120)},
        {
            'usher_tokens_refused_total{door="queue",reason="expired"}': growing(6),
            'usher_tokens_refused_total{door="queue",reason="missing"}': growing(6000),
        },
    ),
    (
        "UsherKeyServerDown",
        {'usher_tokens_refused_total{door="queue",reason="key_server_unavailable"}': growing(1)},
        {
            'usher_tokens_refused_total{door="queue",reason="key_server_unavailable"}': steady(3),
            'usher_tokens_refused_total{door="queue",reason="expired"}': growing(60),
        },
    ),
    ("UsherReloadRefused", {"usher_reload_successful": steady(0)}, {"usher_reload_successful": steady(1)}),
    ("UsherUpstreamFails", upstream(ok=60, unreachable=60), upstream(ok=60, unreachable=2)),
    # Left alone: nothing but a probe every ten seconds, or even every minute; and nobody asked at all.
    ("UsherUpstreamFails", upstream(ok=0, unreachable=6), upstream(ok=0, unreachable=0)),
    ("UsherUpstreamFails", upstream(ok=0, unreachable=1), upstream(ok=1, unreachable=0)),
    ("UsherOutboxGrows", {"usher_outbox_pending": steady(11)}, {"usher_outbox_pending": steady(10)}),
    (
        "UsherRestartsOften",
        {"process_start_time_seconds": " ".join(f"{start}x{5 * MINUTE}" for start in range(1000, 1012))},
        {"process_start_time_seconds": f"{steady(1000, 30)} {steady(2000, 30)}"},
    ),
]


def at(instance, figures):
    """The figures as they are scraped from one machine."""
    for sample, values in figures.items():
        name, _, labels = sample.rstrip("}").partition("{")
        labels = ",".join(filter(None, [f'instance="{instance}"', 'job="usher"', labels]))
        yield {"series": f"{name}{{{labels}}}", "values": values}


def play(tmp_path, alert, figures, expected):
    """What promtool says when half an hour has gone by."""
    test = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "15s",
        "tests": [
            {
                "interval": f"{EVERY}s",
                "input_series": [series for machine, of_it in figures.items() for series in at(machine, of_it)],
                "alert_rule_test": [{"eval_time": "30m", "alertname": alert, "exp_alerts": expected}],
            }
        ],
    }
    file = tmp_path / "test.yml"
    file.write_text(json.dumps(test))  # which is YAML, too
    return output(["promtool", "test", "rules", file])


@pytest.mark.parametrize("alert, ill, well", CASES, ids=[f"{case[0]}-{n}" for n, case in enumerate(CASES)])
def test_alert_is_raised_for_the_machine_that_is_ill_and_for_no_other(tmp_path, alert, ill, well):
    # Where the rule adds figures up, only the machine is left of the labels.
    left = {"instance": "ill"} if "sum by (instance" in ALERTS[alert]["expr"] else {"instance": "ill", "job": "usher"}
    fires = {
        "exp_labels": {**left, **ALERTS[alert]["labels"]},
        "exp_annotations": ALERTS[alert]["annotations"],
    }
    play(tmp_path, alert, {"ill": ill, "well": well}, [fires])


def test_every_alert_is_tried():
    assert {case[0] for case in CASES} == set(ALERTS)
