"""What TIAToolbox 2 needs for Macenko's normalisation and for cutting patches: the seconds of each, one per line.

It runs in an environment of its own, because its pins exclude this project's packages.

    PYTHON -P benchmarks/tia.py FIELD POINTS.csv SIZE
"""

import sys
import time

import numpy as np
import pandas as pd
from PIL import Image
from tiatoolbox.tools.patchextraction import get_patch_extractor  # type: ignore[import-not-found]
from tiatoolbox.tools.stainnorm import get_normalizer  # type: ignore[import-not-found]

image = np.array(Image.open(sys.argv[1]).convert("RGB"))
points, size = pd.read_csv(sys.argv[2]), int(sys.argv[3])
normalizer = get_normalizer("Macenko")
normalizer.fit(image)
normalizer.transform(image)  # the first one is slower
started = time.perf_counter()
normalizer.transform(image)
normalised = time.perf_counter() - started
extractor = get_patch_extractor(
    "point", input_img=image, locations_list=points, patch_size=(size, size), resolution=1.0, units="baseline"
)
started = time.perf_counter()
patches = [np.asarray(patch) for patch in extractor]
print(normalised, time.perf_counter() - started, sep="\n")
