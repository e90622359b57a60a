"""How large does the scale of the loss have to be in fp16, at the batch of a model card?

    python benchmarks/loss_scale.py [--device cpu] [--out FILE.json]

SLM-10M with four layers, trained for 40 steps of random tokens whose frequencies fall as those of words. Then its
gradients of a few positions as shares of a step of 524,288, in bf16 and in fp16 under several scales, as distances
||a - b|| / ||b|| to those in fp32.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from lilliput.base.environment import environment
from lilliput.base.files import write_json
from lilliput.data.batch import Batch
from lilliput.objectives.next_token import NextToken
from lilliput.objectives.noise import Noise
from lilliput.objectives.objective import build_objectives
from lilliput.objectives.terms import CrossEntropy, ZLoss
from lilliput.recipes import slm_10m
from lilliput.train.precision import autocast

POSITIONS = slm_10m.pretrain.batch_tokens
SHOWN = ("embedding.weight", "layers.0.mixer.query.weight", "layers.0.ffn.down.weight", "layers.3.ffn.gate.weight")
CASES = [("bf16", 0), *(("fp16", exponent) for exponent in (10, 13, 16, 19, 22, 24))]
"""Precision, and the power of two that the loss is multiplied by."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--out", type=Path)
    arguments.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    given = arguments.parse_args()
    device = given.device
    torch.manual_seed(0)
    model = replace(slm_10m.model, layers=4).build(seed=0).to(device)
    task = build_objectives([NextToken(terms=(CrossEntropy(), ZLoss()))], model, seed=0)[0]
    progress, noise = torch.zeros((), device=device), Noise(device)
    frequency = torch.arange(1, model.spec.vocab + 1) ** -1.1

    def loss(batch: Batch, total: float) -> torch.Tensor:
        return task(batch.to(device), total, 0, progress, noise).loss

    def draw() -> Batch:
        tokens = torch.multinomial(frequency, 2 * 129, replacement=True).view(2, 129)
        return Batch(tokens=tokens, weight=torch.ones(2, 129), document_ids=torch.zeros_like(tokens))

    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(40):
        loss(draw(), 256.0).backward()
        optimizer.step()
        optimizer.zero_grad()
    batch = draw()

    def gradients(precision: str, scale: float) -> dict[str, torch.Tensor]:
        model.zero_grad()
        with autocast(device, precision):
            total = loss(batch, POSITIONS)
        (total * scale).backward()
        return {name: model.get_parameter(name).grad / scale for name in SHOWN}

    exact = gradients("fp32", 1.0)
    result: dict = {"environment": environment(), "errors": {}}
    print(f"{'':12}" + "".join(f" {name.removesuffix('.weight'):>20}" for name in SHOWN))
    for precision, exponent in CASES:
        found = gradients(precision, 2.0**exponent)
        errors = {name: float((found[name] - exact[name]).norm() / exact[name].norm()) for name in SHOWN}
        result["errors"][f"{precision}, 2^{exponent}"] = errors
        print(f"{precision}, 2^{exponent:<5}" + "".join(f" {error:20.1e}" for error in errors.values()))
    if given.out:
        write_json(given.out, result)


if __name__ == "__main__":
    main()
