"""Alert rules, tested with promtool: each fires for a failing machine and for no other."""

import json

import pytest
import yaml

from debian import PROJECT, output

RULES = PROJECT / "packaging" / "prometheus" / "usher.rules.yml"
ALERTS = {rule["alert"]: rule for rule in yaml.safe_load(RULES.read_text())["groups"][0]["rules"]}

# Scrape interval in seconds.
INTERVAL = 15
MINUTE = 60 // INTERVAL


def steady(value, minutes=60):
    return f"{value}x{minutes * MINUTE}"


def growing(per_minute, minutes=60, start=0):
    return f"{start}+{per_minute / MINUTE:g}x{minutes * MINUTE}"


def histogram(name, labels, slow_per_minute, fast_per_minute):
    """Samples of a histogram with observations below one millisecond and above the largest bucket."""
    return {
        f'{name}_bucket{{le="0.001"{labels}}}': growing(fast_per_minute),
        f'{name}_bucket{{le="8"{labels}}}': growing(fast_per_minute),
        f'{name}_bucket{{le="+Inf"{labels}}}': growing(fast_per_minute + slow_per_minute),
    }


def upstream(ok, unreachable):
    """Calls per minute by outcome."""
    name = "usher_upstream_call_seconds_count"
    return {f'{name}{{outcome="ok"}}': growing(ok), f'{name}{{outcome="unreachable"}}': growing(unreachable)}


# Alert, samples of a failing machine, samples of a healthy machine.
CASES = [
    ("UsherDown", {"up": steady(0)}, {"up": steady(1)}),
    (
        "UsherDatabaseFails",
        {'usher_store_failures_total{reason="unavailable"}': growing(1)},
        {'usher_store_failures_total{reason="unavailable"}': steady(7), 'usher_store_failures_total{reason="other"}': steady(0)},
    ),
    ("UsherDatabaseFileLost", {"usher_database_file_lost": steady(1)}, {"usher_database_file_lost": steady(0)}),
    (
        "UsherDatabaseSlow",
        histogram("usher_store_seconds", ',step="commit"', 5, 95),
        histogram("usher_store_seconds", ',step="commit"', 0, 100),
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
    ("UsherToldLate", histogram("usher_golive_told_seconds", "", 5, 95), histogram("usher_golive_told_seconds", "", 0, 100)),
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
    # Idle: only health checks, every ten seconds or every minute; and no calls at all.
    ("UsherUpstreamFails", upstream(ok=0, unreachable=6), upstream(ok=0, unreachable=0)),
    ("UsherUpstreamFails", upstream(ok=0, unreachable=1), upstream(ok=1, unreachable=0)),
    ("UsherOutboxGrows", {"usher_outbox_pending": steady(11)}, {"usher_outbox_pending": steady(10)}),
    (
        "UsherRestartsOften",
        {"process_start_time_seconds": " ".join(f"{start}x{5 * MINUTE}" for start in range(1000, 1012))},
        {"process_start_time_seconds": f"{steady(1000, 30)} {steady(2000, 30)}"},
    ),
]


def series_of(instance, samples):
    """The samples as scraped from one machine."""
    for sample, values in samples.items():
        name, _, labels = sample.rstrip("}").partition("{")
        labels = ",".join(filter(None, [f'instance="{instance}"', 'job="usher"', labels]))
        yield {"series": f"{name}{{{labels}}}", "values": values}


def run_promtool(tmp_path, alert, machines, expected):
    """Runs promtool for the state after half an hour."""
    test = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "15s",
        "tests": [
            {
                "interval": f"{INTERVAL}s",
                "input_series": [series for machine, samples in machines.items() for series in series_of(machine, samples)],
                "alert_rule_test": [{"eval_time": "30m", "alertname": alert, "exp_alerts": expected}],
            }
        ],
    }
    file = tmp_path / "test.yml"
    file.write_text(json.dumps(test))  # JSON is valid YAML
    return output(["promtool", "test", "rules", file])


@pytest.mark.parametrize("alert, failing, healthy", CASES, ids=[f"{case[0]}-{n}" for n, case in enumerate(CASES)])
def test_alert_fires_for_the_failing_machine_only(tmp_path, alert, failing, healthy):
    # A rule that sums over series keeps only the label of the machine.
    labels = {"instance": "failing"} if "sum by (instance" in ALERTS[alert]["expr"] else {"instance": "failing", "job": "usher"}
    expected = {
        "exp_labels": {**labels, **ALERTS[alert]["labels"]},
        "exp_annotations": ALERTS[alert]["annotations"],
    }
    run_promtool(tmp_path, alert, {"failing": failing, "healthy": healthy}, [expected])


def test_every_alert_has_a_case():
    assert {case[0] for case in CASES} == set(ALERTS)
