/** Resizing of 8-bit images as OpenCV's INTER_AREA and INTER_CUBIC do on a PC. */

import { clamp, type Image, type Point, round } from "./image";

const CUBIC = -0.75; // sharpness of OpenCV's cubic interpolation

/** Resize by averaging pixels (`scale` < 1) or by cubic interpolation (`scale` > 1), to whole pixels. */
export function resize(image: Image, scale: number): Image {
    if (scale === 1) return image;
    const width = Math.max(1, round(image.width * scale));
    const height = Math.max(1, round(image.height * scale));
    if (width === image.width && height === image.height) return image;
    return scale < 1 ? average(image, width, height) : interpolate(image, width, height);
}

/** Return the place of a point after resizing an image of one size to another. */
export function rescale(point: Point, from: Image, to: Image): Point {
    return {
        row: (point.row + 0.5) * (to.height / from.height) - 0.5,
        col: (point.col + 0.5) * (to.width / from.width) - 0.5,
    };
}

/** For each new pixel of an axis: the old pixels that it covers, and the share of each. */
interface Cover {
    readonly starts: Int32Array; // (new + 1,) where the pixels of each begin in the other two
    readonly pixels: Int32Array;
    readonly shares: Float32Array;
}

function cover(before: number, after: number): Cover {
    const scale = before / after;
    const starts = new Int32Array(after + 1);
    const pixels: number[] = [];
    const shares: number[] = [];
    for (let index = 0; index < after; index++) {
        const from = index * scale;
        const to = from + scale;
        const cell = Math.min(scale, before - from);
        const last = Math.min(Math.floor(to), before - 1);
        const first = Math.min(Math.ceil(from), last);
        if (first - from > 1e-3) {
            pixels.push(first - 1);
            shares.push((first - from) / cell);
        }
        for (let pixel = first; pixel < last; pixel++) {
            pixels.push(pixel);
            shares.push(1 / cell);
        }
        if (to - last > 1e-3) {
            pixels.push(last);
            shares.push(Math.min(to - last, 1, cell) / cell);
        }
        starts[index + 1] = pixels.length;
    }
    return { starts, pixels: Int32Array.from(pixels), shares: Float32Array.from(shares) };
}

function average(image: Image, width: number, height: number): Image {
    const rows = cover(image.height, height);
    const columns = cover(image.width, width);
    const halves = image.width === 2 * width && image.height === 2 * height;
    const rgb = new Uint8Array(width * height * 3);
    const sums = new Float32Array(width * 3);
    const line = new Float32Array(width * 3);
    for (let row = 0; row < height; row++) {
        sums.fill(0);
        for (let number = rows.starts[row]; number < rows.starts[row + 1]; number++) {
            const start = rows.pixels[number] * image.width * 3;
            line.fill(0);
            for (let col = 0; col < width; col++) {
                for (let other = columns.starts[col]; other < columns.starts[col + 1]; other++) {
                    const pixel = start + columns.pixels[other] * 3;
                    const share = columns.shares[other];
                    line[3 * col] += image.rgb[pixel] * share;
                    line[3 * col + 1] += image.rgb[pixel + 1] * share;
                    line[3 * col + 2] += image.rgb[pixel + 2] * share;
                }
            }
            const share = rows.shares[number];
            for (let value = 0; value < line.length; value++) sums[value] += line[value] * share;
        }
        // OpenCV halves an image in whole numbers, where a half rounds up.
        for (let value = 0; value < sums.length; value++) {
            const mean = sums[value];
            rgb[row * width * 3 + value] = halves ? Math.floor(mean + 0.5) : round(mean);
        }
    }
    return { width, height, rgb };
}

/** The four pixels and weights of cubic interpolation for each new pixel of an axis. */
function cubic(before: number, after: number): { pixels: Int32Array; weights: Float64Array } {
    const pixels = new Int32Array(after * 4);
    const weights = new Float64Array(after * 4);
    const scale = before / after;
    for (let index = 0; index < after; index++) {
        const place = Math.fround((index + 0.5) * scale - 0.5);
        const first = Math.floor(place);
        const x = place - first;
        const far = ((CUBIC * (x + 1) - 5 * CUBIC) * (x + 1) + 8 * CUBIC) * (x + 1) - 4 * CUBIC;
        const near = ((CUBIC + 2) * x - (CUBIC + 3)) * x * x + 1;
        const next = ((CUBIC + 2) * (1 - x) - (CUBIC + 3)) * (1 - x) * (1 - x) + 1;
        [far, near, next, 1 - far - near - next].forEach((weight, tap) => {
            pixels[4 * index + tap] = clamp(first - 1 + tap, 0, before - 1);
            weights[4 * index + tap] = weight;
        });
    }
    return { pixels, weights };
}

function interpolate(image: Image, width: number, height: number): Image {
    const rows = cubic(image.height, height);
    const columns = cubic(image.width, width);
    const wide = new Float32Array(image.height * width * 3);
    for (let row = 0; row < image.height; row++) {
        for (let col = 0; col < width; col++) {
            for (let channel = 0; channel < 3; channel++) {
                let sum = 0;
                for (let tap = 4 * col; tap < 4 * col + 4; tap++) {
                    const pixel = (row * image.width + columns.pixels[tap]) * 3 + channel;
                    sum += image.rgb[pixel] * columns.weights[tap];
                }
                wide[(row * width + col) * 3 + channel] = sum;
            }
        }
    }
    const rgb = new Uint8Array(width * height * 3);
    const line = width * 3;
    for (let row = 0; row < height; row++) {
        for (let value = 0; value < line; value++) {
            let sum = 0;
            for (let tap = 4 * row; tap < 4 * row + 4; tap++) {
                sum += wide[rows.pixels[tap] * line + value] * rows.weights[tap];
            }
            rgb[row * line + value] = clamp(round(sum), 0, 255);
        }
    }
    return { width, height, rgb };
}
