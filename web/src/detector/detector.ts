/** The detector: propose, score, calibrate and suppress, as src/mitoscope/detection/detector.py does. */

import { findCandidates } from "./candidates";
import { type Image, type Picture, type Point, round } from "./image";
import { views } from "./patches";
import { rescale, resize } from "./resize";
import { calibrate, type FieldHead, headLogOdds, sigmoid, suppress } from "./scores";
import { type Method, normalise } from "./stain";

const FORMAT = 2; // of detector.json
const MOST_ZOOM = 4;
export const MOST_PIXELS = 100e6; // of a field
const BATCH = 32; // patches that are scored at once

/** What the page uses of detector.json; lengths are in um. */
export interface Settings {
    readonly format: number;
    readonly version: string;
    readonly network: string;
    readonly networks: Readonly<Record<string, { readonly sha256: string }>>;
    readonly patch_size: number;
    readonly extract: {
        readonly stain: Method;
        readonly microns_per_pixel: number;
        readonly blue_ratio_microns_per_pixel: number;
        readonly sigma_um: number;
        readonly peak_window_um: number;
        readonly candidates_per_mm2: number;
    };
    readonly detection: {
        readonly views: number;
        readonly suppress_um: number;
        readonly field_head: { readonly prior_candidates: number };
        readonly calibration: {
            readonly percentiles: readonly [number, number];
            readonly prior_candidates: number;
        };
    };
    readonly field_head: FieldHead | null;
    readonly calibration: { readonly middle: number; readonly upper: number } | null;
    readonly threshold: number;
    readonly origin: {
        readonly network: string;
        readonly microns_per_pixel: number;
        readonly synthetic: boolean;
    };
    readonly model: string;
    readonly detector_sha256: string;
}

/** A candidate that no more probable one is too close to. */
export interface Scored extends Point {
    readonly probability: number;
}

/** What is found in a field. */
export interface Found {
    /** All candidates after suppression, most probable first; the mitoses are those from the threshold on. */
    readonly candidates: readonly Scored[];
    /** Area without transparent parts, mm2. */
    readonly area: number;
    readonly micronsPerPixel: number;
    /** False if the stain could not be normalised, or is not to be. */
    readonly normalised: boolean;
}

/** Runs the network on (count, 3, side, side) patches; returns one row of outputs a patch. */
export type Run = (patches: Uint8Array, count: number, side: number) => Promise<Float32Array>;

/** Told how many candidates are scored; returns false to stop. */
export type OnProgress = (done: number, total: number) => boolean | Promise<boolean>;

/**
 * Check the content of detector.json.
 *
 * @throws Error it has another format.
 */
export function checkSettings(settings: Settings): Settings {
    if (settings.format !== FORMAT) throw new Error("detector.json has another format; make this page again");
    return settings;
}

/**
 * Return the pixel size to use, um.
 *
 * @throws RangeError the pixels are much finer or coarser than those of the training fields.
 */
export function checkPixels(settings: Settings, micronsPerPixel: number | null): number {
    const known = settings.origin.microns_per_pixel;
    const microns = micronsPerPixel ?? known;
    const ratio = microns / known;
    if (!(ratio >= 1 / MOST_ZOOM && ratio <= MOST_ZOOM)) {
        throw new RangeError(
            `${Number(microns.toPrecision(4))} µm per pixel: the detector was trained at ${known} µm and takes pixels at most ${MOST_ZOOM} ` +
                "times finer or coarser; give the true pixel size",
        );
    }
    return microns;
}

/**
 * Check that a field is not too large, also as the detector enlarges it.
 *
 * @throws RangeError it is.
 */
export function checkSize(
    { extract }: Settings,
    image: { readonly width: number; readonly height: number },
    micronsPerPixel: number,
): void {
    const finest = Math.min(extract.microns_per_pixel, extract.blue_ratio_microns_per_pixel);
    const pixels = image.width * image.height * Math.max(1, micronsPerPixel / finest) ** 2;
    if (pixels > MOST_PIXELS) {
        const millions = Math.ceil(pixels / 1e6);
        throw new RangeError(
            `the detector would enlarge it to ${millions} million pixels, more than ${MOST_PIXELS / 1e6}; cut it into ` +
                "smaller fields",
        );
    }
}

/** Find the mitoses of a field; null if `onProgress` stops it. */
export async function detect(
    settings: Settings,
    run: Run,
    picture: Picture,
    micronsPerPixel: number | null,
    onProgress: OnProgress,
): Promise<Found | null> {
    const microns = checkPixels(settings, micronsPerPixel);
    checkSize(settings, picture, microns);
    const { extract, detection } = settings;
    const restained = extract.stain === "none" ? null : normalise(picture, extract.stain);
    const image: Image = restained ?? picture;
    const pixels = picture.opaque?.reduce((sum, value) => sum + value, 0) ?? picture.width * picture.height;
    const area = (pixels * microns ** 2) / 1e6;
    const pixel = extract.blue_ratio_microns_per_pixel;
    const points = findCandidates(image, picture.opaque, {
        scale: microns / pixel,
        count: Math.ceil(extract.candidates_per_mm2 * area),
        sigma: extract.sigma_um / pixel,
        window: Math.max(2 * round((extract.peak_window_um / pixel - 1) / 2) + 1, 3),
    });
    const outputs = await score(settings, run, image, points, microns, onProgress);
    if (outputs === null) return null;
    const probabilities = logOddsOf(settings, outputs).map(sigmoid);
    const kept = suppress(points, probabilities, detection.suppress_um / microns);
    const candidates = kept.map((index) => ({ ...points[index], probability: probabilities[index] }));
    return { candidates, area, micronsPerPixel: microns, normalised: restained !== null };
}

/** Return the outputs of the network for each point, averaged over the views. */
async function score(
    settings: Settings,
    run: Run,
    image: Image,
    points: readonly Point[],
    microns: number,
    onProgress: OnProgress,
): Promise<Float64Array | null> {
    const resized = resize(image, microns / settings.extract.microns_per_pixel);
    const places = points.map((point) => rescale(point, image, resized));
    const side = settings.patch_size;
    let outputs = new Float64Array(0);
    for (let start = 0; start < places.length; start += BATCH) {
        if (!(await onProgress(start, places.length))) return null;
        const batch = places.slice(start, start + BATCH);
        const seen = views(resized, batch, side, settings.detection.views);
        for (const view of seen) {
            const found = await run(view, batch.length, side);
            const width = found.length / batch.length;
            if (outputs.length === 0) outputs = new Float64Array(places.length * width);
            for (let index = 0; index < found.length; index++) {
                outputs[start * width + index] += found[index] / seen.length;
            }
        }
    }
    return (await onProgress(places.length, places.length)) ? outputs : null;
}

/** Return the log-odds of each candidate of a field from the outputs of the network. */
function logOddsOf(settings: Settings, outputs: Float64Array): Float64Array {
    const { field_head: head, calibration, detection } = settings;
    if (head) return headLogOdds(outputs, head, detection.field_head.prior_candidates);
    const logOdds = Float64Array.from(
        { length: outputs.length / 2 },
        (_, index) => outputs[2 * index + 1] - outputs[2 * index],
    );
    if (calibration === null) return logOdds;
    const { percentiles, prior_candidates: priorCandidates } = detection.calibration;
    return calibrate(logOdds, { ...calibration, percentiles, priorCandidates });
}
