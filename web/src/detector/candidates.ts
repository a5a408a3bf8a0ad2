/** Candidates: places that are blue relative to their brightness, like chromatin stained with haematoxylin. */

import { clamp, type Image, mirror, type Point, round } from "./image";
import { rescale, resize } from "./resize";

const RISE = Math.fround(1 + 1e-5); // by which a peak exceeds the lowest value around it

/** One number a pixel, row by row. */
export interface Plane {
    readonly width: number;
    readonly height: number;
    readonly values: Float32Array<ArrayBuffer>;
}

/** How candidates are found. */
export interface Search {
    /** Factor by which the image is resized first. */
    readonly scale: number;
    /** Most candidates; the strongest are kept. */
    readonly count: number;
    /** Standard deviation of the smoothing, px of the resized image. */
    readonly sigma: number;
    /** Side of the square in which a peak is the highest, px of the resized image; odd. */
    readonly window: number;
}

/**
 * Find the peaks of the smoothed blue-ratio image, strongest first; only where `mask` is not 0.
 *
 * A flat image has none.
 */
export function findCandidates(image: Image, mask: Uint8Array | null, search: Search): Point[] {
    const resized = resize(image, search.scale);
    const smooth = blur(blueRatio(resized), search.sigma);
    const highest = highestNear(smooth, search.window);
    const lowest = highestNear({ ...smooth, values: smooth.values.map((value) => -value) }, search.window);
    const peaks = new Uint8Array(smooth.values.length);
    for (let index = 0; index < peaks.length; index++) {
        const value = smooth.values[index];
        peaks[index] = Number(value === highest[index] && value > Math.fround(-lowest[index] * RISE));
    }
    return centroids(peaks, smooth.width)
        .map((peak) => ({
            point: rescale(peak, resized, image),
            strength: smooth.values[round(peak.row) * smooth.width + round(peak.col)],
        }))
        .filter(({ point }) => {
            const row = clamp(round(point.row), 0, image.height - 1);
            const col = clamp(round(point.col), 0, image.width - 1);
            return mask === null || mask[row * image.width + col] !== 0;
        })
        .sort((one, other) => other.strength - one.strength)
        .slice(0, search.count)
        .map(({ point }) => point);
}

/**
 * Return the blue ratio 100 B / (1 + R + G) x 256 / (1 + R + G + B) of each pixel.
 *
 * Source: Chang, Loss and Parvin, "Nuclear segmentation in H&E sections via multi-reference graph cut", ISBI 2012.
 */
export function blueRatio(image: Image): Plane {
    const values = new Float32Array(image.width * image.height);
    for (let index = 0; index < values.length; index++) {
        const others = 1 + image.rgb[3 * index] + image.rgb[3 * index + 1];
        const blue = image.rgb[3 * index + 2];
        values[index] = Math.fround(Math.fround(Math.fround((100 * blue) / others) * 256) / (others + blue));
    }
    return { width: image.width, height: image.height, values };
}

/** Smooth by a Gaussian of the size that OpenCV chooses for floats; the border is mirrored. */
export function blur(plane: Plane, sigma: number): Plane {
    const radius = (round(sigma * 8 + 1) | 1) >> 1;
    const bell = Array.from({ length: radius + 1 }, (_, place) => Math.exp(-(place ** 2) / (2 * sigma ** 2)));
    const total = bell.reduce((sum, weight) => sum + 2 * weight, -bell[0]);
    const kernel = Float32Array.from(bell, (weight) => weight / total);
    const { width, height } = plane;
    const across = along(plane.values, height, width, width, 1, kernel);
    return { width, height, values: along(across, width, height, 1, width, kernel) };
}

/** Smooth `lines` lines of `length` values, each line `next` and each value `step` after the one before. */
function along(
    values: Float32Array,
    lines: number,
    length: number,
    next: number,
    step: number,
    kernel: Float32Array,
): Float32Array<ArrayBuffer> {
    const smooth = new Float32Array(values.length);
    const radius = kernel.length - 1;
    const padded = new Float32Array(length + 2 * radius);
    for (let line = 0; line < lines; line++) {
        for (let place = 0; place < padded.length; place++) {
            padded[place] = values[line * next + mirror(place - radius, length) * step];
        }
        for (let place = 0; place < length; place++) {
            let sum = padded[place + radius] * kernel[0];
            for (let tap = 1; tap <= radius; tap++) {
                sum += (padded[place + radius - tap] + padded[place + radius + tap]) * kernel[tap];
            }
            smooth[line * next + place * step] = sum;
        }
    }
    return smooth;
}

/** Return the highest value in a square round each pixel; nothing lies beyond the border. */
function highestNear({ width, height, values }: Plane, window: number): Float32Array {
    const radius = window >> 1;
    const wide = new Float32Array(values.length);
    for (let row = 0; row < height; row++) {
        for (let col = 0; col < width; col++) {
            const end = row * width + Math.min(col + radius, width - 1);
            let found = Number.NEGATIVE_INFINITY;
            for (let other = row * width + Math.max(col - radius, 0); other <= end; other++) {
                if (values[other] > found) found = values[other];
            }
            wide[row * width + col] = found;
        }
    }
    const both = new Float32Array(values.length).fill(Number.NEGATIVE_INFINITY);
    for (let row = 0; row < height; row++) {
        const end = Math.min(row + radius, height - 1);
        for (let other = Math.max(row - radius, 0); other <= end; other++) {
            for (let col = 0; col < width; col++) {
                const value = wide[other * width + col];
                if (value > both[row * width + col]) both[row * width + col] = value;
            }
        }
    }
    return both;
}

/** Return the middle of each group of touching pixels, also diagonally; the top left one first. */
function centroids(peaks: Uint8Array, width: number): Point[] {
    const left = peaks.slice();
    const found: Point[] = [];
    for (let start = 0; start < left.length; start++) {
        if (left[start] === 0) continue;
        left[start] = 0;
        const group = [start];
        let rows = 0;
        let columns = 0;
        for (const pixel of group) {
            // which grows
            const col = pixel % width;
            rows += (pixel - col) / width;
            columns += col;
            for (let down = -1; down <= 1; down++) {
                for (let right = -1; right <= 1; right++) {
                    const other = pixel + down * width + right;
                    if (col + right < 0 || col + right >= width || left[other] !== 1) continue;
                    left[other] = 0;
                    group.push(other);
                }
            }
        }
        found.push({ row: rows / group.length, col: columns / group.length });
    }
    return found;
}
