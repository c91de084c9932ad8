"""A small DeBERTa learns pleasure, arousal and dominance of sentences, and goes on bit for bit after a kill.

    python examples/deberta_pad_head.py --folder run-pad --steps 300
    python examples/deberta_pad_head.py --folder run-pad --steps 3000 --data path/to/emobank.csv

The model is made from a configuration, nothing is downloaded. `--data` is a CSV file with the columns of EmoBank
(split, V, A, D, text); without it there are sentences of a few words whose values add up.
"""

from __future__ import annotations

import argparse
import csv
import random
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DebertaV2Config, DebertaV2Model, set_seed

from quantum_memory import CheckpointManager, EverySeconds, EverySteps, KeepBest, KeepLast, Randomness

VOCABULARY, LENGTH = 2000, 16
WORDS = {
    "joy": (0.8, 0.5, 0.3), "rage": (-0.5, 0.6, 0.3), "fear": (-0.6, 0.6, -0.4), "calm": (0.3, -0.6, 0.2),
    "grief": (-0.6, -0.3, -0.3), "pride": (0.6, 0.4, 0.6), "the": (0, 0, 0), "of": (0, 0, 0), "and": (0, 0, 0),
}  # fmt: skip


class PADModel(nn.Module):
    """DeBERTa with a head for three numbers in [-1, 1]."""

    def __init__(self) -> None:
        super().__init__()
        config = DebertaV2Config(
            vocab_size=VOCABULARY, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96,
            relative_attention=True, pos_att_type=["p2c", "c2p"], max_position_embeddings=LENGTH,
        )  # fmt: skip
        self.encoder = DebertaV2Model(config)
        self.head = nn.Sequential(nn.Dropout(0.1), nn.Linear(48, 3), nn.Tanh())

    def forward(self, ids: Tensor) -> Tensor:
        """Return pleasure, arousal and dominance of each sentence."""
        mask = (ids != 0).float()
        hidden = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        pad: Tensor = self.head(mean)
        return pad


def tokens(text: str) -> list[int]:
    """Return the numbers of the words, padded; a real tokenizer comes from a file of its own."""
    ids = [1 + zlib.crc32(word.encode()) % (VOCABULARY - 1) for word in text.lower().split()[:LENGTH]]
    return (ids or [1]) + [0] * (LENGTH - max(1, len(ids)))


def sentences(path: Path | None) -> tuple[list[str], list[tuple[float, ...]]]:
    """Return sentences with their values on [-1, 1]; of EmoBank those to train with."""
    if path is not None:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["split"] == "train"]
        return [row["text"] for row in rows], [tuple((float(row[axis]) - 3) / 2 for axis in "VAD") for row in rows]
    source = random.Random(0)
    chosen = [source.choices(list(WORDS), k=6) for _ in range(500)]
    means = [tuple(sum(WORDS[word][axis] for word in one) / len(one) for axis in range(3)) for one in chosen]
    return [" ".join(one) for one in chosen], means


def main() -> None:
    """Start the training, or go on with it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default="run-pad", help="where the checkpoints are")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--data", type=Path, help="a CSV file with the columns of EmoBank")
    args = parser.parse_args()

    texts, values = sentences(args.data)
    ids, pad = torch.tensor([tokens(text) for text in texts]), torch.tensor(values)
    set_seed(0)  # of Python, NumPy and torch
    model = PADModel().train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=50)
    # Everything that the next step depends on: dropout and batches are drawn from torch's source of random numbers.
    run: dict[str, Any] = {"model": model, "optimizer": optimizer, "scheduler": scheduler, "losses": []}
    run["randomness"] = Randomness()

    with CheckpointManager(
        args.folder, save=EverySteps(25) | EverySeconds(300), keep=KeepLast(2) | KeepBest("loss")
    ) as cm:
        found = cm.resume(run)  # in place
        start = 0 if found is None else found.progress
        if start:
            print(f"goes on after step {start}", flush=True)
        for step in range(start + 1, args.steps + 1):
            batch = torch.randint(len(ids), (16,))
            loss = (model(ids[batch]) - pad[batch]).pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            run["losses"].append(loss.item())
            print(f"step {step:5}  loss {loss.item():.6f}", flush=True)
            cm.step(run, progress=step, loss=loss.item())
        if start < args.steps:
            cm.finish(run, progress=args.steps, loss=run["losses"][-1])
    print(f"result {run['losses'][-1]!r}")


if __name__ == "__main__":
    main()
