"""Reads OpenMetrics from standard input with the strict parser of the official library. Silent if all is well."""
import sys

from prometheus_client.openmetrics.parser import text_string_to_metric_families

text = sys.stdin.read()
families = {f.name: f for f in text_string_to_metric_families(text)}
for name in ("entrypoint_build", "entrypoint_swaps", "entrypoint_swap_duration_seconds", "entrypoint_generation"):
    if name not in families:
        sys.exit("%s is missing among %s" % (name, sorted(families)))
if families["entrypoint_swaps"].type != "counter" or families["entrypoint_build"].type != "info":
    sys.exit("wrong types")
