/** Stain normalisation: give fields from all laboratories and scanners the colours of one reference. */

import { clamp, type Image, percentile, round } from "./image";

/** `none` does nothing. */
export type Method = "none" | "macenko" | "reinhard";

type Triple = readonly [number, number, number];

const LIGHT = 240; // intensity of the glass
const DENSITY = Float64Array.from({ length: 256 }, (_, intensity) => -Math.log((intensity + 1) / LIGHT));
const GLASS = 0.15; // a lower optical density means no stain

// Haematoxylin and eosin of the reference; src/mitoscope/histology/stain.py has the sources of these figures.
const STAINS: readonly Triple[] = [
    [0.5626, 0.7201, 0.4062],
    [0.2159, 0.8012, 0.5581],
];
const STRONGEST = [1.9705, 1.0308];
const LAB_MEAN: Triple = [56, 42, -3];
const LAB_STD: Triple = [14.1, 8.1, 4.3];

const SAMPLE_SIDE = 512; // px; colours are estimated on a grid with at most this many pixels per side
const FEWEST = 100; // pixels
const LEAST_TISSUE = 0.01; // fraction of the field
const LEAST_ANGLE = (5 * Math.PI) / 180;
const LEAST_STD = 1;

/** Give a whole field the colours of the reference; null if they cannot be estimated. */
export function normalise(image: Image, method: Exclude<Method, "none">): Image | null {
    const step = Math.ceil(Math.max(image.width, image.height) / SAMPLE_SIDE);
    const tissue: Triple[] = [];
    let sampled = 0;
    for (let row = 0; row < image.height; row += step) {
        for (let col = 0; col < image.width; col += step) {
            const pixel = pixelAt(image, row * image.width + col);
            sampled++;
            if (isTissue(pixel)) tissue.push(pixel);
        }
    }
    if (tissue.length < Math.max(FEWEST, LEAST_TISSUE * sampled)) return null;
    return method === "macenko" ? macenko(image, tissue) : reinhard(image, tissue);
}

/** Source: Macenko et al., "A method for normalizing histology slides for quantitative analysis", ISBI 2009. */
function macenko(image: Image, tissue: readonly Triple[]): Image | null {
    const densities = tissue.map(([red, green, blue]): Triple => [DENSITY[red], DENSITY[green], DENSITY[blue]]);
    const stained = densities.filter((density) => Math.min(...density) >= GLASS);
    if (stained.length < FEWEST) return null;
    // The plane of the two stains passes through the origin, so the densities are not centred.
    const [first, second] = mainDirections(stained);
    const along = first.map(Math.abs) as unknown as Triple;
    const slopes = Float64Array.from(stained, (density) => dot(density, second) / dot(density, along));
    const extremes = [Math.atan(percentile(slopes, 1)), Math.atan(percentile(slopes, 99))];
    if (Math.abs(extremes[1] - extremes[0]) < LEAST_ANGLE) return null;
    const stains = extremes.map(
        (angle) =>
            along.map(
                (value, channel) => value * Math.cos(angle) + second[channel] * Math.sin(angle),
            ) as unknown as Triple,
    );
    if (stains[0][0] < stains[1][0]) stains.reverse(); // haematoxylin absorbs more red light
    const unmix = pseudoInverse(stains[0], stains[1]);
    const strongest = unmix.map((row) =>
        percentile(
            Float64Array.from(densities, (density) => dot(density, row)),
            99,
        ),
    );
    if (Math.min(...strongest) < GLASS) return null;
    const factors = strongest.map((amount, stain) => STRONGEST[stain] / amount);
    const toReference = [0, 1, 2].map((channel) =>
        [0, 1, 2].map(
            (source) =>
                STAINS[0][channel] * factors[0] * unmix[0][source] + STAINS[1][channel] * factors[1] * unmix[1][source],
        ),
    );
    const rgb = new Uint8Array(image.rgb.length);
    for (let pixel = 0; pixel < rgb.length; pixel += 3) {
        const red = DENSITY[image.rgb[pixel]];
        const green = DENSITY[image.rgb[pixel + 1]];
        const blue = DENSITY[image.rgb[pixel + 2]];
        for (let channel = 0; channel < 3; channel++) {
            const row = toReference[channel];
            const light = LIGHT * Math.exp(-(row[0] * red + row[1] * green + row[2] * blue));
            rgb[pixel + channel] = clamp(Math.trunc(light - 0.5), 0, 255); // intensities are one less, and rounded here
        }
    }
    return { width: image.width, height: image.height, rgb };
}

/** Source: Reinhard et al., "Color transfer between images", IEEE Computer Graphics and Applications 21 (2001). */
function reinhard(image: Image, tissue: readonly Triple[]): Image | null {
    const labs = tissue.map(toLab);
    const mean = [0, 1, 2].map((channel) => labs.reduce((sum, lab) => sum + lab[channel], 0) / labs.length);
    const std = mean.map((middle, channel) =>
        Math.sqrt(labs.reduce((sum, lab) => sum + (lab[channel] - middle) ** 2, 0) / labs.length),
    );
    if (Math.min(...std) < LEAST_STD) return null;
    const scale = std.map((value, channel) => LAB_STD[channel] / value);
    const rgb = image.rgb.slice();
    for (let index = 0; index < image.width * image.height; index++) {
        const pixel = pixelAt(image, index);
        if (!isTissue(pixel)) continue; // glass has no stain, so the shift would tint it
        const lab = toLab(pixel).map((value, channel) => (value - mean[channel]) * scale[channel] + LAB_MEAN[channel]);
        rgb.set(fromLab(lab as unknown as Triple), 3 * index);
    }
    return { width: image.width, height: image.height, rgb };
}

function pixelAt(image: Image, index: number): Triple {
    return [image.rgb[3 * index], image.rgb[3 * index + 1], image.rgb[3 * index + 2]];
}

/** Whether a pixel is not bare glass. */
function isTissue(pixel: Triple): boolean {
    return DENSITY[Math.min(...pixel)] >= GLASS;
}

function dot(one: Triple, other: Triple): number {
    return one[0] * other[0] + one[1] * other[1] + one[2] * other[2];
}

/** Return the two main directions of some vectors: eigenvectors of their products, by Jacobi's rotations. */
function mainDirections(vectors: readonly Triple[]): [Triple, Triple] {
    const matrix = [0, 1, 2].map((row) =>
        [0, 1, 2].map((col) => vectors.reduce((sum, vector) => sum + vector[row] * vector[col], 0)),
    );
    const axes = [
        [1, 0, 0],
        [0, 1, 0],
        [0, 0, 1],
    ];
    for (let sweep = 0; sweep < 30; sweep++) {
        for (const [one, other] of [
            [0, 1],
            [0, 2],
            [1, 2],
        ]) {
            const angle = Math.atan2(2 * matrix[one][other], matrix[one][one] - matrix[other][other]) / 2;
            const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
            for (const row of [...matrix, ...axes]) {
                [row[one], row[other]] = [cos * row[one] + sin * row[other], cos * row[other] - sin * row[one]];
            }
            for (let col = 0; col < 3; col++) {
                const [above, below] = [matrix[one][col], matrix[other][col]];
                matrix[one][col] = cos * above + sin * below;
                matrix[other][col] = cos * below - sin * above;
            }
        }
    }
    const order = [0, 1, 2].sort((one, other) => matrix[other][other] - matrix[one][one]);
    return [order[0], order[1]].map((axis) => axes.map((row) => row[axis]) as unknown as Triple) as [Triple, Triple];
}

/** Return the two rows that give the amounts of two stains in a density, by least squares. */
function pseudoInverse(one: Triple, other: Triple): [Triple, Triple] {
    const [a, b, c] = [dot(one, one), dot(one, other), dot(other, other)];
    const determinant = a * c - b * b;
    const combine = (first: number, second: number) =>
        one.map((value, channel) => (first * value + second * other[channel]) / determinant) as unknown as Triple;
    return [combine(c, -b), combine(-b, a)];
}

// CIE L*a*b* of sRGB with the white D65, as OpenCV computes it. Source: OpenCV's documentation of cvtColor.
const WHITE = [0.950456, 1, 1.088754];
const TO_XYZ: readonly Triple[] = [
    [0.412453, 0.35758, 0.180423],
    [0.212671, 0.71516, 0.072169],
    [0.019334, 0.119193, 0.950227],
];
const FROM_XYZ: readonly Triple[] = [
    [3.240479, -1.53715, -0.498535],
    [-0.969256, 1.875991, 0.041556],
    [0.055648, -0.204043, 1.057311],
];
const LINEAR = Float64Array.from({ length: 256 }, (_, intensity) => {
    const value = intensity / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
});
const DARK = 0.008856;

function toLab([red, green, blue]: Triple): Triple {
    const linear: Triple = [LINEAR[red], LINEAR[green], LINEAR[blue]];
    const [x, y, z] = TO_XYZ.map((row, axis) => {
        const value = dot(row, linear) / WHITE[axis];
        return value > DARK ? Math.cbrt(value) : 7.787 * value + 16 / 116;
    });
    return [116 * y - 16, 500 * (x - y), 200 * (y - z)];
}

function fromLab([lightness, a, b]: Triple): Triple {
    const middle = (lightness + 16) / 116;
    const xyz = [middle + a / 500, middle, middle - b / 200].map((value, axis) => {
        const cube = value ** 3;
        return (cube > DARK ? cube : (value - 16 / 116) / 7.787) * WHITE[axis];
    }) as unknown as Triple;
    return FROM_XYZ.map((row) => {
        const linear = clamp(dot(row, xyz), 0, 1);
        const value = linear <= 0.0031308 ? linear * 12.92 : 1.055 * linear ** (1 / 2.4) - 0.055;
        return clamp(round(value * 255), 0, 255);
    }) as unknown as Triple;
}
