"""Train the networks of `models/networks.py` and write the files of `models/`.

    python scripts/train_models.py [--out FOLDER]

Writes, per network, `NAME.onnx` (BatchNorm left as it is, batch size symbolic) and `NAME.safetensors` (the
state dict), and once `digits_test.npz` (the held-out images `x` and their `labels`). Nothing of a network is
written unless ONNX Runtime gives PyTorch's answers on every held-out image.

Seeds are fixed and one thread does the arithmetic, so a second run on the same machine with the same releases of
PyTorch and scikit-learn writes the same bytes. Another processor or release may round differently, and
training amplifies that: expect the same accuracy within a few images, not the same weights.

Needs the extras `cpu` and `torch` and the dependency group `train`.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import safetensors.torch
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from torch_export import export

from models.networks import IMAGE_SIZE, NETWORKS

ROOT = Path(__file__).resolve().parent.parent
SEED = 8
TEST_IMAGES = 450
EPOCHS = 30
BATCH_SIZE = 32
LEARNING_RATE = 0.003
WEIGHT_DECAY = 0.1
BRIGHTEST = 16.0
# Float32 sums of at most 256 terms in another order; the logits are of the order of 10.
TORCH_TO_ORT_TOLERANCE = 1e-4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "models", help="folder to write to (default: models/)")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    (train_x, train_labels), (test_x, test_labels) = digits()
    print(f"digits: {len(train_x)} images to train on, {len(test_x)} held out")

    for name, build in NETWORKS.items():
        start = time.perf_counter()
        torch.manual_seed(SEED)
        network = train(build(), train_x, train_labels).eval()
        model = export(network, optimize=False)
        logits = checked_logits(name, model, network, test_x)
        correct = int((logits.argmax(axis=1) == test_labels.numpy()).sum())
        (out / f"{name}.onnx").write_bytes(model.SerializeToString(deterministic=True))
        (out / f"{name}.safetensors").write_bytes(safetensors.torch.save(network.state_dict()))
        share = correct / len(test_labels)
        print(f"{name}: {correct} of {len(test_labels)} ({share:.2%}), {time.perf_counter() - start:.0f} s")

    np.savez_compressed(out / "digits_test.npz", x=test_x.numpy(), labels=test_labels.numpy())


def digits() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """scikit-learn's digits as (images, labels) to train on and (images, labels) held out.

    Images are float32 (N, 1, 28, 28) in [0, 1], enlarged bilinearly from 8 x 8; labels are int64 (N,). The
    split keeps the share of each digit.
    """
    bunch = load_digits()
    small = torch.from_numpy(bunch.images / BRIGHTEST).float().unsqueeze(1)
    images = nn.functional.interpolate(small, size=(IMAGE_SIZE, IMAGE_SIZE), mode="bilinear", align_corners=False)
    train, test = train_test_split(
        np.arange(len(images)), test_size=TEST_IMAGES, stratify=bunch.target, random_state=SEED
    )
    labels = torch.from_numpy(bunch.target.astype(np.int64))
    return (images[train], labels[train]), (images[test], labels[test])


def train(network: nn.Sequential, x: Tensor, labels: Tensor) -> nn.Sequential:
    """Fit by AdamW on the cross-entropy; the learning rate falls to zero along a cosine."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=EPOCHS)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(x)).split(BATCH_SIZE):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x[batch]), labels[batch]).backward()
            optimizer.step()
        schedule.step()
    return network


def checked_logits(name: str, model: onnx.ModelProto, network: nn.Module, x: Tensor) -> np.ndarray:
    """ONNX Runtime's logits for `x`, float32 (N, 10); ends the script where they are not PyTorch's."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"x": x.numpy()})
    with torch.inference_mode():
        difference = float(np.abs(logits - network(x).numpy()).max())
    if not difference <= TORCH_TO_ORT_TOLERANCE:
        raise SystemExit(f"{name}: ONNX Runtime and PyTorch differ by {difference:.1e}, nothing written for it")
    return logits


if __name__ == "__main__":
    main()
