"""What an exposition says, read as Prometheus reads it."""

import math

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample


def samples(text: str) -> list[Sample]:
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


def value(text: str, name: str, **labels: str) -> float:
    """The sum of the samples of that name which have these labels; not a number where there is none."""
    found = [
        sample.value
        for sample in samples(text)
        if sample.name == name and labels.items() <= {key: str(value) for key, value in sample.labels.items()}.items()
    ]
    return sum(found) if found else math.nan


def labels(text: str, name: str, label: str) -> set[str]:
    return {sample.labels[label] for sample in samples(text) if sample.name == name}
