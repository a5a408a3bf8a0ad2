/** The marks of the field on the page: which are shown and selected, and what a person makes of them. */

import type { Found, Settings } from "../detector/detector";
import type { Point } from "../detector/image";
import { type HotSpot, hotSpot } from "../field/hotSpot";
import { type Mark, Marks, mitoses, NUCLEUS_UM } from "../field/marks";
import { elements } from "./elements";
import { fillList } from "./list";
import { say } from "./status";
import { type Line, View } from "./view";

const HOT_SPOT_MM2 = 2; // about ten high-power fields, the area of a mitotic count

/** A field that is open; nothing is found before its pixel size is known. */
export interface Field {
    readonly name: string;
    readonly bitmap: ImageBitmap;
    /** Share of the pixels. */
    readonly transparent: number;
    found: Found | null;
    marks: Marks;
    /** Version of the marks that were saved last. */
    saved: unknown;
}

export class Marking {
    settings: Settings | null = null;
    readonly view: View;
    #field: Field | null = null;
    #selected: Mark | null = null;
    #spot: { readonly of: string; readonly found: HotSpot | null } = { of: "", found: null };

    /** `measure` gets the lines that are drawn with the ruler. */
    constructor(measure: (line: Line) => void) {
        this.view = new View(elements.picture, { tap: (point, distance) => this.#tap(point, distance), measure });
        this.show();
    }

    get field(): Field | null {
        return this.#field;
    }

    get selected(): Mark | null {
        return this.#selected;
    }

    /** Whether there are corrections that are not saved. */
    get isUnsaved(): boolean {
        return this.#field ? this.#field.marks.version !== this.#field.saved : false;
    }

    /** Show another field; nothing is found in it yet. */
    open(name: string, bitmap: ImageBitmap, transparent: number): void {
        this.#field = { name, bitmap, transparent, found: null, marks: new Marks([]), saved: null };
        this.#selected = null;
        elements.name.textContent = name;
        this.view.open(bitmap);
        this.aim("none");
    }

    /** Show what is found in the field, or with null that nothing is known any more. */
    take(found: Found | null): void {
        if (!this.#field) return;
        this.#field.marks = new Marks(found?.candidates ?? []);
        this.#field.found = found;
        this.#field.saved = null;
        this.show();
    }

    /** The marks that are shown. */
    marks(): Mark[] {
        return this.#field?.found ? this.#field.marks.from(Number(elements.threshold.value)) : [];
    }

    /** Show everything as it is now. */
    show(): void {
        const found = this.#field?.found ?? null;
        const marks = this.marks();
        this.#selected = marks.find((mark) => mark.id === this.#selected?.id) ?? null;
        const counted = mitoses(marks);
        const spot = this.#hotSpot(counted);
        elements.count.textContent = found ? String(counted.length) : "–";
        elements.density.textContent = found ? (counted.length / found.area).toFixed(1) : "–";
        elements.hotSpot.textContent = spot ? String(spot.count) : "–";
        elements.hotSpotName.textContent = found && !spot ? "field < 2 mm²" : "densest 2 mm²";
        elements.thresholdValue.textContent = this.settings ? Number(elements.threshold.value).toFixed(3) : "";
        elements.undo.disabled = !this.#field?.marks.canUndo;
        elements.redo.disabled = !this.#field?.marks.canRedo;
        const { zoomIn, zoomOut, fit, ruler, add, csv, geojson, threshold, reset } = elements;
        for (const element of [zoomIn, zoomOut, fit, ruler]) element.disabled = !this.#field;
        for (const element of [add, csv, geojson, threshold, reset]) element.disabled = !found;
        const radius = NUCLEUS_UM / (found?.micronsPerPixel ?? this.settings?.origin.microns_per_pixel ?? 0.25);
        this.view.show({ marks, selected: this.#selected, hotSpot: spot, radius, isAdding: this.#aimsAt("add") });
        if (!this.#field || !found) {
            elements.marks.replaceChildren();
            return;
        }
        const shown = { bitmap: this.#field.bitmap, micronsPerPixel: found.micronsPerPixel };
        fillList(elements.marks, shown, marks, this.#selected, {
            select: (mark) => this.#goTo(mark),
            accept: (mark) => this.accept(mark),
            reject: (mark) => this.reject(mark),
        });
    }

    /** Where the mitoses are densest; computed when they change, and only if so much of the field is opaque. */
    #hotSpot(counted: readonly Mark[]): HotSpot | null {
        const found = this.#field?.found;
        if (!this.#field || !found || found.area < HOT_SPOT_MM2) return null;
        const of = `${found.micronsPerPixel} ${counted.map((mark) => mark.id).join()}`;
        if (of !== this.#spot.of) {
            this.#spot = { of, found: hotSpot(counted, this.#field.bitmap, found.micronsPerPixel, HOT_SPOT_MM2) };
        }
        return this.#spot.found;
    }

    /** Choose what a tap or a line on the picture does, besides moving it. */
    aim(at: "none" | "add" | "ruler"): void {
        elements.line.hidden = true;
        elements.add.setAttribute("aria-pressed", String(at === "add"));
        elements.ruler.setAttribute("aria-pressed", String(at === "ruler"));
        elements.stage.classList.toggle("aiming", at !== "none");
        this.view.isMeasuring = at === "ruler";
        this.view.clearLine();
        if (at === "ruler") say("Draw a line along something of known length, such as the scale bar.");
        if (at === "add") say("Tap on a mitosis that the detector missed.");
        this.show();
    }

    /** Aim at something, or at nothing if it is aimed at already. */
    toggle(at: "add" | "ruler"): void {
        this.aim(this.#aimsAt(at) ? "none" : at);
    }

    #aimsAt(at: "add" | "ruler"): boolean {
        return elements[at].getAttribute("aria-pressed") === "true";
    }

    #tap(point: Point, distance: number): void {
        if (!this.#field?.found) return;
        if (this.#aimsAt("add")) {
            this.add(point);
            return;
        }
        const away = (mark: Mark) => Math.hypot(mark.row - point.row, mark.col - point.col);
        const near = this.marks().filter((mark) => away(mark) <= distance);
        const [mark] = near.sort((one, other) => away(one) - away(other));
        if (mark && mark.id === this.#selected?.id) {
            if (mark.state === "detected") this.accept(mark);
            else this.reject(mark); // what is rejected is detected again
        } else {
            this.#selected = mark ?? null;
            if (mark) say("Tap it again to accept it, and once more to reject it.");
            this.show();
        }
        elements.marks.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest" });
    }

    /** Add a mitosis; where the detector has a candidate, that one is accepted. */
    add(point: Point): void {
        if (!this.#field?.found) return;
        const { width, height } = this.#field.bitmap;
        if (point.row < 0 || point.col < 0 || point.row > height - 1 || point.col > width - 1) return;
        const reach = NUCLEUS_UM / this.#field.found.micronsPerPixel;
        this.#change((marks) => {
            this.#selected = marks.add(point, reach);
        });
    }

    /** Accept a mark, or take that back. */
    accept(mark: Mark): void {
        this.#change((marks) => marks.set(mark, mark.state === "accepted" ? "detected" : "accepted"));
    }

    /** Reject a mark, or take that back. */
    reject(mark: Mark): void {
        this.#change((marks) => marks.set(mark, mark.state === "rejected" ? "detected" : "rejected"));
    }

    undo(): void {
        this.#change((marks) => marks.undo());
    }

    redo(): void {
        this.#change((marks) => marks.redo());
    }

    /** Change the marks. */
    #change(act: (marks: Marks) => void): void {
        if (!this.#field) return;
        act(this.#field.marks);
        this.show();
    }

    /** Go to the next mark, or with -1 to the previous one. */
    step(by: 1 | -1): void {
        const marks = this.marks();
        if (!marks.length) return;
        const at = marks.findIndex((mark) => mark.id === this.#selected?.id);
        const first = by > 0 ? 0 : marks.length - 1;
        this.#goTo(marks[at < 0 ? first : (at + by + marks.length) % marks.length]);
    }

    #goTo(mark: Mark): void {
        this.#selected = mark;
        this.view.goTo(mark);
        this.show();
    }
}
