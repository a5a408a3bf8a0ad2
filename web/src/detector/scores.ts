/** From a network's outputs to the log-odds and the marks of one field. */

import { clamp, type Point, percentile } from "./image";

const NARROWEST_VARIANCE = 1e-6; // added to the variance, which is 0 for a constant feature
const NARROWEST_SPREAD = 0.01; // of the two percentiles
const FARTHEST = 36; // log-odds

/** Scores every candidate relative to the others of its field; as `field_head` of detector.json. */
export interface FieldHead {
    readonly mean: readonly number[];
    readonly variance: readonly number[];
    readonly weights: readonly number[];
    readonly bias: number;
}

/** Maps the scores of a field to the typical spread; as `calibration` of detector.json, with its settings. */
export interface Calibration {
    readonly middle: number;
    readonly upper: number;
    readonly percentiles: readonly [number, number];
    readonly priorCandidates: number;
}

/** Return the probability of each of some log-odds. */
export function sigmoid(logOdds: number): number {
    return 1 / (1 + Math.exp(-logOdds));
}

/**
 * Return the log-odds of a mitosis for each candidate of a field by a field head.
 *
 * @param features the pooled features of all candidates, one candidate after the other.
 * @param head the weights.
 * @param priorCandidates the weight of the training fields in a field with few candidates.
 */
export function headLogOdds(features: Float64Array, head: FieldHead, priorCandidates: number): Float64Array {
    const channels = head.weights.length;
    const count = features.length / channels;
    const share = count / (count + priorCandidates);
    const logOdds = new Float64Array(count).fill(head.bias);
    for (let channel = 0; channel < channels; channel++) {
        let mean = 0;
        for (let index = channel; index < features.length; index += channels) mean += features[index] / count;
        let variance = 0;
        for (let index = channel; index < features.length; index += channels) {
            variance += (features[index] - mean) ** 2 / count;
        }
        const middle = share * mean + (1 - share) * head.mean[channel];
        const spread = share * variance + (1 - share) * head.variance[channel];
        const weight = head.weights[channel] / Math.sqrt(spread + NARROWEST_VARIANCE);
        for (let number = 0; number < count; number++) {
            logOdds[number] += (features[number * channels + channel] - middle) * weight;
        }
    }
    return logOdds;
}

/** Map the log-odds of all candidates of a field to the typical spread. */
export function calibrate(logOdds: Float64Array, calibration: Calibration): Float64Array {
    if (logOdds.length === 0) return logOdds;
    const near = logOdds.map((value) => clamp(value, -FARTHEST, FARTHEST));
    const share = near.length / (near.length + calibration.priorCandidates);
    const [middle, upper] = calibration.percentiles.map((percent, index) => {
        const typical = index === 0 ? calibration.middle : calibration.upper;
        return share * percentile(near, percent) + (1 - share) * typical;
    });
    const typical = Math.max(calibration.upper - calibration.middle, NARROWEST_SPREAD);
    const stretch = typical / Math.max(upper - middle, NARROWEST_SPREAD);
    return near.map((value) => clamp(calibration.upper + (value - upper) * stretch, -FARTHEST, FARTHEST));
}

/**
 * Return the indices of the points that stay, most probable first: no more probable one that stays is within `radius`.
 *
 * A less probable point never removes a more probable one. So a threshold may be applied before or after.
 */
export function suppress(points: readonly Point[], probabilities: Float64Array, radius: number): number[] {
    const order = points.map((_, index) => index).sort((one, other) => probabilities[other] - probabilities[one]);
    const kept: number[] = [];
    for (const index of order) {
        const { row, col } = points[index];
        const isFree = kept.every((other) => Math.hypot(points[other].row - row, points[other].col - col) > radius);
        if (isFree) kept.push(index);
    }
    return kept;
}
