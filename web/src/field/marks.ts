/** The marks of a field: the detector's, and what a person makes of them, with undo. */

import type { Scored } from "../detector/detector";
import type { Point } from "../detector/image";

/** Radius of a mark, as `mitoscope detect` draws it. */
export const NUCLEUS_UM = 5;

/** `detected` is the detector's word alone; the others are a person's. */
export type State = "detected" | "accepted" | "rejected" | "added";

/** A place that is, or was, taken for a mitosis. */
export interface Mark extends Point {
    readonly id: string;
    /** The detector's; null if a person added the mark. */
    readonly probability: number | null;
    readonly state: State;
}

/** What a person did with a mark; null removes what was done before. */
interface Change {
    readonly id: string;
    readonly before: Mark | null;
    readonly after: Mark | null;
}

/** All candidates of a field, and the corrections of a person. */
export class Marks {
    readonly #candidates: readonly Mark[];
    readonly #corrected = new Map<string, Mark>();
    readonly #done: Change[] = [];
    readonly #undone: Change[] = [];

    constructor(candidates: readonly Scored[]) {
        this.#candidates = candidates.map(
            ({ row, col, probability }): Mark => ({
                id: newId(),
                row,
                col,
                probability,
                state: "detected",
            }),
        );
    }

    /** The marks to show: corrected ones, and candidates from the threshold on; most probable first, added ones last. */
    from(threshold: number): Mark[] {
        const known = this.#candidates
            .map((mark) => this.#corrected.get(mark.id) ?? mark)
            .filter((mark) => mark.state !== "detected" || (mark.probability ?? 0) >= threshold);
        const added = [...this.#corrected.values()].filter((mark) => mark.probability === null);
        return [...known, ...added];
    }

    /** Accept or reject a mark, or take that back. Rejecting an added mark removes it. */
    set(mark: Mark, state: "accepted" | "rejected" | "detected"): void {
        const isGone = mark.probability === null && state !== "accepted";
        if (mark.state === state || (mark.state === "added" && state === "accepted")) return;
        this.#do({
            id: mark.id,
            before: this.#corrected.get(mark.id) ?? null,
            after: isGone ? null : { ...mark, state },
        });
    }

    /** Add a mitosis; where there is a candidate or mark of the same nucleus, that one is accepted. */
    add(point: Point, distance: number): Mark {
        const known = this.#near(point, distance);
        if (known) {
            this.set(known, "accepted");
            return this.#corrected.get(known.id) ?? known;
        }
        const mark: Mark = { id: newId(), ...point, probability: null, state: "added" };
        this.#do({ id: mark.id, before: null, after: mark });
        return mark;
    }

    /** Take the last correction back. */
    undo(): void {
        const change = this.#done.pop();
        if (!change) return;
        this.#apply(change.id, change.before);
        this.#undone.push(change);
    }

    /** Do again what was taken back last. */
    redo(): void {
        const change = this.#undone.pop();
        if (!change) return;
        this.#apply(change.id, change.after);
        this.#done.push(change);
    }

    /** Tells the corrections as they are from earlier ones; null = none. */
    get version(): unknown {
        return this.#done.at(-1) ?? null;
    }

    get canUndo(): boolean {
        return this.#done.length > 0;
    }

    get canRedo(): boolean {
        return this.#undone.length > 0;
    }

    /** The nearest candidate or mark within a distance of a point, px, also below the threshold; null if none is. */
    #near(point: Point, distance: number): Mark | null {
        let best: Mark | null = null;
        let nearest = distance;
        for (const mark of this.from(0)) {
            const away = Math.hypot(mark.row - point.row, mark.col - point.col);
            if (away <= nearest) [best, nearest] = [mark, away];
        }
        return best;
    }

    #do(change: Change): void {
        this.#apply(change.id, change.after);
        this.#done.push(change);
        this.#undone.length = 0;
    }

    #apply(id: string, mark: Mark | null): void {
        if (mark) this.#corrected.set(id, mark);
        else this.#corrected.delete(id);
    }
}

/** Return a random UUID, which QuPath wants; `crypto.randomUUID` is only there where the connection is safe. */
function newId(): string {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    bytes[6] = (bytes[6] & 0x0f) | 0x40; // version 4
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    const digits = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    return digits.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

/** The marks that are mitoses. */
export function mitoses(marks: readonly Mark[]): Mark[] {
    return marks.filter((mark) => mark.state !== "rejected");
}
