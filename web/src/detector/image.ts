/** Images in memory, and the arithmetic that they share with Python. */

/** An image of 8 bits a channel. */
export interface Image {
    readonly width: number;
    readonly height: number;
    /** Red, green and blue of each pixel, row by row. */
    readonly rgb: Uint8Array<ArrayBuffer>;
}

/** A field as its file has it. */
export interface Picture extends Image {
    /** 1 where a pixel is opaque; null = everywhere. */
    readonly opaque: Uint8Array<ArrayBuffer> | null;
    /** Pixel size, um, as the file says; null = it says nothing plausible. */
    readonly micronsPerPixel: number | null;
}

/** A place in an image; pixel centres have whole numbers. */
export interface Point {
    readonly row: number;
    readonly col: number;
}

/** Round halves to even, as NumPy and OpenCV do. */
export function round(value: number): number {
    const down = Math.floor(value);
    const rest = value - down;
    if (rest < 0.5 || (rest === 0.5 && down % 2 === 0)) return down;
    return down + 1;
}

/** Return `value` moved into the range. */
export function clamp(value: number, lowest: number, highest: number): number {
    return Math.min(Math.max(value, lowest), highest);
}

/** Return the index inside 0 to size - 1 that shows the mirrored border: -1 is 1, and `size` is size - 2. */
export function mirror(index: number, size: number): number {
    if (size === 1) return 0;
    const period = 2 * size - 2;
    const inside = ((index % period) + period) % period;
    return inside < size ? inside : period - inside;
}

/** Return a percentile (0 to 100) of values, interpolated linearly, as NumPy's. */
export function percentile(values: Float64Array, percent: number): number {
    const sorted = values.slice().sort();
    const place = (percent / 100) * (sorted.length - 1);
    const below = Math.floor(place);
    const above = Math.min(below + 1, sorted.length - 1);
    return sorted[below] + (sorted[above] - sorted[below]) * (place - below);
}
