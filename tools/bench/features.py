"""What the cache of a frozen encoder's features saves stage `finetune` of the demo preset, on one core."""

from tools.bench.lines import Round, measured_line, percent_longer, times_as_fast

BATCH, STEPS = 48, 4
"""The first step is not measured."""


@measured_line("Samples of `finetune`, features from the cache", against="views from the cache, encoded in every step", bar=times_as_fast(2))
def cached_features(rounds: int) -> list[Round]:
    """Milliseconds of a sample."""
    return [Round(1000 / ours["samples_per_second"], 1000 / peer["samples_per_second"]) for ours, peer in _in_turns(rounds)]


@measured_line("A step of `finetune`, features from the cache", against="the same steps without waiting for data", bar=percent_longer(10))
def data_wait(rounds: int) -> list[Round]:
    """Data is never what a step waits for."""
    steps = [(1000 * BATCH / ours["samples_per_second"], ours["data_wait"]) for ours, _ in _in_turns(rounds)]
    return [Round(step, step * (1 - waited)) for step, waited in steps]


def _in_turns(rounds: int) -> list[tuple[dict[str, float], dict[str, float]]]:
    """The median metrics of trainings with features and with views from the cache."""
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from tools.bench.stepping import demo, speeds

    with TemporaryDirectory() as root:
        with_features, with_views = (
            demo(Path(root), BATCH, steps=STEPS, batch_size=BATCH, cache=cache, cache_dir=f"{root}/cache") for cache in ("auto", "views")
        )
        return [
            (speeds(with_features, Path(root) / f"features-{number}"), speeds(with_views, Path(root) / f"views-{number}")) for number in range(rounds)
        ]
