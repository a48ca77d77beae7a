"""What our training loop costs, on one core: our callbacks beside none, and all of it beside a loop in plain PyTorch."""

from tools.bench.lines import Round, measured_line, microseconds_more, percent_longer

BATCH = 48
"""A step of the demo preset takes 100 to 200 ms with it."""


@measured_line("The callbacks of a step of Lightning's loop, all of ours", against="the same hooks, nobody watching", bar=microseconds_more(50))
def callbacks(rounds: int) -> list[Round]:
    """As many pairs as it takes to see 50 µs on a busy machine."""
    from tools.bench.stepping import WatchedByTurns, rounds_of  # torch arrives here, where it is measured

    return rounds_of(WatchedByTurns, pairs=100 * rounds, batch_size=1)


@measured_line("A step of `finetune`, all that our trainer does in it", against="a bare PyTorch loop, same batches", bar=percent_longer(3))
def whole_loop(rounds: int) -> list[Round]:
    from tools.bench.stepping import BesideBareLoop, rounds_of

    return rounds_of(BesideBareLoop, pairs=4 * rounds, batch_size=BATCH)
