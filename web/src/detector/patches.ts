/** Patches round points, and the views of them that a detector averages. */

import { type Image, mirror, type Point, round } from "./image";

const QUARTERS = [0, 2, 0, 3]; // turns of the views, two of each: as it is, and mirrored

/** The patches of one view: red, green and blue planes of each patch, one patch after the other. */
export type Patches = Uint8Array<ArrayBuffer>;

/**
 * Cut the views of the patches round some points. Outside the image they show the mirrored border.
 *
 * @param image the field at the pixel size of the patches.
 * @param points the middles of the patches, in pixels of the image.
 * @param size the side of a patch, px.
 * @param count the number of views: 1, 2, 4, or 8 (4 of them turned by 45 degrees).
 */
export function views(image: Image, points: readonly Point[], size: number, count: number): Patches[] {
    const upright = cut(image, points, size);
    const diagonal = count === 8 ? turned(image, points, size) : upright;
    return Array.from({ length: count }, (_, number) =>
        mirrored(number < 4 ? upright : diagonal, size, QUARTERS[number >> 1], number % 2 === 1),
    );
}

/** Return the side of the window from which a patch can be cut at any angle, of the patch's parity. */
function windowSize(patch: number): number {
    const side = Math.ceil((patch - 1) * Math.SQRT2 + 1);
    return side + ((side - patch) % 2);
}

/** Return the top left pixel of a window round a point. */
function corner(point: Point, size: number): Point {
    const half = (size - 1) / 2 - 0.5;
    return { row: Math.floor(point.row - half), col: Math.floor(point.col - half) };
}

function cut(image: Image, points: readonly Point[], size: number): Patches {
    const window = windowSize(size);
    const inset = (window - size) / 2;
    const patches = new Uint8Array(points.length * 3 * size * size);
    points.forEach((point, number) => {
        const start = corner(point, window);
        for (let row = 0; row < size; row++) {
            const line = mirror(start.row + inset + row, image.height) * image.width;
            for (let col = 0; col < size; col++) {
                const pixel = (line + mirror(start.col + inset + col, image.width)) * 3;
                for (let channel = 0; channel < 3; channel++) {
                    patches[((number * 3 + channel) * size + row) * size + col] = image.rgb[pixel + channel];
                }
            }
        }
    });
    return patches;
}

/** Cut patches that are turned counter-clockwise by 45 degrees, interpolated linearly. */
function turned(image: Image, points: readonly Point[], size: number): Patches {
    const window = windowSize(size);
    const middle = (window - 1) / 2;
    const patches = new Uint8Array(points.length * 3 * size * size);
    points.forEach((point, number) => {
        const start = corner(point, window);
        const pixel = (row: number, col: number) =>
            (mirror(start.row + row, image.height) * image.width + mirror(start.col + col, image.width)) * 3;
        for (let row = 0; row < size; row++) {
            for (let col = 0; col < size; col++) {
                const down = row - (size - 1) / 2;
                const right = col - (size - 1) / 2;
                const y = middle + (down + right) * Math.SQRT1_2;
                const x = middle + (right - down) * Math.SQRT1_2;
                const top = Math.floor(y);
                const left = Math.floor(x);
                const [below, beside] = [y - top, x - left];
                for (let channel = 0; channel < 3; channel++) {
                    const value =
                        (1 - below) * (1 - beside) * image.rgb[pixel(top, left) + channel] +
                        (1 - below) * beside * image.rgb[pixel(top, left + 1) + channel] +
                        below * (1 - beside) * image.rgb[pixel(top + 1, left) + channel] +
                        below * beside * image.rgb[pixel(top + 1, left + 1) + channel];
                    patches[((number * 3 + channel) * size + row) * size + col] = round(value);
                }
            }
        }
    });
    return patches;
}

/** Turn patches by quarters counter-clockwise, and then mirror them left to right. */
function mirrored(patches: Patches, size: number, quarters: number, flip: boolean): Patches {
    if (quarters === 0 && !flip) return patches;
    const result = new Uint8Array(patches.length);
    const last = size - 1;
    for (let row = 0; row < size; row++) {
        for (let col = 0; col < size; col++) {
            const x = flip ? last - col : col;
            const [fromRow, fromCol] = [
                [row, x],
                [x, last - row],
                [last - row, last - x],
                [last - x, row],
            ][quarters];
            const [to, from] = [row * size + col, fromRow * size + fromCol];
            for (let plane = 0; plane < patches.length; plane += size * size)
                result[plane + to] = patches[plane + from];
        }
    }
    return result;
}
