"""The capstone's way, written out plainly: what the project is compared with.

Patches are cut from fields at half resolution, one PNG per rotation, into a folder per class. Training reads them with
torchvision's ImageFolder and PIL transforms in two workers, in float32, with Adam. This module imports nothing of the
project, and its training is a process of its own, because the project changes how the C library keeps memory.

    python -m benchmarks.capstone FOLDER NETWORK INPUT_SIZE BATCH_SIZE SECONDS
"""

import math
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, models, transforms

ANGLES = {1: (0, 45, 90), 0: (0, 45)}
"""Rotations of each class, in degrees."""
PATCH = 64  # px
WORKERS = 2


def cut(path: Path, points: Iterable[tuple[float, float]], labels: Iterable[int], out: Path, name: str) -> int:
    """Cut every rotation of each patch from a field and write it as PNG.

    Args:
        path: the field.
        points: row, col of each patch in pixels of the field.
        labels: class of each patch, 0 or 1.
        out: gets a folder per class.
        name: start of the file names.

    Returns:
        The number of files.
    """
    for label in ANGLES:
        (out / str(label)).mkdir(parents=True, exist_ok=True)
    field = Image.open(path).convert("RGB")
    field = field.resize((field.width // 2, field.height // 2), Image.Resampling.BOX)
    reach = math.ceil(PATCH / math.sqrt(2))
    inner = (reach - PATCH // 2, reach - PATCH // 2, reach + PATCH // 2, reach + PATCH // 2)
    written = 0
    for number, ((row, col), label) in enumerate(zip(points, labels, strict=True)):
        top, left = round(row / 2) - reach, round(col / 2) - reach
        around = field.crop((left, top, left + 2 * reach, top + 2 * reach))
        for angle in ANGLES[label]:
            patch = around.rotate(angle, Image.Resampling.BILINEAR).crop(inner)
            patch.save(out / str(label) / f"{name}_class{label}_center{number}_rot{angle}.png")
            written += 1
    return written


def train(folder: Path, network: str, input_size: int, batch_size: int, seconds: float) -> float:
    """Train on PNGs in class folders for about so many seconds, and for two batches at least.

    Returns:
        The patches per second, from the moment when the first batch is there.
    """
    prepare = transforms.Compose(
        [
            transforms.Resize((input_size, input_size)),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = models.get_model(network, num_classes=2).to(device)
    loader = DataLoader(
        datasets.ImageFolder(str(folder), prepare), batch_size, shuffle=True, num_workers=WORKERS, drop_last=True
    )
    criterion, optimizer = nn.CrossEntropyLoss(), torch.optim.Adam(model.parameters(), lr=1e-4)
    model.train()
    done, started = 0, None
    while True:  # epochs
        for images, labels in loader:
            started = started or time.perf_counter()
            optimizer.zero_grad()
            loss = criterion(model(images.to(device)), labels.to(device))
            loss.backward()
            optimizer.step()
            loss.item()  # the capstone adds it up
            done += 1
            elapsed = time.perf_counter() - started
            if done >= 2 and elapsed >= seconds:
                return done * batch_size / elapsed


if __name__ == "__main__":
    print(train(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])))
