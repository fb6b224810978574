"""Results, in the words that the suites cut out of standard output: names and indentation are part of the contract."""

from __future__ import annotations

import json
from collections.abc import Sequence


def latency(handshake: float, ping: float, *, legacy: bool) -> str:
    """The transport test's result; times in seconds.

    The three l's of ``pingRTTMilllis`` are part of the old contract.
    """
    handshake, ping = round(handshake * 1000, 3), round(ping * 1000, 3)
    if legacy:
        return json.dumps({"handshakePlusOneRTTMillis": handshake, "pingRTTMilllis": ping})
    return f"latency:\n  handshake_plus_one_rtt: {handshake}\n  ping_rtt: {ping}\n  unit: ms"


def distribution(name: str, samples: Sequence[float], unit: str) -> str:
    """One block of the perf test's result.

    Outliers are further than one and a half interquartile ranges from the quartiles; least and greatest are of the
    rest. Quartiles are interpolated linearly.
    """
    ordered = sorted(samples)
    q1, median, q3 = (_quantile(ordered, share) for share in (0.25, 0.5, 0.75))
    reach = 1.5 * (q3 - q1)
    inside = [sample for sample in ordered if q1 - reach <= sample <= q3 + reach]
    outliers = [sample for sample in ordered if not q1 - reach <= sample <= q3 + reach]
    digits = 3 if unit == "ms" else 2
    fields = {
        "iterations": len(ordered),
        "min": _number(inside[0], digits),
        "q1": _number(q1, digits),
        "median": _number(median, digits),
        "q3": _number(q3, digits),
        "max": _number(inside[-1], digits),
        "outliers": f"[{', '.join(_number(sample, digits) for sample in outliers)}]",
        "samples": f"[{', '.join(_number(sample, digits) for sample in ordered)}]",
        "unit": unit,
    }
    return "\n".join([f"{name}:", *(f"  {field}: {value}" for field, value in fields.items())])


def _quantile(ordered: Sequence[float], share: float) -> float:
    position = share * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}"
