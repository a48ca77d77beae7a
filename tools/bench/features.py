"""Whether stage `finetune` of the demo preset waits for its data when the frozen encoder's features come from the cache, on one core."""

from tools.bench.lines import Round, measured_line, percent_longer

BATCH, STEPS = 48, 4
"""The first step is not measured."""


@measured_line("A step of `finetune`, features from the cache", against="the same steps without waiting for data", bar=percent_longer(10))
def data_wait(rounds: int) -> list[Round]:
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from tools.bench.stepping import demo, speeds

    with TemporaryDirectory() as root:
        config = demo(Path(root), BATCH, steps=STEPS, batch_size=BATCH, cache="auto", cache_dir=f"{root}/cache")
        steps = [speeds(config, Path(root) / f"run-{number}") for number in range(rounds)]
    taken = [(1000 * BATCH / step["samples_per_second"], step["data_wait"]) for step in steps]
    return [Round(whole, whole * (1 - waited)) for whole, waited in taken]
