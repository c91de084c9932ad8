"""Runs of the kinds that are checkpointed, each with real libraries: how one is started, and how it goes on.

As a program it is another process, which starts runs of its own and takes up those in a folder.
"""

import json
import random
import string
import sys
from pathlib import Path

import numpy as np

import quantum_memory as qm
from quantum_memory.encoding.noise import KrausChannel, NoiseModel
from quantum_memory.lifecycle.checkpoint_manager import CheckpointManager
from quantum_memory.lifecycle.checkpoints.randomness import Randomness
from quantum_memory.lifecycle.checkpoints.targets import captured
from quantum_memory.quantum_classical_interface import QuantumClassicalInterface
from quantum_memory.state.emotional_state import EmotionalContext, Trajectory

# ---- language: a masked language model, whose decoder is the transposed embedding


def deberta(seed):
    import torch
    from transformers import DebertaV2Config, DebertaV2ForMaskedLM, get_cosine_schedule_with_warmup

    torch.manual_seed(seed)
    config = DebertaV2Config(
        vocab_size=97, hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=64,
        relative_attention=True, pos_att_type=["p2c", "c2p"], max_position_embeddings=32,
    )  # fmt: skip
    model = DebertaV2ForMaskedLM(config).train()
    assert config.hidden_dropout_prob > 0
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    scheduler = get_cosine_schedule_with_warmup(optimizer, 2, 20)
    return {"model": model, "optimizer": optimizer, "scheduler": scheduler, "randomness": Randomness()}


def deberta_step(run):
    import torch

    ids = torch.randint(0, 97, (3, 12))
    labels = torch.where(torch.rand(ids.shape) < 0.3, ids, -100)
    loss = run["model"](input_ids=ids, labels=labels).loss
    return trained(run, loss)


def trained(run, loss):
    """Take one step of an optimiser; return the loss."""
    run["optimizer"].zero_grad()
    loss.backward()
    run["optimizer"].step()
    if "scheduler" in run:
        run["scheduler"].step()
    return [loss.item()]


# ---- dynamics: a neural ordinary differential equation learns a spiral


def neural_ode(seed):
    import torch
    from torch import nn

    torch.manual_seed(seed)
    field = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2))
    return {"field": field, "optimizer": torch.optim.Adam(field.parameters(), 0.01), "randomness": Randomness()}


def neural_ode_step(run):
    import torch
    from torchdiffeq import odeint

    times = torch.linspace(0, 1, 6)
    start = torch.randn(4, 2)
    angles = 2 * times[:, None]
    turned = torch.stack([start[:, 0] * angles.cos() - start[:, 1] * angles.sin(),
                          start[:, 0] * angles.sin() + start[:, 1] * angles.cos()], -1)  # fmt: skip
    truth = torch.exp(-0.5 * times)[:, None, None] * turned
    found = odeint(lambda _, y: run["field"](y), start, times, rtol=1e-4, atol=1e-5, method="dopri5")
    return trained(run, (found - truth).pow(2).mean())


# ---- several modalities: text and PAD look at audio; all but the head is frozen


def fusion(seed):
    import torch
    from torch import nn

    class Fusion(nn.Module):
        def __init__(self):
            super().__init__()
            width = 128
            self.words = nn.Embedding(4000, width)
            self.text = nn.TransformerEncoder(nn.TransformerEncoderLayer(width, 4, 4 * width, batch_first=True), 4)
            self.audio = nn.Sequential(nn.Conv1d(40, width, 5, 2), nn.BatchNorm1d(width), nn.GELU())
            self.pad = nn.Sequential(nn.Linear(3, width), nn.GELU())
            self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
            self.head = nn.Sequential(nn.Linear(width, width), nn.Dropout(0.2), nn.GELU(), nn.Linear(width, 3))

        def forward(self, ids, sound, pad):
            asking = torch.cat([self.text(self.words(ids)), self.pad(pad)[:, None]], 1)
            heard = self.audio(sound).transpose(1, 2)
            return self.head(self.attention(asking, heard, heard, need_weights=False)[0].mean(1))

    torch.manual_seed(seed)
    model = Fusion().eval()
    model.requires_grad_(False)
    model.head.requires_grad_(True).train()
    optimizer = torch.optim.AdamW(model.head.parameters(), 1e-3)
    return {"model": model, "optimizer": optimizer, "randomness": Randomness()}


def fusion_step(run):
    import torch

    pad = torch.rand(2, 3) * 2 - 1
    guess = run["model"](torch.randint(0, 4000, (2, 9)), torch.randn(2, 40, 30), pad)
    return trained(run, (guess - pad).pow(2).mean())


# ---- emotion: a walk in PAD space, and the register of qubits that follows it


def emotion(seed):
    noise = NoiseModel((KrausChannel.amplitude_damping(0.02),))
    interface = QuantumClassicalInterface(9, entangler="cnot_chain", noise=noise)
    return {
        "interface": interface,
        "context": EmotionalContext(pad=qm.PAD(0.0, 0.0, 0.0)),
        "trajectory": Trajectory(np.zeros((1, 3), np.float32), np.zeros(1, np.int64)),
        "mood": qm.PAD(0.1, 0.2, -0.3),
        "source": np.random.default_rng(seed),
    }


def emotion_step(run):
    source, path, interface = run["source"], run["trajectory"], run["interface"]
    mood = qm.PAD(*np.clip(np.array(tuple(run["mood"])) + 0.2 * source.normal(size=3), -1, 1).tolist())
    interface.encode(mood)
    interface.apply_noise(int(source.integers(1 << 32)))
    reading = interface.decode(64, int(source.integers(1 << 32)))
    run["mood"] = mood
    run["trajectory"] = Trajectory(
        np.vstack([path.pad, np.array(tuple(reading.pad), np.float32)]), np.append(path.time, path.time[-1] + 1000)
    )
    run["context"] = EmotionalContext(
        pad=mood, trajectory=run["trajectory"], stability=run["trajectory"].stability(), extra={"steps": len(path)}
    )
    return [*mood, *reading.pad, run["context"].stability, interface.state.norm(), *interface.decode().pad]


# ---- long-term memory: what was remembered, which grows, and of which the least important is forgotten

KEPT = 200


def memories(seed):
    return {"log": [], "source": np.random.default_rng(seed), "words": random.Random(seed), "clock": 0}


def memories_step(run):
    """Remember 20 more, and forget what is more than `KEPT`; the first step fills the log."""
    source, words, log = run["source"], run["words"], run["log"]
    for _ in range(20 if log else KEPT):
        run["clock"] += words.randrange(1, 10**9)
        log.append(
            {
                "text": "".join(words.choices(string.ascii_lowercase + " äöü感", k=words.randrange(10, 80))),
                "timestamp": run["clock"],
                "pad": qm.PAD(*source.uniform(-1, 1, 3).tolist()),
                "embedding": source.normal(size=384).astype(np.float32),
                "importance": words.random(),
            }
        )
    log.sort(key=lambda one: one["importance"], reverse=True)
    del log[KEPT:]
    log.sort(key=lambda one: one["timestamp"])
    return [one["importance"] for one in log[-3:]] + [float(log[-1]["embedding"].sum()), float(len(log))]


# ---- leaves of every type, ties, and every source of random numbers


def leaves(seed):
    import torch

    def of(name):
        return torch.linspace(-2, 2, 24).reshape(4, 6).to(getattr(torch, name))

    shared = torch.arange(6.0)
    return {
        "torch": {n: of(n) for n in ("bfloat16", "float16", "float8_e4m3fn", "float8_e5m2", "bool", "complex64")},
        "numpy": {n: np.linspace(-2, 2, 12).astype(n) for n in ("float16", "bool", "complex128", "uint8", "int64")},
        "scalar": torch.tensor(1j),
        "tied": [shared, {"again": shared, "view": shared[2:4]}],
        "sources": [np.random.default_rng(seed), np.random.RandomState(seed), random.Random(seed),
                    torch.Generator().manual_seed(seed), Randomness()],
    }  # fmt: skip


def leaves_step(run):
    import torch

    wide, legacy, python, generator, _ = run["sources"]
    for leaf in (run["scalar"], *run["torch"].values()):
        noise = torch.randn(leaf.shape, generator=generator)
        leaf.copy_((leaf.to(torch.complex64) * noise + 0.1).real.clamp(-4, 4).to(leaf.dtype))
    for array in run["numpy"].values():
        np.add(array, wide.random(array.shape), out=array, casting="unsafe")
    run["tied"][0].add_(legacy.normal())
    drawn = [wide.normal(), legacy.normal(), python.gauss(0, 1), random.random(), np.random.mtrand._rand.normal()]
    return [*drawn, torch.rand(1).item(), *run["tied"][1]["view"].tolist(), *run["torch"]["bfloat16"][0].tolist()]


PAYLOADS = {
    "deberta": (deberta, deberta_step),
    "neural_ode": (neural_ode, neural_ode_step),
    "fusion": (fusion, fusion_step),
    "emotion": (emotion, emotion_step),
    "memories": (memories, memories_step),
    "leaves": (leaves, leaves_step),
}


def gone_on(name, run, steps=3):
    """Go on, and return every number on the way, and at the end what identifies each bit of the run."""
    numbers = [number.hex() for _ in range(steps) for number in map(float, PAYLOADS[name][1](run))]
    return [*numbers, identity(run)]


def identity(run):
    """Return what identifies each bit of a run, but for the times of the clock on the wall that an interface notes."""
    return captured({key: value for key, value in run.items() if key != "interface"}).memory.content_id


def main(folders):
    """Go on with the run in each folder, which is named for its payload, and return what comes of each."""
    found = {}
    for name in PAYLOADS:
        own = PAYLOADS[name][0](seed=99)
        with CheckpointManager(Path(folders, name)) as manager:
            assert manager.resume(own).state is own
        found[name] = gone_on(name, own)
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1])))
