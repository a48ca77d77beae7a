"""Two processes with half of the batch each compute the loss of the whole batch, and their averaged gradients are those of one process."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from panollava import layouts
from panollava.config import RunConfig
from panollava.losses import LOSSES
from panollava.losses.overlap import OverlapPairs
from panollava.losses.ranks import fingerprints, gathered

PANORAMAS = 7
SHARES = ([0, 1, 2, 3], [2, 4, 5, 6])
"""Panoramas of each rank. They both ask about number 2, which must count once."""


def batch() -> Tensor:
    return torch.randint(256, (PANORAMAS, 8, 4, 4, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def encoder() -> nn.Module:
    torch.manual_seed(1)
    return nn.Linear(3, 6)


def loss_of(pixels: Tensor, net: nn.Module, name: str) -> Tensor:
    pairs = OverlapPairs(layouts.layout(RunConfig()), 4)
    mine, theirs = gathered(fingerprints(pixels), *pairs(net(pixels.float() / 255)))
    return LOSSES[name](mine, theirs, pairs, RunConfig(overlap_loss=name))[0]  # type: ignore[arg-type]


def rank(number: int, meeting: Path, results: Any) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=number, world_size=2)
    shares = (SHARES, ([0, 1, 2, 3, 4], [5, 6]))  # the second: ranks with different numbers of panoramas
    for name in LOSSES:
        for split in shares:
            net = encoder()
            loss = loss_of(batch()[split[number]], net, name)
            loss.backward()
            for parameter in net.parameters():
                dist.all_reduce(parameter.grad)
                parameter.grad /= 2  # type: ignore[operator]  # as DDP averages
            results.put((number, name, float(loss), [parameter.grad.tolist() for parameter in net.parameters()]))  # type: ignore[union-attr]
    dist.destroy_process_group()


def test_loss_and_gradient_on_two_ranks_are_those_of_one_process(tmp_path: Path) -> None:
    results = mp.get_context("spawn").SimpleQueue()
    mp.spawn(rank, (tmp_path / "meeting", results), nprocs=2)  # type: ignore[no-untyped-call]
    told = [results.get() for _ in range(2 * 2 * len(LOSSES))]
    for name in LOSSES:
        net = encoder()
        whole = loss_of(batch(), net, name)
        whole.backward()
        of_both = [each for each in told if each[1] == name]
        assert sorted(each[0] for each in of_both) == [0, 0, 1, 1]
        for _, _, loss, gradients in of_both:
            assert loss == pytest.approx(float(whole.detach()), rel=1e-5)
            for gradient, parameter in zip(gradients, net.parameters(), strict=True):
                assert torch.allclose(torch.tensor(gradient), parameter.grad, rtol=1e-4, atol=1e-6)  # type: ignore[arg-type]


def test_equal_panoramas_and_no_others_have_equal_fingerprints() -> None:
    pixels = batch()
    keys = fingerprints(pixels)
    assert keys.unique().numel() == PANORAMAS
    assert torch.equal(fingerprints(pixels[[3, 1]]), keys[[3, 1]])
    assert fingerprints(torch.full((1, 8, 224, 224, 3), 255, dtype=torch.uint8)).item() > 0, "the largest sum fits"
