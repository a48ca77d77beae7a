"""The line of a metric, which comes with every step and is written without making an event of it."""

import math
import re
from pathlib import Path

import pytest

from panollava import events
from panollava.events import EventWriter, Metric

VALUES = {"train_loss": 1.25, "lr": 5e-06, "grad_norm": 0.1 + 0.2, "samples_per_second": 812.0, 'größe "1"': -0.0}


@pytest.mark.parametrize("values", [VALUES, {}, VALUES | {"grad_norm": math.nan}, VALUES | {"a": math.inf, "b": -math.inf}, {"a": 1e308, "b": 1e308}])
def test_a_metric_is_written_as_any_other_event(values: dict[str, float], tmp_path: Path) -> None:
    """To the byte but for its time, also where only the sum of the values is infinite."""
    path = tmp_path / events.EVENTS_FILE
    writer = EventWriter(path)
    writer.metric(7, 0.1, values)
    writer.write(Metric(step=7, epoch=0.1, values=values))
    writer.close()
    one, other = (re.sub(rb'^{"t":[0-9.]+,"type"', b'{"type"', line) for line in path.read_bytes().splitlines())
    assert one == other and one.startswith(b'{"type":"metric","step":7,"epoch":0.1,')
    (_, first), (_, second) = events.read(path)
    assert isinstance(first, Metric) and isinstance(second, Metric)
    assert first.values == pytest.approx(values, nan_ok=True)
